"""Names, shapes, numbers, starts and configs of the networks, as they were at commit 3111d32.

`networks.json` was written by that commit's code: `python -m tests.pins.test_networks`.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import resnet_jax
from resnet_jax.config import base_config, build_model
from resnet_jax.models import image_shape, model_options
from tests.quick import QUICK

FILE = pathlib.Path(__file__).with_name("networks.json")
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# Others of their families are traced in less time.
DEEP = re.compile(
    r".*(32|34|44|56|101|110|152|1202)(_v1_5)?|vgg1[369].*|googlenet|prelu_net_[bc]|zfnet_wide"
)
FEW = ("resnet", "alexnet", "vgg_bn", "lenet5_1998", "prelu_net")
STARTS = ("cifar", "alexnet", "lenet5_1998", "prelu_net", "googlenet_bn")

# Small networks of every family: their names, fields and pixels.
SMALL = {
    "resnet": ("resnet50", {"stage_sizes": (1, 1), "width": 4, "num_classes": 3}, 32),
    "resnet_v1_5": ("resnet50_v1_5", {"stage_sizes": (1, 1), "width": 4, "num_classes": 3}, 31),
    "dilated": (
        "resnet18",
        {"stage_sizes": (1, 1, 1), "width": 4, "num_classes": 3, "output_stride": 4},
        40,
    ),
    "cifar": ("cifar_resnet8", {"width": 4}, 12),
    "plain": ("cifar_plain20", {"stage_sizes": (1, 1), "width": 4}, 8),
    "alexnet": ("alexnet", {"filters": (4, 6, 8, 8, 6), "hidden_units": 10, "num_classes": 5}, 67),
    "alexnet_torchvision": (
        "alexnet_torchvision",
        {"filters": (4, 6, 8, 8, 6), "hidden_units": 10, "num_classes": 5},
        63,
    ),
    "zfnet": ("zfnet", {"filters": (4, 6, 8, 8, 6), "hidden_units": 10, "num_classes": 5}, 47),
    "vgg": ("vgg11", {"width": 2, "hidden_units": 6, "num_classes": 5}, 32),
    "vgg_bn": ("vgg11_bn", {"width": 2, "hidden_units": 6, "num_classes": 5}, 32),
    "googlenet": ("googlenet", {"width": 8, "auxiliary_units": 6, "num_classes": 5}, 79),
    "googlenet_bn": ("googlenet_bn", {"width": 8, "auxiliary_units": 6, "num_classes": 5}, 32),
    "bn_inception": ("bn_inception", {"width": 8, "num_classes": 5}, 32),
    "lenet5": ("lenet5", {}, 32),
    "lenet5_1998": ("lenet5_1998", {}, 32),
    "lenet5_modern": ("lenet5_modern", {}, 32),
    "prelu_net": (
        "prelu_net_a",
        {"stage_sizes": (1, 2, 1), "filters": (4, 5, 6), "hidden_units": 7, "num_classes": 5},
        15,
    ),
}


def numbers(array):
    return [[float(f"{x:.8g}") for x in row] for row in np.atleast_2d(np.asarray(array, float))]


def digest(value):
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def described(tree):
    flat = traverse_util.flatten_dict(tree, sep="/")
    return "\n".join(f"{path} {flat[path].shape} {flat[path].dtype}" for path in sorted(flat))


def tree(name):
    """Returns a hash of the variables, one of the submodules' outputs, and the first names."""
    model, shape = resnet_jax.create_model(name), image_shape(name)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    init = functools.partial(
        model.init_with_output, train=False, mutable=True, capture_intermediates=True
    )
    _, variables = jax.eval_shape(init, jax.random.key(0), images)
    outputs = {
        path: value[-1]
        for path, value in traverse_util.flatten_dict(variables["intermediates"], sep="/").items()
        if value[-1] is not None  # auxiliary heads return nothing
    }
    return {
        "variables": digest(
            "\n".join(
                f"{collection}\n{described(variables.get(collection, {}))}"
                for collection in ("params", "batch_stats")
            )
        ),
        "submodules": digest(described(outputs)),
        "names": sorted(variables["params"]),
        "options": sorted(model_options(name)),
        "image_shape": list(shape),
    }


def fields_of_resnet():
    return [
        [f.name, str(getattr(f.default, "__name__", f.default))]
        for f in dataclasses.fields(resnet_jax.ResNet)
        if f.default is not dataclasses.MISSING and f.name not in ("parent", "name")
    ]


def keys(config):
    """Returns every key of a config, its value and its type, in order."""

    def rows(config, prefix):
        for key, value in config.items():
            if hasattr(value, "items"):
                yield from rows(value, f"{prefix}{key}.")
            else:
                yield [f"{prefix}{key}", json.loads(json.dumps(value)), str(config.get_type(key))]

    return list(rows(config, ""))


