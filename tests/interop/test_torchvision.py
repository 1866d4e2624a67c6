"""torchvision's AlexNet, VGG networks and GoogLeNet, imported from their state dicts and exported.

The largest differences are printed: `pytest -m slow -s tests/interop/test_torchvision.py` makes the
table of the networks in full width.
"""

import numpy as np
import pytest

from resnet_jax import create_model
from resnet_jax.interop import (
    Preprocessing,
    load_pretrained,
    read_weights,
    save_pretrained,
    write_weights,
)
from resnet_jax.interop.families import key_map
from resnet_jax.interop.formats.safetensors import read_safetensors
from resnet_jax.interop.weights import extra_shapes, network_shapes
from tests.interop.comparison import compare
from tests.interop.references import (
    SMALL_FILTERS,
    library,
    make_alexnet,
    make_googlenet,
    make_small_alexnet,
    make_small_vgg,
    make_vgg,
)
from tests.interop.small import check_same, random_variables

VGG = [(depth, batch_norm) for depth in (11, 13, 16, 19) for batch_norm in (False, True)]
NO_DROPOUT = {"dropout_rate": 0.0}
NO_DROPOUT_AT_ALL = NO_DROPOUT | {"auxiliary_dropout_rate": 0.0}

pytestmark = pytest.mark.filterwarnings("default")


def load(module, folder, **options):
    library("torch").save(module.state_dict(), folder / "a.pth")
    return load_pretrained(folder / "a.pth", **options)


def check(name, found):
    numbers = "  ".join(f"{field} {value:.1e}" for field, value in found._asdict().items())
    print(f"\n{name:14} torchvision  {numbers}")
    assert found.logits < 1e-5
    assert max(found.loss, found.gradients, found.statistics) < 1e-8


def test_small_networks_equal_torchvisions(tmp_path):
    small = NO_DROPOUT | {"hidden_units": 16, "num_classes": 10}
    module = make_small_alexnet()
    pretrained = load(module, tmp_path, **NO_DROPOUT)
    alexnet = create_model("alexnet_torchvision", filters=SMALL_FILTERS, **small)
    assert pretrained.network == alexnet
    check("alexnet", compare(module, pretrained, "torchvision", pixels=96))

    module = make_small_vgg()
    pretrained = load(module, tmp_path, **NO_DROPOUT)
    assert pretrained.network == create_model("vgg11_bn", stage_sizes=(1, 2), width=8, **small)
    check("vgg", compare(module, pretrained, "torchvision", pixels=32))


@pytest.mark.slow
def test_alexnet_equals_torchvisions(tmp_path):
    module = make_alexnet()
    pretrained = load(module, tmp_path, **NO_DROPOUT)
    assert pretrained.network == create_model("alexnet_torchvision", **NO_DROPOUT)
    check("alexnet", compare(module, pretrained, "torchvision", pixels=96))


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "batch_norm"), VGG)
def test_a_vgg_equals_torchvisions(depth, batch_norm, tmp_path):
    module, name = make_vgg(depth, batch_norm), f"vgg{depth}{'_bn' * batch_norm}"
    pretrained = load(module, tmp_path, **NO_DROPOUT)
    assert pretrained.network == create_model(name, **NO_DROPOUT)
    check(name, compare(module, pretrained, "torchvision", pixels=64, batch=4))


@pytest.mark.slow
@pytest.mark.parametrize("auxiliary", [True, False], ids=["auxiliary", "alone"])
def test_googlenet_equals_torchvisions(auxiliary, tmp_path):
    module = make_googlenet(aux_logits=auxiliary)
    pretrained = load(module, tmp_path, **NO_DROPOUT_AT_ALL)
    options = NO_DROPOUT_AT_ALL | {"auxiliary_heads": auxiliary}
    assert pretrained.network == create_model("googlenet_bn", **options)
    check("googlenet_bn", compare(module, pretrained, "torchvision", pixels=64))


def test_transform_input_is_part_of_the_preprocessing(tmp_path):
    """The published weights of GoogLeNet, known by their name, want another input."""
    torch = library("torch")
    make = library("torchvision").models.googlenet
    module = make(init_weights=False, aux_logits=False, transform_input=True)
    torch.save(module.state_dict(), tmp_path / "googlenet-1378be20.pth")
    found = load_pretrained(tmp_path / "googlenet-1378be20.pth").preprocessing
    pixels = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)

    def normalised(preprocessing):
        return (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)

    theirs = torch.from_numpy(normalised(Preprocessing()).transpose(0, 3, 1, 2))
    inputs = module._transform_input(theirs).permute(0, 2, 3, 1)
    np.testing.assert_allclose(normalised(found), inputs, rtol=0, atol=1e-6)


def _on_paper(make, **options):
    """Returns a network of torchvision's that takes no memory."""
    with library("torch").device("meta"):
        return make(**options).state_dict()


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("alexnet_torchvision", "alexnet", {}),
        *((f"vgg{d}{'_bn' * bn}", f"vgg{d}{'_bn' * bn}", {}) for d, bn in VGG),
        ("googlenet_bn", "googlenet", {"init_weights": False}),
    ],
)
def test_names_and_shapes_are_torchvisions(name, theirs, options):
    network = create_model(name)
    shapes = network_shapes(network, 3)
    key = key_map(type(network), "torchvision").key
    ours = {
        mapped.name: mapped.their_shape(shape)
        for our_name, shape in {**shapes, **extra_shapes(shapes)}.items()
        if (mapped := key(network, our_name)) is not None
    }
    state = _on_paper(getattr(library("torchvision").models, theirs), **options)
    assert ours == {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("make", [make_small_alexnet, make_small_vgg])
def test_round_trips_are_exact(make, tmp_path):
    """And torchvision's own network takes what is written, all names and shapes demanded."""
    module, tensors = make(), library("safetensors.torch")
    first, second, third, fourth = (tmp_path / f"{i}.safetensors" for i in range(4))
    tensors.save_file(module.state_dict(), first)
    weights = read_weights(first)
    assert weights.channels == load_pretrained(first).in_channels == 3
    write_weights(weights, second, "resnet_jax")
    again = read_weights(second)
    assert again.network == weights.network
    check_same(
        {n: a.copy("C") for n, a in weights.arrays.items()},
        {n: a.copy("C") for n, a in again.arrays.items()},
    )
    write_weights(again, third, "torchvision")
    check_same(read_safetensors(first)[0], read_safetensors(third)[0])

    variables = random_variables(weights.network)
    save_pretrained(weights.network, variables, fourth, to="torchvision")
    assert str(module.load_state_dict(tensors.load_file(fourth))) == (
        "<All keys matched successfully>"
    )
    np.testing.assert_equal(load_pretrained(fourth).variables, variables)
    assert load_pretrained(fourth, num_classes=7).network.num_classes == 7
