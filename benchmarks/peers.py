"""The same step by several libraries: a training step or inference of ResNet-50.

- "ours": the step of `resnet_jax.training` in the fast form; "ours_plain": in the plain form.
- "flax": the network and the steps of flax's ImageNet example: v1.5, `pmap` without donation,
  batch normalisation over all devices, logits in the type of the arithmetic. The example takes
  float16 and a dynamic loss scale on a GPU; here it has bfloat16 without one, as on a TPU.
- "keras": `keras.applications.ResNet50` on the JAX backend (v1, its convolutions have biases),
  through the stateless functions of its guide to training loops in JAX; bfloat16 by its policy
  "mixed_bfloat16".
- "torch": torchvision's network (v1.5), channels last, under autocast, with fused SGD;
  "torch_compiled": the same through `torch.compile`.
- "limit": the multiply-adds of the step as square matrix products by torch, and nothing else; in
  float32 where bfloat16 is slower, as on CPUs without instructions for it.

Images are random, on the device, of the arithmetic's type; ours are uint8, and are normalised in
the step. All descend by SGD with momentum and weight decay.
"""

import argparse
import ast
import functools
import hashlib
import importlib.util
import os
import pathlib
import re
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast


class Bench(NamedTuple):
    """A step that can be timed.

    Attributes:
      platform: "cpu", or the name of another.
      step: Enqueues one step.
      wait: Waits until the device has done all of them.
      peak: Returns the most bytes that the device has had in use, or None; on a CPU, those of the
        process since `forget_peak`.
      digest: Returns a hash of the parameters.
      plan: Returns the bytes that the compiler plans, by name, for compilers that say so.
    """

    platform: str
    step: Callable[[], object]
    wait: Callable[[], object]
    peak: Callable[[], int | None]
    digest: Callable[[], str] = lambda: ""
    plan: Callable[[], dict[str, int]] = dict


def add_options(parser: argparse.ArgumentParser, peers: tuple[str, ...]) -> None:
    """Adds what a bench is built from."""
    parser.add_argument("--peers", default=",".join(peers), help="separated by commas")
    parser.add_argument("--task", choices=("train", "infer"), default="train")
    parser.add_argument("--model", default="resnet50_v1_5", help="of ours; the peers are ResNet-50")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, a field of ours")


def build(peer: str, arguments: argparse.Namespace) -> Bench:
    """Returns the bench of a peer; a library that is not installed ends the process."""
    builder, packages = BUILDERS[peer]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"{package} is missing")
    return builder(arguments, peer)


