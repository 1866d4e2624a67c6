"""From a network of ours and its arrays to files of any dialect."""

import functools
import json
from collections.abc import Mapping
from typing import get_args

import numpy as np
from etils import epath
from flax import linen as nn

from resnet_jax.errors import InputError, unknown
from resnet_jax.files import check_writable, resolve_path, write_atomically
from resnet_jax.interop.configs import configs_of, entry_of
from resnet_jax.interop.families import key_map
from resnet_jax.interop.families.key_map import DialectName, KeyMap
from resnet_jax.interop.families.resnet import keras_layers
from resnet_jax.interop.formats import ENTRY
from resnet_jax.interop.formats.caffe import write_caffe
from resnet_jax.interop.formats.keras import write_keras
from resnet_jax.interop.formats.safetensors import write_safetensors
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.interop.weights import (
    MEAN_IMAGE,
    Variables,
    Weights,
    extra_shapes,
    filled,
    fold_biases,
    of_variables,
    shapes_of,
)
from resnet_jax.models import BottleneckBlock, ResNet

_FILES = (
    *(".safetensors", ".h5", ".keras", ".caffemodel"),
    *(".pth", ".pt", ".bin", ".npz", ".msgpack", ".ckpt", ".pb"),
)
_OF_TRAINING = ("bn_momentum", "dropout_rate", "auxiliary_dropout_rate")


def save_pretrained(
    network: nn.Module,
    variables: Variables,
    destination: epath.PathLike,
    *,
    to: DialectName,
    preprocessing: Preprocessing | None = None,
    force: bool = False,
) -> None:
    """Writes a network as a library has it.

    Args:
      network: The network, of a class of this package; each library has only some of them.
      variables: Its `params` and, if it has any, `batch_stats`.
      destination: A file `NAME.safetensors`, which torch's `load_state_dict` takes once
        `safetensors.torch.load_file` has read it; or a folder to be made, with the configs from
        which timm and transformers make the network; `NAME.h5` for Keras, whose `load_weights`
        takes it; `NAME.caffemodel` for Caffe, or a folder with one and the mean image.
      to: The library, or "resnet_jax" for our own names.
      preprocessing: How images are prepared; by default as is usual for ImageNet, or, for images of
        other than 3 channels, resized and cropped only.
      force: Write it although the library's network would compute something else.

    Raises:
      InputError: The network is of another class, the variables are not its own, the library has no
        such network, or there is something at the destination.
    """
    weights = of_variables(network, variables, preprocessing, "the network")
    write_weights(weights, destination, to, force=force)


def write_weights(
    weights: Weights,
    destination: epath.PathLike,
    dialect: DialectName,
    *,
    force: bool = False,
) -> None:
    """Writes a network's arrays as a library has them, see `save_pretrained`.

    Extra arrays that the library does not have are folded into the running statistics (biases of
    convolutions and Caffe's factors) or left out (PyTorch's counts).

    Raises:
      InputError: As `save_pretrained`.
    """
    if dialect not in get_args(DialectName):
        raise unknown("dialect", dialect, get_args(DialectName))
    path = resolve_path(destination)
    keys = key_map(type(weights.network), dialect)
    _check_suffix(path, dialect)
    if path.exists():
        raise InputError(f"{path} is there already; give another destination, or remove it")
    check_writable(path)
    arrays = _arrays(weights, keys)
    different = _differences(weights, dialect, keys, path)
    if different and not force:
        raise InputError(
            f"{weights.source} is not written: {dialect}'s network would compute something else, "
            f"it has {', '.join(different)}; force it to write the names nevertheless"
        )
    try:
        _write(path, arrays, weights, dialect)
    except BaseException:
        if path.is_dir():
            path.rmtree()  # half of its files; it was not there before
        raise


def _write(
    path: epath.Path, arrays: Mapping[str, np.ndarray], weights: Weights, dialect: DialectName
) -> None:
    network, mean_image = weights.network, weights.preprocessing.mean_image
    if dialect == "keras" and isinstance(network, ResNet):
        write_keras(path, arrays, keras_layers(network), entry_of(weights))
        return
    if dialect == "caffe":
        write_caffe(path, arrays, mean_image, entry_of(weights)[ENTRY])
        return
    if dialect == "resnet_jax" and mean_image is not None:
        arrays = {**arrays, MEAN_IMAGE: mean_image}
    if path.suffix != ".safetensors":
        for name, config in configs_of(weights, dialect).items():
            text = json.dumps(config, indent=2, sort_keys=True)
            write_atomically(path / name, f"{text}\n".encode())
        path = path / "model.safetensors"
    # Libraries of PyTorch read only files that are marked as theirs.
    metadata = {"format": "pt"} if dialect != "resnet_jax" else {}
    write_safetensors(path, arrays, metadata | entry_of(weights))


def _check_suffix(path: epath.Path, dialect: DialectName) -> None:
    takes, hint = {
        "keras": (
            ".h5",
            ", which Keras reads with load_weights; NAME.weights.h5 is another layout",
        ),
        "caffe": (".caffemodel", ", or a folder"),
    }.get(dialect, (".safetensors", ", which PyTorch reads with load_file, or a folder"))
    is_folder = path.suffix not in _FILES and dialect != "keras"
    if not is_folder and (path.suffix != takes or path.name.endswith(".weights.h5")):
        raise InputError(f"{path} is not written: give NAME{takes}{hint}")


def _arrays(weights: Weights, keys: KeyMap) -> dict[str, np.ndarray]:
    """Returns the arrays in a library's layout, by its names."""
    network, ours = weights.network, weights.arrays
    key = functools.partial(keys.key, network)
    if any(key(name) is None for name in ours):
        ours = fold_biases(ours)
    for name in extra_shapes(shapes_of(ours)):
        fill = keys.fill(network, name)
        if name not in ours and fill is not None:
            ours = {**ours, name: filled(ours, name, fill)}
    return {
        theirs.name: theirs.to_theirs(array)
        for name, array in ours.items()
        if (theirs := key(name)) is not None
    }


def _differences(
    weights: Weights, dialect: DialectName, keys: KeyMap, path: epath.Path
) -> list[str]:
    """Returns how a library's network differs from this one, in words."""
    if dialect == "resnet_jax":
        return []
    # Fields of training are set there as here.
    fields = {name: value for name, value in keys.form.items() if name not in _OF_TRAINING}
    network = weights.network
    if isinstance(network, ResNet) and (
        dialect == "huggingface" or network.block is not BottleneckBlock
    ):
        del fields["stride_on"]  # in its config, or without effect
    different = [
        f"{field} {theirs!r} for {ours!r}"
        for field, theirs in fields.items()
        if (ours := getattr(network, field)) != theirs
    ]
    keeps_mean_image = dialect == "caffe" and path.suffix != ".caffemodel"  # in its folder
    if weights.preprocessing.mean_image is not None and not keeps_mean_image:
        different.append("numbers to subtract for a mean image")
    return different
