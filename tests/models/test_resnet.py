import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax import BottleneckBlock, ResidualBlock, ResNet, create_model
from resnet_jax.models.resnet import Stem
from tests.models import shapes as traced
from tests.models.shapes import count as size

# Counts of parameters by shortcut, and those of the running statistics of option B.
IMAGENET = {
    18: ({"A": 11_515_688, "B": 11_689_512, "C": 12_043_816}, 9_600),
    34: ({"A": 21_623_848, "B": 21_797_672, "C": 22_716_840}, 17_024),
    50: ({"A": 22_780_456, "B": 25_557_032, "C": 40_128_552}, 53_120),
    101: ({"A": 41_772_584, "B": 44_549_160, "C": 76_981_288}, 105_344),
    152: ({"A": 57_416_232, "B": 60_192_808, "C": 107_335_720}, 151_424),
}
CIFAR = {
    20: {"A": 269_722, "B": 272_474},
    32: {"A": 464_154, "B": 466_906},
    44: {"A": 658_586, "B": 661_338},
    56: {"A": 853_018, "B": 855_770},
    110: {"A": 1_727_962, "B": 1_730_714},
    1202: {"A": 19_421_274, "B": 19_424_026},
}
KEY = jax.random.key(0, impl="rbg")  # compiles several times faster than the default


def some(depths):
    """Returns the depths as cases, of which those that take long to trace are slow."""
    slow = (44, 56, 101, 110, 152, 1202)
    return [pytest.param(depth, marks=[pytest.mark.slow] * (depth in slow)) for depth in depths]


def shapes(name, pixels=32, **options):
    return traced.shapes(create_model(name, **options), pixels)


def outputs(name, pixels, **options):
    """Returns the shape of each submodule's output by the submodule's name."""
    return traced.sizes(create_model(name, **options), pixels)


def paths(tree):
    return set(traverse_util.flatten_dict(tree, sep="."))


def check_counts(name, params, stats=None, **options):
    variables = shapes(name, **options)
    assert size(variables["params"]) == params
    if stats is not None:
        assert size(variables["batch_stats"]) == stats
    scales_and_biases = {
        path: leaf
        for path, leaf in traverse_util.flatten_dict(variables["params"], sep=".").items()
        if ".bn" in path
    }
    assert size(variables["batch_stats"]) == size(scales_and_biases)


@pytest.mark.parametrize("depth", some(IMAGENET))
def test_counts_of_the_imagenet_networks(depth):
    params, stats = IMAGENET[depth]
    check_counts(f"resnet{depth}", params["B"], stats)
    for shortcut in ("A", "C"):
        check_counts(f"resnet{depth}", params[shortcut], shortcut=shortcut)


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_networks_have_the_parameters_of_option_a(depth):
    params, stats = IMAGENET[depth]
    without_projections = stats - 2 * (128 + 256 + 512)
    check_counts(f"plain{depth}", params["A"], without_projections)
    assert shapes(f"plain{depth}") == shapes(f"resnet{depth}", shortcut="A")


