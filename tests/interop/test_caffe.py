"""He's Caffe models: read as a plain reference computes them, written as they are, or refused.

The largest differences are printed: `pytest -m slow -s tests/interop/test_caffe.py` makes the table
of all of them.
"""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import InputError, ResidualBlock, create_model
from resnet_jax.interop import (
    Preprocessing,
    load_pretrained,
    read_weights,
    save_pretrained,
    write_weights,
)
from resnet_jax.interop.families import key_map
from resnet_jax.interop.formats.caffe import read_caffe
from tests.interop import caffe_reference
from tests.interop.comparison import differences_of, evaluate, train_ours
from tests.interop.references import library
from tests.interop.refusals import refused
from tests.interop.small import random_variables, small_network

FORM = {"stride_on": "1x1", "pool_padding": (0, 1)}
DEPTHS = (50, 101, 152)


def write(folder, blobs, **options):
    path = folder / "a.caffemodel"
    path.write_bytes(caffe_reference.encode(blobs, **options))
    return path


def small_blobs(**options):
    return caffe_reference.random_blobs(1, width=4, classes=5, **options)


def tensors(blobs, dtype):
    torch = library("torch")
    return {
        name: [torch.from_numpy(blob).to(dtype).requires_grad_() for blob in group]
        for name, group in blobs.items()
    }


@pytest.mark.parametrize("depth", [1, *(pytest.param(d, marks=pytest.mark.slow) for d in DEPTHS)])
def test_a_network_equals_the_prototxts(depth, tmp_path):
    torch, classes, width = library("torch"), 10, 8 if depth == 1 else 64
    bias = depth in (1, 50)
    blobs = caffe_reference.random_blobs(depth, width=width, classes=classes, bias=bias)
    pretrained = load_pretrained(write(tmp_path, blobs))
    if depth > 1:
        assert pretrained.network == create_model(f"resnet{depth}", num_classes=classes)
    rng = np.random.default_rng(1)
    # 47 pixels are 24, and then, pooled with a window that reaches beyond the end, 12.
    images = rng.normal(size=(4, 47 if depth == 1 else 63, 61, 3)).astype(np.float32)
    labels = rng.integers(0, classes, 4)
    with torch.no_grad():
        logits = caffe_reference.run(depth, tensors(blobs, torch.float32), images).numpy()
    double = tensors(blobs, torch.float64)
    trained = caffe_reference.run(depth, double, images.astype(np.float64), train=True)
    loss = torch.nn.functional.cross_entropy(trained, torch.from_numpy(labels))
    loss.backward()

    def theirs(name):
        if name == "loss":
            return loss.detach().numpy()
        if name.startswith("batch_stats/"):
            return None  # Caffe adds up sums of its own, which no published model was made with
        mapped = key_map(type(pretrained.network), "caffe").key(pretrained.network, name)
        layer, blob = mapped.name.split("/")
        return mapped.to_ours(double[layer][int(blob)].grad.numpy())

    ours = train_ours(pretrained, images, labels)
    found = differences_of(pretrained.network, evaluate(pretrained, images), logits, ours, theirs)
    print(
        f"\nresnet{depth:3}  caffe's prototxt  logits {found.logits:.1e}  loss {found.loss:.1e}  "
        f"gradients {found.gradients:.1e}"
    )
    assert found.logits < 1e-5
    assert max(found.loss, found.gradients) < 1e-8


def check_same(one, other):
    assert one.keys() == other.keys()
    for name, group in one.items():
        assert len(group) == len(other[name]), name
        for a, b in zip(group, other[name], strict=True):
            assert (a.shape, a.tobytes()) == (b.shape, b.tobytes()), name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("through", ["ours.safetensors", "again.caffemodel"])
