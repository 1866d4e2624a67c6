"""Round trips through other libraries' names, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import BottleneckBlock, InputError, ResidualBlock, create_model
from resnet_jax.data import Statistics
from resnet_jax.interop import (
    Preprocessing,
    Weights,
    load_pretrained,
    of_statistics,
    read_weights,
    save_pretrained,
    write_weights,
)
from resnet_jax.interop.formats.safetensors import read_safetensors, write_safetensors
from tests.interop.references import library, make
from tests.interop.small import check_same, keys, random_arrays, random_variables, small_network
from tests.quick import QUICK

DIALECTS = ("torchvision", "timm", "huggingface", "resnet_jax")
PREPROCESSING = Preprocessing(176, 232, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 1 / 3))


@settings(max_examples=10, deadline=None)
@given(
    dialect=st.sampled_from(DIALECTS),
    block=st.sampled_from([ResidualBlock, BottleneckBlock]),
    stage_sizes=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    width=st.integers(1, 5),
    num_classes=st.integers(1, 7),
    channels=st.integers(1, 4),
    stem=st.sampled_from(["imagenet", "cifar"]),
    invisible=st.fixed_dictionaries(
        {
            "shortcut": st.sampled_from(["A", "B", "C", None]),
            "stride_on": st.sampled_from(["1x1", "3x3"]),
            "pool_padding": st.sampled_from([(0, 1), (1, 1)]),
            "dilated": st.booleans(),
            "bn_epsilon": st.sampled_from([1e-5, 1e-3]),
            "bn_momentum": st.sampled_from([0.9, 0.99]),
        }
    ),
    dtype=st.sampled_from([np.float32, np.float16, np.float64, jnp.bfloat16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ours_comes_back_from_every_dialect(
    tmp_path_factory,
    dialect,
    block,
    stage_sizes,
    width,
    num_classes,
    channels,
    stem,
    invisible,
    dtype,
    seed,
):
    first = 4 if stem == "imagenet" else 1
    invisible["output_stride"] = first if invisible.pop("dilated") else None
    network = small_network(
        block,
        stage_sizes=stage_sizes,
        width=width,
        num_classes=num_classes,
        stem=stem,
        **invisible,
    )
    arrays = {
        name: array if array.dtype == np.int64 else array.astype(dtype)
        for name, array in random_arrays(network, channels, seed).items()
    }
    path = tmp_path_factory.mktemp("trip") / "a.safetensors"
    weights = Weights(network, arrays, PREPROCESSING, "here")
    write_weights(weights, path, dialect, force=True)
    back = read_weights(path)
    assert back.network == network
    assert back.preprocessing == PREPROCESSING
    check_same({n: a.copy("C") for n, a in back.arrays.items()}, arrays)


def test_a_mean_image_is_kept_where_it_can_be(tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (8, 8, 3)).astype(np.float32)
    std = np.array([50, 60, 70.1], np.float32)
    measured = of_statistics(
        Statistics(image, std), image_size=8, resize=9, interpolation="bilinear"
    )
    np.testing.assert_allclose(255 * np.array(measured.mean), image.mean((0, 1)), rtol=1e-5)
    network, path = small_network(), tmp_path / "a.safetensors"
    variables = random_variables(network)
    save_pretrained(network, variables, path, to="resnet_jax", preprocessing=measured)
    found = load_pretrained(path).preprocessing.statistics()
    np.testing.assert_array_equal(found.mean, image)
    np.testing.assert_array_equal(found.std, std)

    arrays, metadata = read_safetensors(path)
    for wrong in (image[:7], image.astype(np.float64), image[..., 0]):
        write_safetensors(path, arrays | {"preprocessing/mean_image": wrong}, metadata)
        with pytest.raises(InputError, match=r"mean image is not float32 of shape \(8, 8, 3\)"):
            load_pretrained(path)
    with pytest.raises(InputError, match="numbers to subtract for a mean image"):
        save_pretrained(
            network, variables, tmp_path / "b", to="huggingface", preprocessing=measured
        )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("block", [ResidualBlock, BottleneckBlock])
def test_names_and_shapes_are_one_to_one(dialect, block):
    network = small_network(block, stage_sizes=(2, 12), shortcut="C")
    arrays, found = random_arrays(network), keys(network, dialect)
    assert len({theirs.name for theirs in found.values()}) == len(arrays)
    for name, array in arrays.items():
        theirs = found[name].to_theirs(array)
        assert theirs.shape == found[name].their_shape(array.shape)
        assert array.shape == found[name].our_shape(theirs.shape)
        np.testing.assert_array_equal(found[name].to_ours(theirs), array)


@pytest.mark.parametrize(("through", "counted"), [("huggingface", True), ("resnet_jax", False)])
def test_theirs_comes_back(tmp_path, through, counted):
    """Also where the numbers of batches differ from layer to layer, or where there are none."""
    state = make("torchvision", 18, num_classes=3).state_dict()
    if not counted:
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    first, second, third = (tmp_path / f"{i}.safetensors" for i in range(3))
    library("safetensors.torch").save_file(state, first)
    write_weights(read_weights(first), second, through)
    write_weights(read_weights(second), third, "torchvision")
    check_same(read_safetensors(first)[0], read_safetensors(third)[0])


@pytest.mark.filterwarnings("default")
def test_torchvision_timm_and_transformers_take_what_is_written(tmp_path):
    """Through every library's own loader, with all names and shapes demanded."""
    torch, load = library("torch"), library("safetensors.torch").load_file
    network = create_model("resnet18_v1_5", num_classes=7)
    variables = random_variables(network)
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    logits = []

    path = tmp_path / "a.safetensors"
    save_pretrained(network, variables, path, to="torchvision")
    module = library("torchvision").models.resnet18(num_classes=7)
    assert str(module.load_state_dict(load(path))) == "<All keys matched successfully>"
    assert {int(v) for k, v in load(path).items() if k.endswith("num_batches_tracked")} == {0}
    logits.append(module.eval()(images))

    folder = tmp_path / "timm"
    save_pretrained(network, variables, folder, to="timm", preprocessing=PREPROCESSING)
    timm = library("timm")
    module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    config = timm.data.resolve_model_data_config(module)
    assert config["input_size"] == [3, 176, 176]
    assert int(176 / config["crop_pct"]) == 232
    assert (config["interpolation"], tuple(config["std"])) == ("bicubic", PREPROCESSING.std)
    logits.append(module.eval()(images))

    folder = tmp_path / "huggingface"
    save_pretrained(network, variables, folder, to="huggingface", preprocessing=PREPROCESSING)
    transformers = library("transformers")
    module, report = transformers.ResNetForImageClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    logits.append(module.eval()(images).logits)
    config = transformers.AutoImageProcessor.from_pretrained(folder).to_dict()
    assert (config["size"]["shortest_edge"], config["crop_size"]["height"]) == (232, 176)

    apply = jax.jit(functools.partial(network.apply, train=False), compiler_options=QUICK)
    ours = apply(variables, images.permute(0, 2, 3, 1).numpy())
    for theirs in logits:
        np.testing.assert_allclose(
            theirs.detach(), ours, rtol=0, atol=1e-5 * float(abs(ours).max())
        )
    for folder in (tmp_path / "timm", tmp_path / "huggingface"):
        back = load_pretrained(folder)
        assert back.network == network
        assert back.preprocessing == PREPROCESSING


@pytest.mark.parametrize("to", ["timm", "huggingface"])
def test_a_folder_comes_back_without_our_metadata(tmp_path, to):
    network = create_model("resnet18_v1_5", num_classes=2)
    folder = tmp_path / "a"
    variables = random_variables(network)
    save_pretrained(network, variables, folder, to=to, preprocessing=PREPROCESSING)
    arrays, metadata = read_safetensors(folder / "model.safetensors")
    del metadata["resnet_jax"]
    write_safetensors(folder / "model.safetensors", arrays, metadata)
    back = load_pretrained(folder)
    assert back.preprocessing == PREPROCESSING
    assert back.network == network