def configs(pinned_keys):
    """Returns a hash of each config, its pinned keys and the fields of the network it builds."""
    found = {}
    for path in sorted(CONFIGS.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        names = getattr(module, "NAMES", None)
        names = resnet_jax.list_models() if path.stem == "finetune" else names or [None]
        for name in [None, *names]:
            config = module.get_config(*[name] * (name is not None))
            if config.model.name not in pinned()["trees"]:  # a later network
                continue
            model = build_model(config, 10)
            options = pinned()["trees"][config.model.name]["options"]
            fields = {
                field: getattr(getattr(model, field), "__name__", getattr(model, field))
                for field in options
            }
            values = [row for row in keys(config) if row[0] in pinned_keys]
            key = path.stem if name is None else f"{path.stem}:{name}"
            found[key] = digest([values, fields])
    return found


def variables_and_images(small, rng):
    name, fields, pixels = SMALL[small]
    model = resnet_jax.create_model(name, **fields)
    images = rng.normal(0.3, 1, (2, pixels, pixels, image_shape(name)[2])).astype(np.float32)
    init = functools.partial(model.init, train=False)
    flat = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), images[:1]), sep="/")
    drawn = {}
    for path in sorted(flat):
        kind, shape = path.rpartition("/")[2], flat[path].shape
        if kind in ("scale", "var", "coefficient"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            fan_in = np.prod(shape) / shape[-1]
            value = rng.normal(0, 1.5 / np.sqrt(fan_in) if kind == "kernel" else 0.3, shape)
        drawn[path] = value.astype(np.float32)
    return model, traverse_util.unflatten_dict(drawn, sep="/"), images


def outputs(small):
    """Returns logits in evaluation, and those in training with dropout from a key."""
    model, variables, images = variables_and_images(small, np.random.default_rng(3))
    training = functools.partial(model.apply, train=True, mutable=["batch_stats"])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(variables, images):
        logits, _ = training(variables, images, rngs={"dropout": jax.random.key(7)})
        return model.apply(variables, images, train=False), logits

    return [numbers(logits) for logits in run(variables, images)]


def start(small):
    """Returns the first numbers of each parameter as it starts for a seed."""
    name, fields, pixels = SMALL[small]
    model = resnet_jax.create_model(name, **fields)
    images = jnp.ones((1, pixels, pixels, image_shape(name)[2]))
    init = jax.jit(functools.partial(model.init, train=True), compiler_options=QUICK)
    flat = traverse_util.flatten_dict(init(jax.random.key(11), images), sep="/")
    return {path: numbers(np.ravel(leaf)[:3])[0] for path, leaf in flat.items()}


def some(names, few):
    """Returns the names as cases, of which all but a few are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in few)) for name in names]


def pinned():
    return json.loads(FILE.read_text())


def without_additions(found, expected):
    return [row for row in found if row in expected]


def test_the_networks_have_their_names():
    assert set(pinned()["trees"]) <= set(resnet_jax.list_models())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (DEEP.fullmatch(name) is not None))
        for name in pinned()["trees"]
    ],
)
def test_variables_submodules_and_options_are_the_same(name):
    assert tree(name) == pinned()["trees"][name]


def test_the_fields_of_resnet_are_the_same():
    expected = pinned()["resnet"]
    assert without_additions(fields_of_resnet(), expected) == expected


def test_the_keys_of_the_config_are_the_same():
    expected = pinned()["keys"]
    assert without_additions(keys(base_config()), expected) == expected


def test_the_configs_are_the_same():
    expected = pinned()["configs"]
    found = configs([key for key, _, _ in pinned()["keys"]])
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("small", some(SMALL, FEW))
def test_outputs_are_the_same(small):
    for found, expected in zip(outputs(small), pinned()["outputs"][small], strict=True):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("small", some(STARTS, ("cifar", "lenet5_1998")))
def test_a_seed_starts_the_same_network(small):
    found, expected = start(small), pinned()["starts"][small]
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, rtol=1e-5, atol=1e-6, err_msg=path)


if __name__ == "__main__":
    written = {
        "trees": {name: tree(name) for name in resnet_jax.list_models()},
        "resnet": fields_of_resnet(),
        "keys": keys(base_config()),
        "outputs": {small: outputs(small) for small in SMALL},
        "starts": {small: start(small) for small in STARTS},
    }
    FILE.write_text(json.dumps(written))
    written["configs"] = configs([key for key, _, _ in written["keys"]])
    FILE.write_text(json.dumps(written) + "\n")