def test_theirs_comes_back_bit_for_bit(tmp_path, bias, through):
    """Bias, factors and order of channels too, and protobuf itself can read it."""
    blobs = small_blobs(bias=bias)
    path, back = write(tmp_path, blobs), tmp_path / "back.caffemodel"
    dialect = "caffe" if through.endswith("caffemodel") else "resnet_jax"
    write_weights(read_weights(path), tmp_path / through, dialect)
    weights = read_weights(tmp_path / through)
    assert weights.network == read_weights(path).network == small_network(**FORM)
    assert ("conv_biases/stem/conv/bias" in weights.arrays) == bias
    write_weights(weights, back, "caffe")
    check_same(caffe_reference.decode(back.read_bytes()), blobs)


def test_ours_comes_back_bit_for_bit(tmp_path):
    network, path = small_network(**FORM), tmp_path / "a.caffemodel"
    variables, preprocessing = random_variables(network), Preprocessing(64, 72, "bicubic")
    save_pretrained(network, variables, path, to="caffe", preprocessing=preprocessing)
    found = load_pretrained(path)
    np.testing.assert_equal(found.variables, variables)
    assert (found.network, found.preprocessing) == (network, preprocessing)
    conv1 = caffe_reference.decode(path.read_bytes())["conv1"]
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    assert len(conv1) == 1
    np.testing.assert_array_equal(conv1[0], kernel[:, :, ::-1].transpose(3, 2, 0, 1))


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow), 152])
def test_names_are_those_of_the_prototxts(depth, tmp_path):
    """Where only ResNet-50 has a bias, which is zero if nothing else is known."""
    network = create_model(f"resnet{depth}", width=1, num_classes=2)
    path = tmp_path / "a.caffemodel"
    save_pretrained(network, random_variables(network), path, to="caffe")
    found = caffe_reference.decode(path.read_bytes())
    expected = caffe_reference.random_blobs(depth, width=1, classes=2)
    assert {name: [b.shape for b in group] for name, group in found.items()} == {
        name: [b.shape for b in group] for name, group in expected.items()
    }
    assert depth != 50 or not found["conv1"][1].any()
    np.testing.assert_equal(load_pretrained(path).variables, random_variables(network))
    assert "conv_biases/stem/conv/bias" not in read_weights(path).arrays


@pytest.mark.parametrize("options", [{"v1": True}, {"legacy": True}])
def test_older_files_are_read_too(tmp_path, options):
    expected = load_pretrained(write(tmp_path, small_blobs()))
    found = load_pretrained(write(tmp_path, small_blobs(), **options))
    assert found.network == expected.network
    np.testing.assert_equal(found.variables, expected.variables)


def test_a_factor_of_zero_is_no_statistics(tmp_path):
    blobs = small_blobs()
    blobs["bn_conv1"][2][:] = 0
    stats = load_pretrained(write(tmp_path, blobs)).variables["batch_stats"]["stem"]["bn"]
    assert not stats["mean"].any()
    assert not stats["var"].any()


def test_colours_are_those_of_the_mean_image(tmp_path):
    """Its mean where there is none."""
    write(tmp_path, small_blobs())
    pixel = load_pretrained(tmp_path).preprocessing.statistics()
    assert pixel.mean == pytest.approx([123.1516, 115.9029, 103.0626], abs=1e-3)
    assert pixel.std.tolist() == [1, 1, 1]

    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (224, 224, 3)).astype(np.float32)
    blob = caffe_reference.messages()[1]()
    caffe_reference.fill(blob, image[None, ..., ::-1].transpose(0, 3, 1, 2), legacy=True)
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(blob.SerializeToString())
    weights = read_weights(tmp_path)
    np.testing.assert_array_equal(weights.preprocessing.statistics().mean, image)

    write_weights(weights, tmp_path / "folder", "caffe")
    again = read_weights(tmp_path / "folder")
    np.testing.assert_array_equal(again.preprocessing.statistics().mean, image)
    with pytest.raises(InputError, match="numbers to subtract for a mean image"):
        write_weights(weights, tmp_path / "b.caffemodel", "caffe")

    blob.width = 223
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(InputError, match=r"cannot be read: a blob has 150528 numb"):
        load_pretrained(tmp_path)
    (tmp_path / "other_mean.binaryproto").write_bytes(b"")
    with pytest.raises(InputError, match="has 2 mean images"):
        load_pretrained(tmp_path)


