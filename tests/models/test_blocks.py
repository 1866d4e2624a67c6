"""Blocks and whole networks against an implementation of their own in torch, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from resnet_jax import BatchNorm, BottleneckBlock, InputError, ResidualBlock, ResNet
from resnet_jax.models import Shortcut
from tests.quick import QUICK

torch = pytest.importorskip("torch")
F = torch.nn.functional

MOMENTUM, EPSILON = 0.8, 1e-3  # neither library's default
NORM = functools.partial(BatchNorm, momentum=MOMENTUM, epsilon=EPSILON)
KEY = jax.random.key(0, impl="rbg")  # compiles several times faster than the default


def convolve(x, p, stride, dilation=1):
    kernel = p["kernel"].permute(3, 2, 0, 1)
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, stride=stride, padding=padding, dilation=dilation)


def normalize(x, p, s, train):
    kept = MOMENTUM * s["var"]
    y = F.batch_norm(x, s["mean"], s["var"], p["scale"], p["bias"], train, 1 - MOMENTUM, EPSILON)
    if train:  # torch divides by one less than it has
        m = x.numel() // x.shape[1]
        s["var"] = kept + (s["var"] - kept) * (m - 1) / m
    return y


def torch_block(x, p, s, train, *, stride, shortcut, stride_on="1x1", dilations=(1, 1)):
    first, later = dilations  # of the convolutions up to the one with the stride, and after it
    if "conv3" not in p:
        steps = ((stride, first), (1, later))
    elif stride_on == "1x1":
        steps = ((stride, 1), (1, later), (1, 1))
    else:
        steps = ((1, 1), (stride, first), (1, 1))
    y = x
    for i, step in enumerate(steps, 1):
        y = F.relu(y) if i > 1 else y
        y = normalize(convolve(y, p[f"conv{i}"], *step), p[f"bn{i}"], s[f"bn{i}"], train)
    if shortcut == "C" or (shortcut == "B" and x.shape != y.shape):
        p, s = p["shortcut"], s["shortcut"]
        y = y + normalize(convolve(x, p["conv"], stride), p["bn"], s["bn"], train)
    elif shortcut is not None:
        x = F.avg_pool2d(x, 1, stride)
        y = y + torch.cat([x, x.new_zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1)
    return F.relu(y)


def torch_network(x, p, s, train, *, stages, pool, stem_stride, dilated=(), **options):
    x = convolve(x, p["stem"]["conv"], stem_stride)
    x = pool(F.relu(normalize(x, p["stem"]["bn"], s["stem"]["bn"], train)))
    dilation = 1
    for i, blocks in enumerate(stages, 1):
        # As torchvision's `replace_stride_with_dilation` does it.
        stride, before = 2 if i > 1 else 1, dilation
        if i in dilated:
            stride, dilation = 1, dilation * stride
        for j in range(1, blocks + 1):
            p_block, s_block = p[f"stage{i}"][f"block{j}"], s[f"stage{i}"][f"block{j}"]
            at = {"stride": stride, "dilations": (before, dilation)}
            at = at if j == 1 else {"stride": 1, "dilations": (dilation, dilation)}
            x = torch_block(x, p_block, s_block, train, **at, **options)
    return x.mean((2, 3)) @ p["head"]["kernel"] + p["head"]["bias"]


def random_variables(module, x, rng):
    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = 1.5 / np.sqrt(leaf.size / leaf.shape[-1]) if name == "kernel" else 0.3
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(functools.partial(module.init, train=False), KEY, x)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def check_against_torch(module, shape, reference):
    """Compares outputs, gradients (of parameters and input) and statistics in both modes.

    In training every parameter has to get a gradient.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 1, shape).astype(np.float32)
    variables = random_variables(module, x, rng)
    stats = variables["batch_stats"]
    output = jax.eval_shape(functools.partial(module.apply, train=False), variables, x)
    weights = rng.normal(size=output.shape).astype(np.float32)

    def run(params, x, *, train):
        def loss_of(params, x):
            y, updates = module.apply(
                {"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"]
            )
            return (y * weights).sum(), {"output": y, "stats": updates["batch_stats"]}

        gradients, outputs = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(params, x)
        return {**outputs, "params": gradients[0], "x": gradients[1]}

    ours = jax.jit(
        lambda params, x: {
            mode: run(params, x, train=mode == "train") for mode in ("train", "eval")
        },
        compiler_options=QUICK,
    )(variables["params"], x)

    def channels_first(a):
        return a.permute(0, 3, 1, 2) if a.ndim == 4 else a

    theirs = {}
    for mode in ("train", "eval"):
        leaf = functools.partial(torch.tensor, dtype=torch.float64, requires_grad=True)
        p, x_leaf = jax.tree.map(leaf, variables["params"]), leaf(x)
        s = jax.tree.map(functools.partial(torch.tensor, dtype=torch.float64), stats)
        y = reference(channels_first(x_leaf), p, s, mode == "train")
        (y * channels_first(torch.tensor(weights, dtype=torch.float64))).sum().backward()
        y = y.permute(0, 2, 3, 1) if y.ndim == 4 else y
        theirs[mode] = {
            "output": y.detach().numpy(),
            "stats": jax.tree.map(lambda t: t.numpy(), s),
            "params": jax.tree.map(lambda t: t.grad.numpy(), p),
            "x": x_leaf.grad.numpy(),
        }

    theirs = traverse_util.flatten_dict(theirs, sep=".")
    ours = traverse_util.flatten_dict(ours, sep=".")
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        # A later normalisation cancels most of some gradients: rounding is a share of the largest.
        largest = np.abs(expected).max()
        if ".params." in name:
            alike = name[: name.index(".params.")]
            others = (g for other, g in theirs.items() if other.startswith(f"{alike}.params."))
            largest = max(np.abs(gradient).max() for gradient in others)
            assert np.abs(ours[name]).max() > (1e-3 * largest if alike == "train" else 0), name
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-5 * largest, err_msg=name)