def forget_peak() -> None:
    """Begins to measure the most memory of this process anew, where Linux can."""
    clear = pathlib.Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_of_process() -> int:
    """Returns the most bytes that this process has had in memory since `forget_peak`."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return 1024 * int(found[1])


def jax_bench(function: Callable, state: Any, *inputs: Any, train: bool) -> Bench:
    """Returns the bench of `(state, *inputs) -> (state, output)` or `(state, *inputs) -> output`.

    The function is compiled by jax: `jax.jit`, `jax.pmap`.
    """
    import jax

    kept = [state, None]

    def step() -> None:
        if train:
            kept[0], kept[1] = function(kept[0], *inputs)
        else:
            kept[1] = function(kept[0], *inputs)

    def peak() -> int | None:
        stats = jax.local_devices()[0].memory_stats()
        return peak_of_process() if stats is None else stats.get("peak_bytes_in_use")

    def digest() -> str:
        leaves = jax.tree.leaves(jax.device_get(kept[0] if train else kept[1]))
        return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]

    def plan() -> dict[str, int]:
        mapped = cast(Any, function)
        if hasattr(mapped, "compile"):  # ours compiles with options of its own
            planned = mapped.compile(state, *inputs).memory_analysis()
        else:
            planned = mapped.lower(state, *inputs).compile().memory_analysis()
        if planned is None:
            return {}
        return {
            "arguments": planned.argument_size_in_bytes,
            "outputs": planned.output_size_in_bytes - planned.alias_size_in_bytes,
            "temporaries": planned.temp_size_in_bytes,
        }

    wait = functools.partial(jax.block_until_ready, kept)
    return Bench(jax.default_backend(), step, wait, peak, digest, plan)


def build_ours(arguments: argparse.Namespace, peer: str) -> Bench:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from resnet_jax import config as configs
    from resnet_jax import create_model
    from resnet_jax.data import Statistics, preprocess
    from resnet_jax.models import apply_folded, compiler_options
    from resnet_jax.parallel import AXIS, Replicas
    from resnet_jax.training.optimizer import make_optimizer
    from resnet_jax.training.schedules import make_schedule
    from resnet_jax.training.state import init_state
    from resnet_jax.training.step import make_train_step

    config = configs.base_config()
    fields: dict[str, Any] = {"lowering": "plain" if peer == "ours_plain" else "fast"}
    for item in arguments.set:
        key, value = item.split("=", 1)
        try:
            fields[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fields[key] = value
    options = compiler_options(fields["lowering"], configs.DTYPES[arguments.dtype])
    replicas = Replicas(fields.pop("parallel", "pmap"), compiler_options=options)
    model = create_model(
        arguments.model, dtype=configs.DTYPES[arguments.dtype], bn_axis_name=AXIS, **fields
    )
    shape = (arguments.size, arguments.size, 3)
    optimizer = make_optimizer(config.optimizer)
    state = init_state(model, optimizer, shape, 0)
    statistics = Statistics(np.full(3, 120.0, np.float32), np.full(3, 60.0, np.float32), None)
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (arguments.batch, *shape), np.uint8),
        "label": random.integers(0, model.num_classes, arguments.batch).astype(np.int32),
    }
    if arguments.task == "train":
        batch["flip"] = random.integers(0, 2, arguments.batch) == 1
        step = make_train_step(
            model,
            optimizer,
            make_schedule(config.schedule, config.total_steps),
            statistics,
            padding=0,
            label_smoothing=0.0,
            frozen=(),
            seed=0,
        )
        mapped, state = replicas.map(step, donate=True), replicas.place(state)
        return jax_bench(mapped, state, replicas.shard(batch), train=True)

    def infer(variables: Any, batch: Any) -> jax.Array:
        images = preprocess(batch, statistics, padding=0)
        logits = (
            apply_folded(model, variables, images)
            if fields["lowering"] == "fast"
            else model.apply(variables, images, train=False)
        )
        return jax.lax.all_gather(jnp.argmax(cast(jax.Array, logits), -1), AXIS, tiled=True)

    mapped, variables = replicas.map(infer), replicas.place(state.variables)
    return jax_bench(mapped, variables, replicas.shard(batch), train=False)


def build_flax(arguments: argparse.Namespace, peer: str) -> Bench:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn
    from flax.training import train_state
    from jax import lax

    dtype = jnp.dtype(arguments.dtype)
    conv = functools.partial(nn.Conv, use_bias=False, dtype=dtype)

    class Bottleneck(nn.Module):
        filters: int
        stride: int
        norm: Callable

        @nn.compact
        def __call__(self, x):
            norm = self.norm
            y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
            y = nn.relu(norm()(conv(self.filters, (3, 3), (self.stride,) * 2)(y)))
            y = norm(scale_init=nn.initializers.zeros_init())(conv(4 * self.filters, (1, 1))(y))
            if x.shape != y.shape:
                x = norm()(conv(4 * self.filters, (1, 1), (self.stride,) * 2)(x))
            return nn.relu(x + y)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            norm = functools.partial(
                nn.BatchNorm,
                use_running_average=not train,
                momentum=0.9,
                dtype=dtype,
                axis_name="batch",
            )
            x = conv(64, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(x)
            x = nn.max_pool(nn.relu(norm()(x)), (3, 3), (2, 2), padding="SAME")
            for i, blocks in enumerate((3, 4, 6, 3)):
                for j in range(blocks):
                    x = Bottleneck(64 * 2**i, 2 if i > 0 and j == 0 else 1, norm)(x)
            return nn.Dense(1000, dtype=dtype)(x.mean(axis=(1, 2)))

    class State(train_state.TrainState):
        batch_stats: Any

    network, devices, key = Network(), jax.local_device_count(), jax.random.key(0)
    shape = (devices, arguments.batch // devices, arguments.size, arguments.size, 3)
    batch = (
        jax.random.normal(key, shape, dtype),
        jax.random.randint(key, shape[:2], 0, 1000),
    )
    variables = jax.jit(functools.partial(network.init, train=False))(key, batch[0][0, :1])
    schedule = optax.cosine_decay_schedule(0.1, 450_000)
    state = State.create(
        apply_fn=network.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(schedule, momentum=0.9, nesterov=True),
    )

    def loss_and_accuracy(logits, labels):
        loss = optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 1000)).mean()
        return loss, jnp.mean(jnp.argmax(logits, -1) == labels)

    def evaluate(state, batch):
        images, labels = batch
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = state.apply_fn(variables, images, train=False)
        return lax.pmean(loss_and_accuracy(logits, labels), "batch")

    def step(state, batch):
        images, labels = batch

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updates = state.apply_fn(variables, images, train=True, mutable="batch_stats")
            loss, _ = loss_and_accuracy(logits, labels)
            decay = sum(jnp.sum(x**2) for x in jax.tree.leaves(params) if x.ndim > 1)
            return loss + 0.5 * 1e-4 * decay, (logits, updates["batch_stats"])

        (_, (logits, stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        grads, stats = lax.pmean(grads, "batch"), lax.pmean(stats, "batch")
        metrics = lax.pmean(loss_and_accuracy(logits, labels), "batch")
        metrics = (*metrics, schedule(state.step))
        return state.apply_gradients(grads=grads, batch_stats=stats), metrics

    if arguments.task == "infer":
        mapped = jax.pmap(evaluate, in_axes=(None, 0), axis_name="batch")
        return jax_bench(mapped, state, batch, train=False)
    mapped = jax.pmap(step, in_axes=(None, 0), out_axes=(None, 0), axis_name="batch")
    return jax_bench(mapped, state, batch, train=True)


def build_keras(arguments: argparse.Namespace, peer: str) -> Bench:
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    if arguments.dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    shape = (arguments.size, arguments.size, 3)
    network = keras.applications.ResNet50(
        weights=None, input_shape=shape, classifier_activation=None
    )
    loss_of_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4)
    optimizer.build(network.trainable_variables)
    key = jax.random.key(0)
    images = jax.random.normal(key, (arguments.batch, *shape), arguments.dtype)
    labels = jax.random.randint(key, (arguments.batch,), 0, 1000)

    def values(variables):
        return [variable.value for variable in variables]

    def infer(state, images):
        return network.stateless_call(*state, images, training=False)[0].argmax(-1)

    def step(state, images, labels):
        params, others, opt_state = state

        def loss_of(params):
            logits, updates = network.stateless_call(params, others, images, training=True)
            return loss_of_logits(labels, logits), updates

        (loss, others), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        params, opt_state = optimizer.stateless_apply(opt_state, grads, params)
        return (params, others, opt_state), loss

    state = (values(network.trainable_variables), values(network.non_trainable_variables))
    if arguments.task == "infer":
        return jax_bench(jax.jit(infer), state, images, train=False)
    state = (*state, values(optimizer.variables))
    return jax_bench(jax.jit(step, donate_argnums=0), state, images, labels, train=True)


def build_torch(arguments: argparse.Namespace, peer: str) -> Bench:
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    network = torchvision.models.resnet50().to(device).to(memory_format=torch.channels_last)  # pyrefly: ignore
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (arguments.batch,), device=device)
    half = arguments.dtype == "bfloat16"
    forward = torch.compile(network) if peer == "torch_compiled" else network

    def infer() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            return forward(images).argmax(1)

    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def train() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    if arguments.task == "infer":
        network.eval()
    return torch_bench(train if arguments.task == "train" else infer, device)


def build_limit(arguments: argparse.Namespace, peer: str) -> Bench:
    import torch

    from resnet_jax import create_model, summarize

    device = "cuda" if torch.cuda.is_available() else "cpu"
    image_shape = (arguments.size, arguments.size, 3)
    multiply_adds = summarize(create_model(arguments.model), image_shape).multiply_adds
    multiply_adds *= arguments.batch * (3 if arguments.task == "train" else 1)
    side = 8192 if device == "cuda" else 1024
    matrix = torch.randn(side, side, device=device)
    matrices = [matrix, matrix.to(getattr(torch, arguments.dtype))]

    def products(matrix: torch.Tensor, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for matrix in matrices:
        products(matrix, 1)
    fastest = min(matrices, key=lambda matrix: products(matrix, 3))
    count = max(1, round(multiply_adds / side**3))
    return torch_bench(functools.partial(products, fastest, count), device)


def torch_bench(step: Callable[[], object], device: str) -> Bench:
    """Returns the bench of a step of torch."""
    import torch

    if device == "cuda":
        return Bench(device, step, torch.cuda.synchronize, torch.cuda.max_memory_allocated)
    return Bench(device, step, lambda: None, peak_of_process)


BUILDERS: dict[str, tuple[Callable[[argparse.Namespace, str], Bench], tuple[str, ...]]] = {
    "ours": (build_ours, ("jax",)),
    "ours_plain": (build_ours, ("jax",)),
    "flax": (build_flax, ("flax",)),
    "keras": (build_keras, ("keras",)),
    "torch": (build_torch, ("torch", "torchvision")),
    "torch_compiled": (build_torch, ("torch", "torchvision")),
    "limit": (build_limit, ("torch",)),
}
"""The builder of each peer, and the packages that it needs."""
