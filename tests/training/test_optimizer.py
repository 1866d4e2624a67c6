import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import base_config
from resnet_jax.errors import InputError
from resnet_jax.training.optimizer import make_optimizer


def config(**changes):
    config = base_config().optimizer
    config.update(changes)
    return config


def descend(optimizer, rates, gradients_of, params):
    state = optimizer.init(params)
    for rate in rates:
        direction, state = optimizer.update(gradients_of(params), state, params)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, direction)
    return params


@pytest.mark.parametrize("nesterov", [False, True])
def test_descends_as_torch_does(nesterov):
    torch = pytest.importorskip("torch")
    rates = [0.1, 0.1, 0.1, 0.01, 0.01]  # momentum meets a change of the rate
    start = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    weight = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.SGD(
        [weight], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov
    )
    for rate in rates:
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        (weight**4).sum().backward()
        reference.step()

    ours = descend(
        make_optimizer(config(weight_decay=0.01, nesterov=nesterov)),
        rates,
        jax.grad(lambda params: jnp.sum(params["kernel"] ** 4)),
        {"kernel": jnp.asarray(start)},
    )
    np.testing.assert_allclose(ours["kernel"], weight.detach().numpy(), rtol=1e-5)


def test_weight_decay_covers_what_is_asked():
    params = {
        "conv": {"kernel": jnp.ones(2)},
        "bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    }
    still = jax.tree.map(jnp.zeros_like, params)

    def moved(covers):
        optimizer = make_optimizer(config(weight_decay=0.5, weight_decay_on=covers))
        end = descend(optimizer, [0.1], lambda _: still, params)
        leaves = jax.tree_util.tree_leaves_with_path(end)
        return {jax.tree_util.keystr(path) for path, leaf in leaves if float(leaf[0]) < 1}

    assert moved("kernels") == {"['conv']['kernel']", "['head']['kernel']"}
    assert len(moved("all")) == 5


def test_refusals():
    with pytest.raises(InputError, match=r"did you mean kernels\?"):
        make_optimizer(config(weight_decay_on="kernel"))
