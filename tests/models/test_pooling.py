import math

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.layers import adaptive_pool


@pytest.mark.parametrize(("height", "width"), [(14, 7), (1, 13)])
@pytest.mark.parametrize("bins", [3, 7])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_equals_the_definition_and_torch(height, width, bins, reduce):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    found = adaptive_pool(jnp.asarray(x), bins, getattr(jnp, reduce))

    def cells(size):
        step = size / bins
        return [slice(math.floor(i * step), math.ceil((i + 1) * step)) for i in range(bins)]

    expected = np.array(
        [[getattr(x[:, r, c], reduce)((1, 2)) for c in cells(width)] for r in cells(height)]
    ).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    torch = pytest.importorskip("torch")
    pool = {"mean": "adaptive_avg_pool2d", "max": "adaptive_max_pool2d"}[reduce]
    theirs = getattr(torch.nn.functional, pool)(torch.tensor(x.transpose(0, 3, 1, 2)), bins)
    np.testing.assert_allclose(found, theirs.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_side_of_as_many_bins_stays_as_it_is():
    x = jnp.arange(2.0 * 6 * 6).reshape(2, 6, 6, 1)
    assert adaptive_pool(x, 6) is x
