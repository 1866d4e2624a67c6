"""Networks that the paper does not have, from `ResNet(...)`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax import ResidualBlock, ResNet, create_model
from tests.models.shapes import count, shapes, sizes
from tests.models.torch_reference import QUICK


def test_half_width():
    half, full = (create_model("resnet50", width=width) for width in (32, 64))
    assert sizes(half, 224)["stage4"] == (7, 7, 1024)
    kernels = [count(shapes(m, 224)["params"]["stage3"]["block2"]["conv2"]) for m in (half, full)]
    assert kernels[0] * 4 == kernels[1]


@pytest.mark.parametrize(
    ("stage_sizes", "last"), [((3,), (56, 56, 24)), ((1, 1, 1, 1, 1, 1), (2, 2, 768))]
)
def test_other_numbers_of_stages_and_an_odd_width(stage_sizes, last):
    model = ResNet(stage_sizes, block=ResidualBlock, width=24, num_classes=3)
    found = sizes(model, 224)
    assert found[f"stage{len(stage_sizes)}"] == last
    assert f"stage{len(stage_sizes) + 1}" not in found
    assert found["head"] == (3,)


class PreActivation(ResidualBlock):
    """A block of one's own (He et al., arXiv 1603.05027), which inherits the fields."""

    @nn.compact
    def __call__(self, x, *, train):
        y = nn.relu(self.norm(name="bn1")(x, train=train))
        conv = functools.partial(
            nn.Conv, self.filters, (3, 3), kernel_dilation=self.dilation, dtype=self.dtype
        )
        shortcut = x
        if x.shape[-1] != self.filters or self.stride > 1:
            shortcut = nn.Conv(self.filters, (1, 1), strides=self.stride, name="shortcut")(y)
        y = conv(strides=self.stride, padding=self.dilation, name="conv1")(y)
        y = nn.relu(self.norm(name="bn2")(y, train=train))
        return shortcut + conv(padding=self.dilation, name="conv2")(y)


def test_a_block_of_ones_own():
    options = {"num_classes": 4, "remat": True, "output_stride": 4}
    model = ResNet((1, 1), block=PreActivation, width=8, **options)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients():
        variables = model.init(jax.random.key(0, impl="rbg"), x, train=False)

        def loss(params):
            logits, updates = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum(), updates

        return jax.grad(loss, has_aux=True)(variables["params"])

    found, _ = gradients()
    assert set(found["stage2"]["block1"]) == {"bn1", "bn2", "conv1", "conv2", "shortcut"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.any(leaf), path
