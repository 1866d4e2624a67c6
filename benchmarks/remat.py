"""Memory of a training step with and without `remat`, as planned by this machine's compiler.

`python benchmarks/remat.py [resnet50 [IMAGES [PIXELS]]]`. The step is compiled and not run. XLA's
compiler for CPUs removes the barriers of the rematerialisation and so undoes it; there the figures
are printed with this pass turned off, too.
"""

import functools
import sys

import jax
import jax.numpy as jnp

import resnet_jax

BARRIERS_STAY: dict[str, bool | str] = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def temporary_bytes(model, images, options):
    """Returns the bytes that a training step's gradients need beside arguments and results."""
    variables = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), images
    )

    @jax.grad
    def gradients(params, stats, images):
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        return jax.nn.logsumexp(logits, axis=-1).mean()

    step = jax.jit(gradients).lower(variables["params"], variables["batch_stats"], images)
    analysis = step.compile(options).memory_analysis()
    assert analysis is not None, "this compiler does not say"
    return analysis.temp_size_in_bytes


def main(name="resnet50", batch="8", pixels="224"):
    images = jax.ShapeDtypeStruct((int(batch), int(pixels), int(pixels), 3), jnp.float32)
    platform = jax.default_backend()
    compilers: dict[str, dict[str, bool | str] | None] = {platform: None}
    if platform == "cpu":
        compilers["cpu, barriers kept"] = BARRIERS_STAY
    for compiler, options in compilers.items():
        for remat in (False, True):
            model = resnet_jax.create_model(name, remat=remat)
            size = temporary_bytes(model, images, options) / 1e6
            print(f"{compiler}: {name}, {batch} images, remat={remat}: {size:,.0f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