def change(blobs, layer, number, array):
    blobs[layer][number : number + 1] = [] if array is None else [array]
    return blobs


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        (change(small_blobs(), "conv1", 0, None), "it has none of conv1.weight"),
        (change(small_blobs(), "scale_conv1", 1, None), r"missing: scale_conv1/1 \(4,\)$"),
        (
            change(small_blobs(), "scale_conv1", 1, np.ones(3, np.float32)),
            r"of other shapes: scale_conv1/1 is \(3,\) where \(4,\) fits$",
        ),
        (small_blobs() | {"more": [np.ones(3, np.float32)]}, r"unexpected: more/0 \(3,\)$"),
        ({"ip1": [np.ones(3, np.float32)]}, r"it has none of .* but ip1/0$"),
        ({}, "cannot be read: it has no layer with numbers"),
    ],
)
def test_blobs_that_do_not_fit_are_refused(tmp_path, blobs, message):
    with pytest.raises(InputError, match=message):
        load_pretrained(write(tmp_path, blobs))


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (small_network(), "a.caffemodel", r"it has stride_on '1x1' for '3x3', pool_padding \(0, 1"),
        (small_network(ResidualBlock), "a.caffemodel", "caffe has residual networks of bottlenec"),
        (small_network(**FORM), "a.h5", "give NAME.caffemodel, or a folder"),
        (
            create_model("alexnet", filters=(4, 6, 8, 8, 6), hidden_units=3),
            "a.caffemodel",
            "caffe has no network of the kind AlexNet",
        ),
    ],
)
def test_networks_that_caffe_does_not_have_are_not_written(tmp_path, network, name, message):
    with pytest.raises(InputError, match=message):
        save_pretrained(network, random_variables(network), tmp_path / name, to="caffe")
    assert not list(tmp_path.iterdir())


def field(number, content):
    """Returns a field of bytes; lengths below 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def layer(*blobs, name=b"conv1"):
    """Returns a net with a layer of these messages."""
    content = b"".join([field(1, name), *(field(7, blob) for blob in blobs)])
    return b"\xa2\x06" + bytes([len(content)]) + content


HUGE = b"\xff" * 8 + b"\x7f"
SHAPE = field(7, field(1, b"\x02"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no layer with numbers"),
        (b"\xa2\x06" + HUGE, "not a message of protocol buffers"),
        (b"\xa2\x06\x7f", "not a message of protocol buffers"),
        (b"not a message at all", "not a message of protocol buffers"),
        (layer(field(5, bytes(8))), r"has 2 numbers and the shape \(1,\)"),
        (layer(field(5, bytes(7)) + SHAPE), "do not stand in one row"),
        (layer(b"\x2d" + bytes(4) + b"\x2d" + bytes(4)), "do not stand in one row"),
        (layer(SHAPE), "a blob has no numbers"),
        (layer(field(5, bytes(8)) + field(7, field(1, HUGE))), r"and the shape \(92233720368547"),
        (layer(field(5, bytes(8)) + field(7, field(1, b"\x00"))), r"a blob has the shape \(0,\)"),
        (layer(field(5, bytes(4)) + field(7, field(1, b"\x01" * 99))), "a blob has the shape"),
        (layer(field(5, bytes(8)) + b"\x08" + HUGE), r"a blob has the shape \(-1, 1, 1, 1\)"),
        (layer(field(5, bytes(8)) + SHAPE, name=b"\xff"), "it has none of"),
        (layer(field(5, bytes(8)) + SHAPE) * 2, "the layer 'conv1' is there twice"),
        (b"\xa2\x06\x00" * (10**5 + 1), "it has more layers than any network"),
        (layer(field(5, bytes(8)) + SHAPE, name=b"a\x1b[2J"), "which is not a name"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, content, message):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(content)
    refused(path, message, most=3e6)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(tmp_path_factory, data):
    content = bytearray(layer(field(5, bytes(8)) + SHAPE))
    content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.caffemodel"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_caffe(path)
