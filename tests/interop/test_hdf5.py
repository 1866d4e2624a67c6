"""Files of HDF5 and of Keras that are hostile or damaged: refused in a sentence, nothing read."""

import contextlib
import io
import json
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.interop import load_pretrained, save_pretrained
from resnet_jax.interop.formats.keras import read_keras
from tests.interop.refusals import refused
from tests.interop.small import random_variables, small_network

h5py = pytest.importorskip("h5py")

FORM = {"stride_on": "1x1", "pool_padding": (1, 1), "bn_epsilon": 1.001e-5, "bn_momentum": 0.99}


@pytest.fixture
def good(tmp_path):
    network, path = small_network(**FORM), tmp_path / "good.h5"
    save_pretrained(network, random_variables(network), path, to="keras")
    return path


def external_link(file, elsewhere):
    file["more"] = h5py.ExternalLink(str(elsewhere), "/secret")


def soft_link(file, elsewhere):
    file["more"] = h5py.SoftLink("/conv1_conv")


def external_storage(file, elsewhere):
    file.create_dataset("more/kernel", (4,), "f4", external=[(str(elsewhere), 0, 16)])


def virtual(file, elsewhere):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(elsewhere), "secret", (4,))
    file.create_virtual_dataset("more/kernel", layout)


def petabytes(file, elsewhere):
    file.create_dataset("more/kernel", (2**50,), "f4")


def petabytes_in_pieces(file, elsewhere):
    file.create_dataset("more/kernel", (2**25, 2**25), "f4", chunks=(1, 4))


def bomb(file, elsewhere):
    file.create_dataset("more/kernel", data=np.zeros(10**7, np.float32), compression="gzip")


def many_names(file, elsewhere):
    file["more/0"] = np.zeros(10**5, np.float32)
    for i in range(1, 100):
        file[f"more/{i}"] = file["more/0"]


def text(file, elsewhere):
    file["more/kernel"] = ["text"]