@pytest.mark.parametrize("depth", some(CIFAR))
def test_counts_of_the_cifar_networks(depth):
    stats = 2 * (16 + (depth - 2) // 3 * (16 + 32 + 64))
    check_counts(f"cifar_resnet{depth}", CIFAR[depth]["A"], stats)


@pytest.mark.parametrize("depth", some(CIFAR))
def test_counts_of_the_cifar_networks_with_projections(depth):
    check_counts(f"cifar_resnet{depth}", CIFAR[depth]["B"], shortcut="B")


@pytest.mark.parametrize("depth", some([20, 32, 44, 56, 110]))
def test_plain_cifar_networks_have_the_parameters_of_option_a(depth):
    check_counts(f"cifar_plain{depth}", CIFAR[depth]["A"])
    assert shapes(f"cifar_plain{depth}") == shapes(f"cifar_resnet{depth}")


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("resnet34", 224, [(56, 64), (28, 128), (14, 256), (7, 512)]),
        ("resnet50", 224, [(56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet50_v1_5", 224, [(56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet18", 229, [(57, 64), (29, 128), (15, 256), (8, 512)]),
        ("resnet18", 32, [(8, 64), (4, 128), (2, 256), (1, 512)]),
        ("cifar_resnet20", 32, [(32, 16), (16, 32), (8, 64)]),
        ("cifar_plain20", 32, [(32, 16), (16, 32), (8, 64)]),
    ],
)
def test_output_sizes_of_the_stages(name, pixels, expected):
    sizes = outputs(name, pixels)
    for i, (side, channels) in enumerate(expected):
        assert sizes[f"stage{i + 1}"] == (side, side, channels)
    assert f"stage{len(expected) + 1}" not in sizes


def test_the_stride_of_a_bottleneck_is_on_the_1x1_in_v1_and_on_the_3x3_in_v1_5():
    for stage, before in ((2, 56), (3, 28), (4, 14)):
        v1, v1_5 = (outputs(name, 224) for name in ("resnet50", "resnet50_v1_5"))
        block = f"stage{stage}.block1"
        assert [v1[f"{block}.conv{i}"][0] for i in (1, 2, 3)] == [before // 2] * 3
        assert [v1_5[f"{block}.conv{i}"][0] for i in (1, 2, 3)] == [before, *[before // 2] * 2]


def test_names_of_the_submodules_are_an_interface():
    conv, norm = ["kernel"], ["bias", "scale"]

    def block(prefix, convolutions, *, projection):
        layers = [*((f"conv{i}", f"bn{i}") for i in range(1, convolutions + 1))]
        layers += [("shortcut.conv", "shortcut.bn")] if projection else []
        return {
            f"{prefix}.{layer}.{leaf}"
            for pair in layers
            for layer, leaves in zip(pair, (conv, norm), strict=True)
            for leaf in leaves
        }

    ends = {"stem.conv.kernel", "stem.bn.scale", "stem.bn.bias", "head.kernel", "head.bias"}
    resnet18 = ends.union(
        *(
            block(f"stage{s}.block{b}", 2, projection=s > 1 and b == 1)
            for s in (1, 2, 3, 4)
            for b in (1, 2)
        )
    )
    assert paths(shapes("resnet18")["params"]) == resnet18
    resnet50 = ends.union(
        *(
            block(f"stage{s}.block{b}", 3, projection=b == 1)
            for s, blocks in enumerate((3, 4, 6, 3), 1)
            for b in range(1, blocks + 1)
        )
    )
    assert paths(shapes("resnet50")["params"]) == resnet50
    assert paths(shapes("resnet50")["batch_stats"]) == {
        path.replace("scale", "mean").replace("bias", "var")
        for path in resnet50
        if path.endswith(("scale", "bn.bias", "bn1.bias", "bn2.bias", "bn3.bias"))
    }


def test_init_gives_the_same_params_and_batch_stats_whatever_train_is():
    # The groups fit neither this one image, nor is the axis of the replicas there.
    groups = {"bn_group_size": 4, "bn_axis_name": "replicas"}
    model = create_model("cifar_resnet8", stage_sizes=(1,), width=2, **groups)
    images = jnp.ones((1, 8, 8, 3))
    init = jax.jit(model.init, static_argnames="train")
    evaluating = init(KEY, images, train=False)
    training = init(KEY, images, train=True)
    assert set(evaluating) == {"params", "batch_stats"}
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), evaluating, training)
    for path, value in traverse_util.flatten_dict(evaluating["batch_stats"]).items():
        np.testing.assert_array_equal(value, float(path[-1] == "var"))


def test_kernels_start_with_the_variance_of_he_et_al_and_the_head_small():
    model = ResNet((1,), block=ResidualBlock, num_classes=1000, stem="cifar")
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(KEY, jnp.ones((1, 8, 8, 3)))["params"]
    for path, value in traverse_util.flatten_dict(params, sep=".").items():
        if path.endswith("kernel"):
            fan_in = value.size // value.shape[-1]
            expected = 0.01 if path == "head.kernel" else math.sqrt(2 / fan_in)
            tolerance = 5 / math.sqrt(2 * value.size)
            assert float(value.std()) == pytest.approx(expected, rel=tolerance)
        else:
            np.testing.assert_array_equal(value, float(path.endswith("scale")))


@pytest.mark.parametrize("block", [ResidualBlock, BottleneckBlock])
def test_zero_init_residual_zeroes_the_last_scale_of_every_block_only(block):
    model = ResNet((1, 2), block=block, width=8, zero_init_residual=True)

    @jax.jit
    def scales():  # alone, so that nothing else has to be compiled
        params = model.init(KEY, jnp.ones((1, 16, 16, 3)), train=False)["params"]
        flat = traverse_util.flatten_dict(params, sep=".")
        return {path: value for path, value in flat.items() if path.endswith("scale")}

    last = "bn2" if block is ResidualBlock else "bn3"
    zero = {path for path, value in scales().items() if not value.any()}
    blocks = ("stage1.block1", "stage2.block1", "stage2.block2")
    assert zero == {f"{block}.{last}.scale" for block in blocks}


@pytest.mark.parametrize("train", [False, True])
def test_logits_parameters_and_statistics_are_float32_whatever_the_arithmetic(train):
    options = {"num_classes": 7, "dtype": jnp.bfloat16, "stage_sizes": (1, 1)}
    model, variables = create_model("resnet50", **options), shapes("resnet50", **options)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    apply = functools.partial(model.apply, train=train, mutable=["batch_stats", "intermediates"])
    logits, updates = jax.eval_shape(
        functools.partial(apply, capture_intermediates=True), variables, images
    )
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    leaves = jax.tree.leaves((variables, updates["batch_stats"]))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    stages = [updates["intermediates"][f"stage{i}"]["__call__"][0] for i in (1, 2)]
    assert {stage.dtype for stage in stages} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("pixels", [9, 12, 14, 17])  # the pool sees 5 6 7 9
@pytest.mark.parametrize("padding", [(0, 1), (1, 1)])
def test_max_pool_is_caffes_in_v1_and_torchs_in_v1_5(pixels, padding):
    stem = Stem(2, pool_padding=padding)
    images = jax.random.normal(KEY, (1, pixels, pixels, 1))
    pooled, variables = stem.init_with_output(
        KEY, images, train=False, mutable=True, capture_intermediates=True
    )
    x = np.maximum(variables["intermediates"]["bn"]["__call__"][0][0], 0)
    # Caffe: no padding, the number of windows rounded up, the last one cut off at the border.
    side = x.shape[0]
    windows = math.ceil((side - 3) / 2) + 1 if padding == (0, 1) else (side + 2 - 3) // 2 + 1
    cuts = [slice(max(start, 0), start + 3) for start in range(-padding[0], 2 * windows, 2)]
    expected = np.array(
        [[x[row, column].max((0, 1)) for column in cuts[:windows]] for row in cuts[:windows]]
    )
    np.testing.assert_array_equal(pooled[0], expected)


def test_a_network_made_from_lists_can_be_static_in_jit():
    from_lists = ResNet([1, 1], pool_padding=[0, 1])  # pyrefly: ignore
    assert from_lists == ResNet((1, 1), pool_padding=(0, 1))
    assert hash(from_lists) == hash(ResNet((1, 1), pool_padding=(0, 1)))
