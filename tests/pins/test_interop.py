"""Weights of every dialect: files of other libraries are read, and ours are written, as they were.

`interop/` holds one small file a dialect, `expected.json` what commit 3111d32 read in them and
wrote for networks whose numbers follow from their names.
"""

import gzip
import hashlib
import json
import pathlib
import typing

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from resnet_jax import InputError, create_model, interop, load_pretrained, save_pretrained

HERE = pathlib.Path(__file__).parent / "interop"
EXPECTED = json.loads((HERE / "expected.json").read_text())

SMALL_RESNET = {"stage_sizes": (1, 2), "width": 2, "num_classes": 5}
HIDDEN = {"hidden_units": 3, "num_classes": 5}
FILTERS = {"filters": (4, 6, 8, 8, 6), **HIDDEN}
V1_5 = {"stride_on": "3x3", "pool_padding": (1, 1), **SMALL_RESNET}
KERAS = {"pool_padding": (1, 1), "bn_epsilon": 1.001e-5, "bn_momentum": 0.99, **SMALL_RESNET}
WRITTEN = {
    "torchvision": ("resnet50", V1_5, 3, "torchvision", "a.safetensors"),
    "torchvision_basic": ("resnet18", V1_5, 3, "torchvision", "a.safetensors"),
    "torchvision_alexnet": ("alexnet_torchvision", FILTERS, 3, "torchvision", "a.safetensors"),
    "torchvision_vgg": ("vgg11", {"width": 1, **HIDDEN}, 3, "torchvision", "a.safetensors"),
    "torchvision_vgg_bn": ("vgg13_bn", {"width": 1, **HIDDEN}, 3, "torchvision", "a.safetensors"),
    "torchvision_googlenet": (
        *("googlenet_bn", {"width": 8, "auxiliary_units": 6, "num_classes": 5}, 3),
        *("torchvision", "a.safetensors"),
    ),
    "timm": ("resnet18_v1_5", {"num_classes": 2}, 3, "timm", "folder"),
    "timm_file": ("resnet50", V1_5, 3, "timm", "a.safetensors"),
    "huggingface": ("resnet50", V1_5 | {"stride_on": "1x1"}, 3, "huggingface", "folder"),
    "keras": ("resnet50", KERAS, 3, "keras", "a.h5"),
    "caffe": ("resnet50", SMALL_RESNET, 3, "caffe", "a.caffemodel"),
    "resnet_jax": ("resnet50", SMALL_RESNET, 1, "resnet_jax", "folder"),
    "resnet_jax_cifar": ("cifar_resnet8", {"width": 2}, 3, "resnet_jax", "a.safetensors"),
    "resnet_jax_lenet": ("lenet5_1998", {}, 1, "resnet_jax", "a.safetensors"),
    "resnet_jax_alexnet": ("alexnet", FILTERS, 1, "resnet_jax", "a.safetensors"),
    "resnet_jax_zfnet": ("zfnet", FILTERS, 3, "resnet_jax", "a.safetensors"),
    "resnet_jax_vgg": ("vgg11", {"width": 1, **HIDDEN}, 2, "resnet_jax", "a.safetensors"),
    "resnet_jax_googlenet": (
        *("googlenet", {"width": 8, "auxiliary_units": 6, "num_classes": 5}, 3),
        *("resnet_jax", "a.safetensors"),
    ),
    "resnet_jax_bn_inception": (
        *("bn_inception", {"width": 8, "num_classes": 5}, 4, "resnet_jax", "a.safetensors"),
    ),
    "resnet_jax_prelu_net": (
        "prelu_net_a",
        {"filters": (4, 4, 4), "stem_filters": 4, "stage_sizes": (1, 2, 1), **HIDDEN},
        *(3, "resnet_jax", "a.safetensors"),
    ),
}
"""Network, its options, channels, dialect and destination by the name in `expected.json`."""


def numbers_of(name, shape):
    """Returns numbers that follow from a name: the same with every version of numpy."""
    size = int(np.prod(shape))
    drawn = np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * size), "<u2")
    return (drawn / 2**16 + (0.5 if name.endswith("/var") else -0.5)).astype("f4").reshape(shape)


