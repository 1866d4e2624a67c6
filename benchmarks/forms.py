"""The fast form of networks against the plain one on this device: `python benchmarks/forms.py`.

Logits and gradients of a batch in float32, products in full precision; printed is the largest
difference as a share of the largest number, of the logits and of the worst parameter. It should be
rounding alone. `--out` writes them as JSON.
"""

import argparse
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import turns

from resnet_jax import create_model
from resnet_jax.models import image_shape
from resnet_jax.models.lowering import Lowering

NETWORKS = ("cifar_resnet20", "resnet18", "resnet50_v1_5", "vgg11_bn", "googlenet_bn", "alexnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", help="file for the results, as JSON")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.networks.split(","):
        with jax.default_matmul_precision("highest"):
            results[name] = differences(name, arguments.batch)
        print(
            name, ", ".join(f"{of} {value:.1e}" for of, value in results[name].items()), flush=True
        )
    print(json.dumps(results))
    turns.write(arguments.out, results)


def differences(name: str, batch: int) -> dict[str, float]:
    """Returns the largest differences between the forms of a network."""
    images = jax.random.normal(jax.random.key(1), (batch, *image_shape(name)))
    init = jax.jit(functools.partial(create_model(name).init, train=False))
    variables = init(jax.random.key(0), images[:1])

    def outputs(form: Lowering) -> tuple[Any, Any]:
        model = create_model(name, lowering=form)

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            logits, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats", "auxiliary_logits"],
                rngs={"dropout": jax.random.key(2)},
            )
            assert isinstance(logits, jax.Array)
            return jnp.mean(jax.nn.log_softmax(logits)[:, 0]), logits

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    (plain, plain_logits), (fast, fast_logits) = outputs("plain"), outputs("fast")

    def difference(a: jax.Array, b: jax.Array) -> float:
        return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-12))

    gradients = jax.tree.leaves(jax.tree.map(difference, fast, plain))
    return {"logits": difference(fast_logits, plain_logits), "gradients": max(gradients)}


if __name__ == "__main__":
    main()