@pytest.mark.parametrize(
    ("shortcut", "channels", "stride"),
    [
        ("A", 4, 2),
        ("B", 6, 2),
        ("C", 6, 1),
        (None, 4, 2),
    ],
)
def test_residual_block_equals_torch(shortcut, channels, stride):
    module = ResidualBlock(6, stride=stride, shortcut=shortcut, norm=NORM)
    reference = functools.partial(torch_block, stride=stride, shortcut=shortcut)
    check_against_torch(module, (3, 7, 7, channels), reference)


@pytest.mark.parametrize(
    ("shortcut", "channels", "stride", "stride_on"),
    [
        ("A", 5, 2, "3x3"),
        ("B", 5, 2, "1x1"),
        ("B", 5, 2, "3x3"),
        ("C", 8, 1, "1x1"),
    ],
)
def test_bottleneck_block_equals_torch(shortcut, channels, stride, stride_on):
    options = {"stride": stride, "shortcut": shortcut, "stride_on": stride_on}
    reference = functools.partial(torch_block, **options)
    check_against_torch(BottleneckBlock(2, norm=NORM, **options), (3, 7, 7, channels), reference)


network = functools.partial(
    ResNet, num_classes=10, width=4, bn_momentum=MOMENTUM, bn_epsilon=EPSILON
)


def test_cifar_network_equals_torch():
    module = network((1, 1, 1), block=ResidualBlock, stem="cifar", shortcut="A")
    reference = functools.partial(
        torch_network, stages=(1, 1, 1), stem_stride=1, pool=lambda x: x, shortcut="A"
    )
    check_against_torch(module, (4, 10, 10, 3), reference)


@pytest.mark.parametrize(
    ("stride_on", "padding", "torch_pooling"),
    [
        ("1x1", (0, 1), {"ceil_mode": True}),  # v1: Caffe rounds the number of windows up
        ("3x3", (1, 1), {"padding": 1}),  # v1.5
    ],
)
def test_imagenet_network_equals_torch(stride_on, padding, torch_pooling):
    module = network((1, 1), stride_on=stride_on, pool_padding=padding)
    pool = functools.partial(F.max_pool2d, kernel_size=3, stride=2, **torch_pooling)
    reference = functools.partial(
        torch_network, stages=(1, 1), stem_stride=2, pool=pool, shortcut="B", stride_on=stride_on
    )
    check_against_torch(module, (3, 32, 32, 3), reference)


@pytest.mark.parametrize(
    "block", [BottleneckBlock, pytest.param(ResidualBlock, marks=pytest.mark.slow)]
)
def test_dilated_network_equals_torch(block):
    module = network((1, 2), block=block, stem="cifar", stride_on="3x3", output_stride=1)
    reference = functools.partial(
        torch_network,
        stages=(1, 2),
        stem_stride=1,
        pool=lambda x: x,
        dilated=(2,),
        shortcut="B",
        stride_on="3x3",
    )
    check_against_torch(module, (2, 9, 9, 3), reference)


@pytest.mark.parametrize(("pixels", "stride", "channels"), [(6, 1, 3), (6, 2, 5), (7, 2, 3)])
def test_shortcut_a_is_the_subsampled_input_and_zeros(pixels, stride, channels):
    x = np.random.default_rng(0).normal(size=(2, pixels, pixels, 3)).astype(np.float32)
    shortcut = Shortcut(channels, stride=stride, kind="A")
    y, variables = shortcut.init_with_output(KEY, x, train=True)
    assert variables == {}
    np.testing.assert_array_equal(y[..., :3], x[:, ::stride, ::stride])
    np.testing.assert_array_equal(y[..., 3:], 0)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_shortcuts_a_and_b_are_the_identity_where_the_shape_stays(kind):
    x = jnp.ones((1, 4, 4, 3))
    y, variables = Shortcut(3, kind=kind).init_with_output(KEY, x, train=True)
    assert variables == {}
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("block", [ResidualBlock, BottleneckBlock])
def test_zero_init_residual_makes_the_block_its_shortcut(block):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 6, 8)).astype(np.float32)
    module = block(8 // block.expansion, zero_init_residual=True)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def outputs():
        return [module.init_with_output(KEY, x, train=train)[0] for train in (False, True)]

    for y in outputs():
        np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Shortcut(4, kind="D"),  # pyrefly: ignore
            "there is no shortcut 'D'; known are A, B, C",
        ),
        (
            lambda: BottleneckBlock(4, stride_on="2x2"),  # pyrefly: ignore
            "there is no stride_on '2x2'; known are 1x1, 3x3",
        ),
        (
            lambda: jax.eval_shape(
                lambda x: ResidualBlock(4, shortcut="b").init(KEY, x, train=False),
                jnp.ones((1, 2, 2, 4)),
            ),
            "there is no shortcut 'b'; known are A, B, C",
        ),
        (
            lambda: Shortcut(4, kind="A").init(KEY, jnp.ones((1, 2, 2, 6)), train=False),
            "shortcut A adds channels and cannot take 6 down to 4; use B or C",
        ),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
