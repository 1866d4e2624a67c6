"""Precise batch statistics against numpy over all that the layers see."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from resnet_jax import BatchNorm, InputError, ResidualBlock, ResNet, create_model
from resnet_jax.config import base_config
from resnet_jax.data import Order, Statistics, augmentation
from resnet_jax.evaluation import evaluate_ensemble, precise_batch_stats
from resnet_jax.parallel import Replicas
from tests.data.pictures import photo
from tests.evaluation.test_protocols import network

GROUP = 4
STATISTICS = Statistics(mean=np.full(3, 100, np.float32), std=np.full(3, 50, np.float32))


class Photos:
    class_names = ("a", "b")

    def __init__(self, count=22, side=32):
        self.image_shape = (side, side, 3)
        self.pixels = np.stack([photo(side, side, seed=i) for i in range(count)])

    def __len__(self):
        return len(self.pixels)

    def read(self, indices, crops=None):
        assert crops is None
        return self.pixels[indices], np.zeros(len(indices), np.int32)


def init(model, side):
    images = np.zeros((1, side, side, 3), np.float32)
    with jax.default_prng_impl("rbg"):
        init = jax.jit(functools.partial(model.init, train=False))
        return jax.tree.map(np.asarray, dict(init(jax.random.key(0), images)))


def seen_by_layers(model, variables, pixels):
    """Returns what goes into each batch normalisation when these images are a batch."""

    @jax.jit
    def run(images):
        inputs = {}

        def keep(call, arguments, options, context):
            if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
                inputs[context.module.path] = arguments[0]
            return call(*arguments, **options)

        with nn.intercept_methods(keep):
            rngs = {"dropout": jax.random.key(0)}
            mutable = ["batch_stats", "auxiliary_logits"]
            model.apply(variables, images, train=True, mutable=mutable, rngs=rngs)
        return inputs

    with jax.numpy_dtype_promotion("standard"):
        return run((pixels.astype(np.float32) - 100) / 50)


def compare_with_numpy(model, side, examples=16):
    photos = Photos(side=side)
    variables = init(model, side)
    batch_stats, count = precise_batch_stats(
        model,
        variables,
        photos,
        STATISTICS,
        Replicas(devices=jax.devices()[:2]),
        examples=examples + GROUP - 1,
        group_size=GROUP,
        seed=5,
    )
    assert count == examples
    first = Order(len(photos), examples, 5).indices(0)
    inputs = [
        seen_by_layers(model, variables, photos.pixels[group]) for group in first.reshape(-1, GROUP)
    ]
    flat = traverse_util.flatten_dict(batch_stats)
    assert flat.keys() == traverse_util.flatten_dict(variables["batch_stats"]).keys()
    for path in inputs[0]:
        values = np.concatenate([np.asarray(group[path], np.float64) for group in inputs])
        values = values.reshape(-1, values.shape[-1])
        scale = values.std(axis=0).max()
        np.testing.assert_allclose(flat[*path, "mean"], values.mean(axis=0), atol=2e-5 * scale)
        np.testing.assert_allclose(flat[*path, "var"], values.var(axis=0), atol=5e-5 * scale**2)
    assert len(flat) == 2 * len(inputs[0])


def test_statistics_are_those_of_all_that_the_layers_saw():
    model = ResNet((1,), block=ResidualBlock, width=4, num_classes=2, bn_momentum=0.7)
    compare_with_numpy(model, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet50", {"stage_sizes": (1, 1, 1, 1), "width": 4, "bn_group_size": GROUP}),
        ("cifar_resnet8", {"width": 4}),
        ("vgg11_bn", {"width": 4, "hidden_units": 8}),
        ("googlenet_bn", {"width": 8, "auxiliary_units": 8}),
        ("bn_inception", {"width": 8}),
    ],
)
def test_statistics_of_every_family(name, fields):
    compare_with_numpy(create_model(name, num_classes=2, **fields), 64)


def test_any_number_of_devices_measures_the_same():
    model = ResNet((1,), block=ResidualBlock, stem="cifar", width=4, num_classes=2)
    variables, photos = init(model, 32), Photos()
    found = [
        precise_batch_stats(
            model,
            variables,
            photos,
            STATISTICS,
            Replicas(mapping, devices=jax.devices()[:count]),
            examples=20,
            augmentation=augmentation("pad_crop_flip", image_size=32),
            group_size=GROUP,
        )
        for mapping, count in (("pmap", 1), ("shard_map", 8))
    ]
    for other in found[1:]:
        same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
        jax.tree.map(same, other, found[0])


def test_what_has_no_statistics_is_refused():
    refused = functools.partial(
        precise_batch_stats,
        images=Photos(3),
        statistics=STATISTICS,
        replicas=Replicas(devices=jax.devices()[:1]),
    )
    alexnet = create_model("alexnet")
    with pytest.raises(InputError, match="AlexNet has no batch normalisation, and so no statistic"):
        refused(alexnet, {"params": {}}, examples=100)
    model = ResNet((1,), block=ResidualBlock, stem="cifar", width=4)
    with pytest.raises(InputError, match="at least a group of 32 images, and 3 are not one"):
        refused(model, init(model, 32), examples=100)


def test_a_run_with_frozen_modules_has_none():
    one = network()
    config = base_config()
    config.data.image_size = 8
    config.init.freeze = ("stem",)
    one = one._replace(config=config, num_classes=10)
    with pytest.raises(InputError, match=r"network-0 was trained with frozen modules \(stem\)"):
        evaluate_ensemble([one], precise_bn=100)
