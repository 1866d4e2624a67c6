import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import InputError, create_model
from resnet_jax import config as configs
from resnet_jax.models import lowering
from resnet_jax.models.registry import image_shape

# The others have layers of the same kinds.
NETWORKS = ("alexnet", "alexnet_torchvision", "zfnet", "vgg11", "googlenet", "googlenet_bn")
NETWORKS += ("bn_inception", "prelu_net_a", "lenet5", "resnet18", "resnet50", "resnet50_v1_5")
NETWORKS += ("cifar_resnet20", "cifar_plain20")


def compare(functions, arguments, tolerance):
    """Compares outputs and gradients of both forms, by the largest number of each."""
    results = []
    for form in ("fast", "plain"):

        def run(arguments, form=form):
            outputs = []
            with lowering.lower_to(form):
                for function, its_arguments in zip(functions, arguments, strict=True):
                    output, transposed = jax.vjp(function, *its_arguments)
                    weights = np.random.default_rng(1).standard_normal(output.shape)
                    outputs.append((output, transposed(jnp.asarray(weights, output.dtype))))
            return outputs

        results.append(jax.tree.leaves(jax.jit(run)(arguments)))
    for got, wanted in zip(*results, strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
        assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


@functools.cache
def layers_of_all_networks():
    """Returns the convolutions and the max-pools of all networks, one of each kind."""
    convolutions, pools = {}, {}

    def record(call, arguments, options, context):
        conv = context.module
        if isinstance(conv, nn.Conv):
            channels = min(arguments[0].shape[-1], 130)  # more are computed in the same way
            fields = ("kernel_size", "strides", "padding", "kernel_dilation", "feature_group_count")
            kind = {field: getattr(conv, field) for field in fields}
            convolutions[str((channels, kind))] = channels, kind
        return call(*arguments, **options)

    def record_pool(x, window, strides=None, padding="VALID"):
        pools[str((window, strides, padding))] = window, strides, padding
        return pool(x, window, strides, padding)

    pool = nn.max_pool
    with pytest.MonkeyPatch.context() as patch, nn.intercept_methods(record):
        patch.setattr(nn, "max_pool", record_pool)
        dilated = create_model("resnet50", output_stride=8), (224, 224, 3)
        for model, shape in [*((create_model(n), image_shape(n)) for n in NETWORKS), dilated]:
            init = functools.partial(model.init, train=False)
            jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return list(convolutions.values()), list(pools.values())


def convolutions_and_arguments(dtype, *, all_channels=True):
    """Returns the convolutions of all networks on small images, and their inputs and kernels.

    They are of all numbers of channels, or of one for each kind.
    """
    random = np.random.default_rng(0)
    functions, arguments = [], []
    layers = layers_of_all_networks()[0]
    if not all_channels:
        layers = {str(kind): (channels, kind) for channels, kind in layers}.values()
    for channels, kind in layers:
        reach = kind["kernel_size"][0] * np.max(kind["kernel_dilation"])
        for size in (reach + 3, reach + 4):  # a stride of 2 leaves a rest, or none
            conv = lowering.Conv(5 * kind["feature_group_count"], **kind, use_bias=False)
            x = jnp.asarray(random.standard_normal((2, size, size + 2, channels)), dtype)
            shape = kind["kernel_size"] + (channels // kind["feature_group_count"], conv.features)
            kernel = jnp.asarray(random.standard_normal(shape), dtype)
            functions.append(
                lambda x, kernel, conv=conv: conv.apply({"params": {"kernel": kernel}}, x)
            )
            arguments.append((x, kernel))
    return functions, arguments


@pytest.mark.parametrize(
    ("platform", "all_channels"),
    [
        ("cpu", False),
        pytest.param("cpu", True, marks=pytest.mark.slow),
        pytest.param("gpu", True, marks=pytest.mark.slow),
    ],
)
def test_convolutions_of_all_networks_equal_their_plain_form(monkeypatch, platform, all_channels):
    """In float64, with the gradient for the input that bfloat16 gets."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(lowering, "_ONEDNN_TYPES", {jnp.dtype(jnp.float64)})
    with jax.enable_x64(True):
        compare(
            *convolutions_and_arguments(jnp.float64, all_channels=all_channels), tolerance=1e-13
        )


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_they_do_in_float32(monkeypatch, platform):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    compare(*convolutions_and_arguments(jnp.float32), tolerance=1e-5)


def test_convolutions_of_images_smaller_than_their_kernel_equal_their_plain_form():
    random = np.random.default_rng(0)
    functions, arguments = [], []
    for size, kernel, stride, dilation in itertools.product((1, 2, 4), (3, 5), (1, 2), (1, 2)):
        reach = dilation * (kernel - 1)
        conv = functools.partial(
            lowering.conv_general_dilated,
            window_strides=(stride, stride),
            padding=((reach // 2, reach // 2), (reach // 2, reach)),
            lhs_dilation=(1, 1),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=1,
            precision=None,
        )
        shapes = (2, size, size + 1, 40), (kernel, kernel, 40, 5)
        functions.append(conv)
        arguments.append(tuple(jnp.asarray(random.standard_normal(shape)) for shape in shapes))
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda x: x.astype(jnp.float64), arguments)
        compare(functions, arguments, tolerance=1e-13)


def test_max_pools_of_all_networks_equal_their_plain_form():
    """With many equal values, of which the first has to get the gradient."""
    random = np.random.default_rng(0)
    functions, arguments = [], []
    for window, strides, padding in layers_of_all_networks()[1]:
        for size in (8, 9, 10, 11):
            x = random.integers(0, 4, (2, size, size + 3, 5))
            functions.append(
                functools.partial(
                    lowering.max_pool, window=window, strides=strides, padding=padding
                )
            )
            arguments.append((jnp.asarray(x, jnp.float32),))
    assert len(functions) >= 4 * 6
    compare(functions, arguments, tolerance=1e-6)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("platform", "name", "fields"),
    [
        ("cpu", "resnet50_v1_5", {"stage_sizes": (1, 1), "width": 8}),
        ("gpu", "resnet18", {"stage_sizes": (1,), "width": 8}),
        ("cpu", "cifar_resnet8", {"remat": True}),
        ("tpu", "cifar_resnet8", {}),
        slow("cpu", "zfnet", {"filters": (4, 4, 4, 4, 4), "hidden_units": 8}),
        slow("cpu", "lenet5", {}),
        slow("cpu", "googlenet", {"auxiliary_heads": False}),
    ],
)
def test_a_network_in_the_fast_form_equals_the_plain_one(monkeypatch, platform, name, fields):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    height, width, channels = image_shape(name)
    height, width = min(height, 68), min(width, 68)
    images = jax.random.normal(jax.random.key(1), (2, height, width, channels))
    results = []
    for form in ("plain", "fast"):
        model = create_model(name, **fields, lowering=form)
        variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)

        def loss(params, model=model, rest=variables):
            logits, updates = model.apply(
                rest | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(2)},
            )
            return jnp.sum(logits**2), (logits, updates)

        gradient = jax.grad(loss, has_aux=True)
        results.append(jax.tree.leaves(jax.jit(gradient)(variables["params"])))
    for got, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max() + 1e-6)


def test_the_fast_form_takes_gradients_of_gradients_and_vmap_and_no_forward_mode():
    x = jnp.round(jax.random.normal(jax.random.key(0), (3, 1, 6, 6, 2)))  # with equal maxima
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))

    def energy(x, form):
        with lowering.lower_to(form):
            y = lowering.Conv(4, (3, 3), padding=1, use_bias=False).apply(
                {"params": {"kernel": kernel}}, x
            )
            pooled = lowering.max_pool(x, (2, 2), strides=(2, 2))
            return jnp.sum(lowering.max_pool(y**3, (2, 2), strides=(2, 2))) + jnp.sum(pooled**3)

    def norm_of_gradient(x, form):
        return jnp.sum(jax.grad(energy)(x, form) ** 2)

    plain, fast = (
        jax.vmap(jax.grad(functools.partial(norm_of_gradient, form=form)))(x)
        for form in ("plain", "fast")
    )
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())
    jax.jvp(functools.partial(energy, form="plain"), (x[0],), (x[0],))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(functools.partial(energy, form="fast"), (x[0],), (x[0],))


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="lowering is 'fats'; it must be one of"):
        create_model("resnet18", lowering="fats")


def test_options_are_for_the_fast_form_on_cpus(monkeypatch):
    options = lowering.compiler_options("fast", jnp.bfloat16)
    assert bool(options) == (jax.__version_info__ >= (0, 12))
    product = jax.jit(lambda x: x @ x).lower(jnp.ones((512, 512)))
    options = lowering.compiler_options("fast", jnp.float32)
    assert "ynn" in product.compile().as_text()
    assert "ynn" not in product.compile(compiler_options=options).as_text()
    assert not lowering.compiler_options("plain", jnp.float32)
    assert not lowering.compiler_options("plain", jnp.bfloat16)
    assert not lowering.compiler_options(None, jnp.bfloat16)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not lowering.compiler_options("fast", jnp.bfloat16)


def test_a_run_from_before_the_key_goes_on_in_the_plain_form():
    config = configs.base_config()
    assert configs.choose_lowering(config).model.lowering == "fast"
    assert configs.choose_lowering(config, {"model": {"name": "resnet50"}}).model.lowering is None
    stored = {"model": {"lowering": "fast"}}
    assert configs.choose_lowering(config, stored).model.lowering == "fast"
    config.model.lowering = "plain"
    assert configs.choose_lowering(config, stored).model.lowering == "plain"
    assert configs.build_model(config, 10).lowering == "plain"
