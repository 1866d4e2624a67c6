"""From a network of ours and its arrays to files of any dialect."""

import json
from collections.abc import Mapping
from typing import Any, get_args

from etils import epath

from resnet_jax import models
from resnet_jax.errors import InputError, unknown
from resnet_jax.files import write_atomically
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.form import FOREIGN_FORM, INVISIBLE
from resnet_jax.interop.naming import DialectName, foreign_name, to_foreign
from resnet_jax.interop.preprocessing import Json
from resnet_jax.interop.read import ENTRY, MEAN_IMAGE
from resnet_jax.interop.safetensors_file import write_safetensors
from resnet_jax.interop.weights import Weights
from resnet_jax.models import BottleneckBlock, ResNet

_NO_FOLDERS = (".pth", ".pt", ".bin", ".npz", ".msgpack", ".ckpt", ".h5")


def write_weights(
    weights: Weights,
    destination: epath.PathLike,
    dialect: DialectName,
    *,
    force: bool = False,
) -> None:
    """Writes a network's arrays as a library has them.

    Args:
      weights: The network.
      destination: A file `NAME.safetensors`, or a folder to be made, with `model.safetensors` and
        the configs from which timm and transformers make the network.
      dialect: The library, or "resnet_jax" for our own names.
      force: Write what the library has no such network for. Its own network takes the arrays, where
        the names and shapes are the same, but computes something else.

    Raises:
      InputError: There is something at the destination, or it is no such file; there is no such
        dialect, or the library has no such network.
    """
    if dialect not in get_args(DialectName):
        raise unknown("dialect", dialect, get_args(DialectName))
    path = epath.Path(destination).expanduser()
    if path.suffix in _NO_FOLDERS:
        raise InputError(
            f"{path} is not written: give NAME.safetensors, which PyTorch reads with "
            "safetensors.torch.load_file, or a folder"
        )
    if path.exists():
        raise InputError(f"{path} is there already; give another destination, or remove it")
    different = [] if dialect == "resnet_jax" else _differences(weights, dialect)
    if different and not force:
        raise InputError(
            f"{weights.source} is not written: {dialect}'s network would compute something else, "
            f"it has {', '.join(different)}; force it to write the names nevertheless"
        )
    arrays = {
        foreign_name(dialect, name): to_foreign(dialect, array)
        for name, array in weights.arrays.items()
    }
    if dialect == "resnet_jax" and weights.preprocessing.mean_image is not None:
        arrays[MEAN_IMAGE] = weights.preprocessing.mean_image
    configs: Mapping[str, Mapping[str, Json]] = {}
    if path.suffix != ".safetensors":
        configs, path = _configs(weights, dialect), path / "model.safetensors"
    for name, config in configs.items():
        text = json.dumps(config, indent=2, sort_keys=True)
        write_atomically(path.parent / name, f"{text}\n".encode())
    # Libraries of PyTorch's want to be told that the arrays are theirs.
    metadata = {"format": "pt"} if dialect != "resnet_jax" else {}
    write_safetensors(path, arrays, metadata | {ENTRY: json.dumps(_entry(weights))})


def _entry(weights: Weights) -> dict[str, Json]:
    network = {field: getattr(weights.network, field) for field in INVISIBLE}
    return {
        "network": network,
        "preprocessing": preprocessings.to_json(weights.preprocessing),
    }


def _differences(weights: Weights, dialect: DialectName) -> list[str]:
    """Returns what a library's network has otherwise, silently or not."""
    fields = dict(FOREIGN_FORM)
    del fields["bn_momentum"]  # it decides about training alone, and is set there as here
    if dialect == "huggingface" or weights.network.block is not BottleneckBlock:
        del fields["stride_on"]  # said by its config, or of no effect
    different = [
        f"{field} {value!r} for {there!r}"
        for field, value in fields.items()
        if (there := getattr(weights.network, field)) != value
    ]
    if weights.preprocessing.mean_image is not None:
        different.append("numbers to subtract for a mean image")
    return different


def _configs(weights: Weights, dialect: DialectName) -> dict[str, dict[str, Json]]:
    match dialect:
        case "timm":
            return {"config.json": _timm_config(weights)}
        case "huggingface":
            return {
                "config.json": _hugging_face_config(weights),
                "preprocessor_config.json": preprocessings.to_hugging_face(weights.preprocessing),
            }
        case _:
            return {}


def _timm_config(weights: Weights) -> dict[str, Json]:
    network = weights.network
    for name in models.list_models():
        if name.startswith("resnet") and _same_depth(models.create_model(name), network):
            break
    else:
        raise InputError(
            f"timm has no name for stages of {network.stage_sizes} blocks of width "
            f"{network.width}; give NAME.safetensors, which has no config"
        )
    return {
        "architecture": name.removesuffix("_v1_5"),
        "num_classes": network.num_classes,
        "pretrained_cfg": {
            **preprocessings.to_timm(weights.preprocessing),
            "num_classes": network.num_classes,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }


def _same_depth(one: Any, other: ResNet) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in _DEPTH)


_DEPTH = ("stage_sizes", "block", "width")


def _hugging_face_config(weights: Weights) -> dict[str, Json]:
    network = weights.network
    bottleneck = network.block is BottleneckBlock
    expansion = 4 if bottleneck else 1
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": weights.channels,
        "num_labels": network.num_classes,
        "embedding_size": network.width,
        "hidden_sizes": [
            network.width * 2**stage * expansion for stage in range(len(network.stage_sizes))
        ],
        "depths": list(network.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": network.stride_on == "1x1",
    }
