import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.layers import local_response_norm

RNG = np.random.default_rng(0)
X = RNG.normal(0, 30, (2, 3, 3, 9)).astype(np.float32)
W = RNG.normal(size=X.shape).astype(np.float32)


def formula(x, n, k, alpha, beta):
    """Returns the formula of Krizhevsky et al., section 3.3, unit by unit."""
    y = np.empty(x.shape)
    channels = x.shape[-1]
    for where in np.ndindex(x.shape):
        *position, i = where
        total = 0.0
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += float(x[*position, j]) ** 2
        y[where] = x[where] / (k + alpha * total) ** beta
    return y


@pytest.mark.parametrize(
    "options",
    [{}, {"size": 3, "k": 1.0, "alpha": 2e-3, "beta": 0.5}, {"size": 11}],
)
def test_equals_the_formula(options):
    constants = {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75} | options
    expected = formula(X, *(constants[name] for name in ("size", "k", "alpha", "beta")))
    np.testing.assert_allclose(local_response_norm(jnp.asarray(X), **options), expected, rtol=2e-6)


def test_equals_torch_which_divides_alpha_by_the_size():
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.local_response_norm(x.permute(0, 3, 1, 2), 5, 5e-4, 0.75, 2.0)
    y = y.permute(0, 2, 3, 1)
    (y * torch.tensor(W)).sum().backward()
    np.testing.assert_allclose(local_response_norm(jnp.asarray(X)), y.detach(), rtol=2e-6)
    gradient = jax.grad(lambda x: (local_response_norm(x) * W).sum())(X)
    np.testing.assert_allclose(gradient, x.grad, rtol=0, atol=2e-6 * float(x.grad.abs().max()))


def test_bfloat16_loses_no_more_than_its_own_digits():
    y = local_response_norm(jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        y.astype(jnp.float32), local_response_norm(jnp.asarray(X)), rtol=0.02
    )