def compound(file, elsewhere):
    file["more/kernel"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


def reference(file, elsewhere):
    file.create_dataset("more/kernel", data=file["conv1_conv"].ref, dtype=h5py.ref_dtype)


def datatype(file, elsewhere):
    file["more"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_storage, "more/kernel is in another file; nothing of it was read"),
        (virtual, "more/kernel is in another file; nothing of it was read"),
        (petabytes, "its arrays up to more/kernel are larger than the file"),
        (petabytes_in_pieces, "its arrays up to more/kernel are larger than the file"),
        (bomb, "its arrays up to more/kernel are larger than the file"),
        (many_names, r"unexpected: more/0 \(100000,\)$"),
        (text, "more/kernel is of type object, not an array of numbers"),
        (compound, "more/kernel is of type .*, not an array of numbers"),
        (reference, "more/kernel is of type object, not an array of numbers"),
        (datatype, "more is not an array"),
    ],
)
def test_contents_beyond_the_file_are_refused(tmp_path, good, change, message):
    elsewhere = tmp_path / "elsewhere.h5"
    with h5py.File(elsewhere, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    with h5py.File(good, "a") as file:
        change(file, elsewhere)
    refused(good, message)


@pytest.mark.parametrize("link", [external_link, soft_link])
def test_links_are_not_followed(tmp_path, good, link):
    expected = load_pretrained(good).variables
    elsewhere = tmp_path / "elsewhere.h5"
    with h5py.File(elsewhere, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    with h5py.File(good, "a") as file:
        link(file, elsewhere)
    np.testing.assert_equal(load_pretrained(good).variables, expected)


def test_a_group_that_contains_itself_is_visited_once(good):
    expected = load_pretrained(good).variables
    with h5py.File(good, "a") as file:
        file["conv1_conv/again"] = file["/"]
    np.testing.assert_equal(load_pretrained(good).variables, expected)


def test_a_file_that_ends_too_early_is_refused(tmp_path, good):
    content = good.read_bytes()
    for length in (9, 100, 1000, len(content) // 2, len(content) - 1):
        path = tmp_path / "cut.h5"
        path.write_bytes(content[:length])
        refused(path, "its HDF5 is damaged")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_noticed_or_harmless(tmp_path_factory, data):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["a/kernel"] = np.ones(4, np.float32)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.h5"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_keras(path)


def archive(path, weights, config=None, *, compression=zipfile.ZIP_STORED, more=()):
    config = json.dumps({"config": {"layers": []}}) if config is None else config
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in [("config.json", config), ("model.weights.h5", weights), *more]:
            file.writestr(name, content)
    return path


def described(*layers):
    """Returns the config of a model with these layers, and those that every model has."""
    layers = [
        {"class_name": "ZeroPadding2D", "config": {"name": "conv1_pad", "padding": [[3, 3]] * 2}},
        {"class_name": "ZeroPadding2D", "config": {"name": "pool1_pad", "padding": [[1, 1]] * 2}},
        {
            "class_name": "BatchNormalization",
            "config": {"name": "conv1_bn", "epsilon": 1e-3, "momentum": 0.9},
        },
        {"class_name": "Activation", "config": {"name": "conv1_relu", "activation": "relu"}},
        *layers,
    ]
    return json.dumps({"config": {"layers": layers}})


def test_the_form_is_what_the_config_says(tmp_path, good):
    path = archive(tmp_path / "a.keras", good.read_bytes(), described(*strides(2, 1)))
    found = load_pretrained(path).network
    assert (found.bn_epsilon, found.bn_momentum) == (1e-3, 0.9)
    assert (found.stride_on, found.pool_padding) == ("1x1", (1, 1))
    path = archive(tmp_path / "b.keras", good.read_bytes(), described(*strides(1, 2)))
    assert load_pretrained(path).network.stride_on == "3x3"


def strides(*numbers):
    return [
        {"class_name": "Conv2D", "config": {"name": f"conv3_block1_{i}_conv", "strides": [n, n]}}
        for i, n in enumerate(numbers, 1)
    ]


EVIL = {"class_name": "Lambda", "config": {"name": "evil", "function": ["gANj", None, None]}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (described(EVIL), r"Keras .*layers of the classes \['Lambda'\]; nothing was run"),
        (described(*strides(2, 2)), r"Keras .*strides \[\[2, 2\], \[2, 2\]\]"),
        (described(*strides(2)), r"Keras .*strides \[\[2, 2\]\]"),
        (described({"class_name": "Dense"}), "Keras .it lacks 'config'"),
        (described().replace("[[3, 3]", "[[2, 3]"), "Keras .*a first padding of"),
        (described().replace("[[1, 1]", "[[5, 1]"), "Keras .*a max-pool padded by"),
        (described().replace('"relu"', '"gelu"'), "Keras .*activations {'gelu'}"),
        (described().replace("0.001", "-1"), "Keras .*epsilon -1"),
        (described().replace("conv1_pad", "other"), "Keras .it lacks 'conv1_pad'"),
        (
            described(
                {
                    "class_name": "BatchNormalization",
                    "config": {"name": "other_bn", "epsilon": 0.01, "momentum": 0.9},
                }
            ),
            r"Keras .*normalisations of .epsilon, momentum. \[\(0.001, 0.9\), \(0.01, 0.9\)\]",
        ),
        ("{}", "its config is not of a residual network of Keras"),
        ("[]", "its config is not a JSON object"),
        ("{", "its config is not JSON"),
        ("[" * 10**5, "its config is not JSON"),
    ],
)
def test_other_models_are_refused_and_nothing_is_run(tmp_path, good, config, message):
    refused(archive(tmp_path / "a.keras", good.read_bytes(), config), message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_lie_are_refused(tmp_path, good):
    content = good.read_bytes()
    path = archive(tmp_path / "a.keras", bytes(10**8), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    refused(path, "is compressed or encrypted, as Keras writes none")
    refused(archive(path, content, " " * (2**24 + 1)), "config.json claims to have 16777217 bytes")
    refused(archive(path, content, more=[("config.json", "{}")]), "config.json is there twice")
    refused(archive(path, b""), "its HDF5 is damaged")
    path.write_bytes(archive(path, content).read_bytes()[:1000])
    refused(path, "its archive is damaged")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model.weights.h5", content)
    refused(path, "its archive has no config.json")


def test_numbered_arrays_need_the_name_of_their_layer(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones(4, np.float32)
    refused(path, "layers/conv2d/vars/0 is of a layer without a name; save the model as NAME.h5")


def test_a_layer_that_is_there_twice_is_refused(tmp_path, good):
    with h5py.File(good, "a") as file:
        file["other/conv1_conv/kernel:0"] = np.ones(4, np.float32)
    refused(good, "the layer 'conv1_conv' is there twice")


def test_without_h5py_the_message_says_how_to_install_it(tmp_path, good, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(good, r"h5py has to be installed: pip install 'resnet_jax\[keras\]'$")
    network = small_network(**FORM)
    with pytest.raises(InputError, match=r"pip install 'resnet_jax\[keras\]'$"):
        save_pretrained(network, random_variables(network), tmp_path / "b.h5", to="keras")
    assert not (tmp_path / "b.h5").exists()