def variables_of(network, channels):
    side = 32 if type(network).__name__ == "LeNet5" else 224
    images = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)
    flat = traverse_util.flatten_dict(shapes, sep="/")
    filled = {name: numbers_of(name, leaf.shape) for name, leaf in flat.items()}
    return {"batch_stats": {}, **traverse_util.unflatten_dict(filled, sep="/")}


def digest(arrays):
    """Returns a hash of names, shapes, types and bytes."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        whole.update(f"{name} {array.shape} {array.dtype.name}\n".encode() + array.tobytes("C"))
    return whole.hexdigest()


def described(pretrained):
    """Returns the form of a network, a hash of its variables and its preprocessing, as JSON."""
    network, preprocessing = pretrained.network, pretrained.preprocessing
    image = preprocessing.mean_image
    fields = {
        name: getattr(network, name)
        for name in type(network).__dataclass_fields__
        if name not in ("parent", "name", "dtype")
    }
    fields = {name: getattr(value, "__name__", value) for name, value in fields.items()}
    return json.loads(
        json.dumps(
            {
                "network": {"class": type(network).__name__, **fields},
                "variables": digest(traverse_util.flatten_dict(pretrained.variables, sep="/")),
                "channels": pretrained.in_channels,
                "preprocessing": preprocessing._replace(mean_image=None)._asdict(),
                "mean_image": None if image is None else digest({"mean": image}),
            }
        )
    )


def check_described(pretrained, expected):
    found = described(pretrained)
    assert found["network"].items() >= expected["network"].items()
    assert {**found, "network": None} == {**expected, "network": None}


def contents(path):
    """Returns hash and metadata of the arrays of a file, and the configs beside it."""
    folder, configs = path, {}
    if path.is_dir():
        path = folder / "model.safetensors"
        names = {other.name for other in folder.iterdir()} - {path.name}
        configs = {name: json.loads((folder / name).read_text()) for name in sorted(names)}
    metadata = {}
    if path.suffix == ".safetensors":
        arrays = safetensors.numpy.load(path.read_bytes())
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        arrays = {}
        with h5py.File(path) as file:
            file.visititems(lambda n, x: arrays.update({n: x[()]} if hasattr(x, "shape") else {}))
            metadata = {"resnet_jax": file.attrs["resnet_jax"]}
            layers = [name.decode() for name in file.attrs["layer_names"]]
            arrays["layer_names"] = np.frombuffer(" ".join(layers).encode(), np.uint8)
    else:
        arrays = interop.read_weights(path).arrays
    metadata = {k: json.loads(v) if k == "resnet_jax" else v for k, v in metadata.items()}
    return {"arrays": digest(arrays), "metadata": metadata, "configs": configs}


def write(name, folder):
    network, options, channels, dialect, destination = WRITTEN[name]
    network = create_model(network, **options)
    variables = variables_of(network, channels)
    save_pretrained(network, variables, folder / destination, to=dialect)
    return network, variables, folder / destination


@pytest.mark.parametrize("name", EXPECTED["read"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:google")
def test_files_of_every_dialect_are_read_as_they_were(name, tmp_path):
    path = HERE / name
    if name.startswith("keras"):
        pytest.importorskip("h5py")
        path = tmp_path / name
        path.write_bytes(gzip.decompress((HERE / f"{name}.gz").read_bytes()))
    check_described(load_pretrained(path), EXPECTED["read"][name])


@pytest.mark.parametrize("name", WRITTEN)
def test_every_dialect_is_written_as_it_was_and_read_back(name, tmp_path):
    if name == "keras":
        pytest.importorskip("h5py")
    network, variables, path = write(name, tmp_path)
    expected = EXPECTED["written"][name]
    found = contents(path)
    said, expected_said = (each["metadata"].pop("resnet_jax", {}) for each in (found, expected))
    assert found == expected
    assert said.get("network", {}).items() >= expected_said.get("network", {}).items()
    assert said.get("preprocessing") == expected_said.get("preprocessing")
    back = load_pretrained(path)
    assert back.network == network
    np.testing.assert_equal(back.variables, variables)


def test_the_dialects_are_these(tmp_path):
    names = ("torchvision", "timm", "huggingface", "keras", "caffe", "resnet_jax")
    assert typing.get_args(interop.DialectName) == names
    network = create_model("cifar_resnet8", width=2)
    with pytest.raises(InputError, match="there is no dialect 'torch'"):
        save_pretrained(network, variables_of(network, 3), tmp_path / "a", to="torch")
