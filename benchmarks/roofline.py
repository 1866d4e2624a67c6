"""FLOPs and bytes of the roofline beside XLA's own count: `python benchmarks/roofline.py`.

    python benchmarks/roofline.py --out benchmarks/results/roofline_cpu.json

Inference and training step (gradients, batch statistics, SGD with momentum) of each network are
lowered and compiled for this machine's device, and not run. XLA's FLOPs are those of the lowered
program; it counts arithmetic on each element too, but no multiply-adds on padding, so that the
ratio is that of ours without those. XLA's bytes are the operands and results of each fused kernel
of the compiled program. They depend on what the compiler fuses: the ratio says how far its program
is from the fewest bytes, not how good the count is. On a CPU it can be above 1: YNNPACK takes a
whole network without batch normalisation as one kernel, whose activations XLA does not count.
"""

import argparse
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

import resnet_jax
from resnet_jax.analysis import Layer
from resnet_jax.analysis.roofline import DEVICES, DType, Roofline
from resnet_jax.models import image_shape, variable_shapes

NETWORKS = ("cifar_resnet20", "resnet18", "resnet50_v1_5", "vgg11", "bn_inception")
COLUMNS = {"flops": 1e9, "inner_flops": 1e9, "xla_flops": 1e9, "bytes": 1e6, "xla_bytes": 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by commas")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", help="file for the results, as JSON")
    given = parser.parse_args()
    heads = ("GFLOP", "no padding", "XLA", "ratio", "MB", "XLA", "ratio")
    print(f"{'':25}", *(f"{head:>10}" for head in heads))
    results = []
    for name in given.networks.split(","):
        for train in (False, True):
            results.append(result := compare(name, given.batch, given.dtype, train=train))
            cells = [f"{result[key] / unit:10,.3f}" for key, unit in COLUMNS.items()]
            cells.insert(3, f"{result['inner_flops'] / result['xla_flops']:10.4f}")
            cells.append(f"{result['bytes'] / result['xla_bytes']:10.3f}")
            print(f"{name:15}{result['task']:10}", *cells, flush=True)
            if given.out:
                pathlib.Path(given.out).write_text(json.dumps(results, indent=1))


def inner_share(layer: Layer) -> float:
    """Returns the share of a convolution's multiply-adds that are not on padding."""
    share = 1.0
    if layer.kind == "conv" and layer.filter is not None:
        for axis in (0, 1):
            first, step = -layer.padding[axis][0], layer.stride[axis]
            pixels = [
                first + i * step + j * layer.dilation[axis]
                for i in range(layer.output[axis])
                for j in range(layer.filter[axis])
            ]
            share *= sum(0 <= pixel < layer.input[axis] for pixel in pixels) / len(pixels)
    return share


def compare(name: str, batch: int, dtype: DType, *, train: bool) -> dict[str, Any]:
    """Returns both counts for a network."""
    shape = image_shape(name)
    model = resnet_jax.create_model(name, dtype=jnp.dtype(dtype))
    roofline = Roofline(resnet_jax.summarize(model, shape), DEVICES["h100"], batch, dtype, train)
    variables = variable_shapes(model, shape)
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(variables, state, images):
        def loss_of(params):
            logits, updates = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return jax.nn.logsumexp(logits, axis=-1).mean(), updates

        gradients, stats = jax.grad(loss_of, has_aux=True)(variables["params"])
        changes, state = optimizer.update(gradients, state)
        return optax.apply_updates(variables["params"], changes), state, stats

    if train:
        state = jax.eval_shape(optimizer.init, variables["params"])
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(variables, state, images)
    else:
        lowered = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images)
    before, after = lowered.cost_analysis(), lowered.compile().cost_analysis()
    assert before is not None, "this compiler does not count"
    assert after is not None, "this compiler does not count"
    share = {layer.name: inner_share(layer) for layer in roofline.summary.layers}
    return {
        "network": name,
        "image_shape": shape,
        "batch": batch,
        "dtype": dtype,
        "task": roofline.task.split(",")[0],
        "platform": jax.default_backend(),
        "jax": jax.__version__,
        "flops": sum(o.flops for o in roofline.operations),
        "inner_flops": sum(o.flops * share.get(o.layer, 1) for o in roofline.operations),
        "xla_flops": before["flops"],
        "xla_compiled_flops": after["flops"],
        "bytes": sum(o.bytes for o in roofline.operations),
        "xla_bytes": after["bytes accessed"],
        "xla_lowered_bytes": before["bytes accessed"],
    }


if __name__ == "__main__":
    main()
