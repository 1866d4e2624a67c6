"""A training step or inference on one batch, beside peers: `python benchmarks/step.py`.

    python benchmarks/step.py --task train --dtype bfloat16 --batch 256 --peers ours,flax,torch

The peers: "ours", the step of `resnet_jax.training`; "flax", the network and the step of flax's
ImageNet example (v1.5, batch normalisation per device); "torch", torchvision's network, channels
last, under autocast, and "torch_compiled", the same through `torch.compile`; both with fused SGD.
Each runs in a process of its own on a batch that is on the device, with 32-bit products as the
framework makes them by default. The time is the median over parts of about half a second; the first
call, which compiles, is shown apart. Processor time is summed over all threads: on a CPU that
others use too, trust it alone. A peer that is not installed is said to be missing.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

PEERS = ("ours", "flax", "torch", "torch_compiled")


class Bench(NamedTuple):
    """A step that can be timed.

    Attributes:
      step: Enqueues one step.
      wait: Waits until the device has done all of them.
      peak: Returns the most bytes that the device has had in use, or None.
      digest: Returns a hash of the parameters.
    """

    step: Callable[[], object]
    wait: Callable[[], object]
    peak: Callable[[], int | None]
    digest: Callable[[], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas")
    parser.add_argument("--task", choices=("train", "infer"), default="train")
    parser.add_argument("--model", default="resnet50_v1_5", help="of ours; the peers are ResNet-50")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--seconds", type=float, default=10, help="of timing, a peer")
    parser.add_argument("--steps", type=int, help="exactly so many steps after the first")
    parser.add_argument("--profile", help="folder for a profile of five steps (ours, flax)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, a field of ours")
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--lock", help="file that whoever uses the device holds")
    parser.add_argument("--one", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    peers = arguments.peers.split(",")
    if arguments.one:
        print(json.dumps(measure(peers[0], arguments)))
        return
    results = []
    for peer in peers:
        results.append(in_a_process(peer, sys.argv[1:]))
        print(describe(results[-1], results[0]), flush=True)
        if arguments.out:
            pathlib.Path(arguments.out).write_text(json.dumps(results, indent=1))


def in_a_process(peer: str, options: list[str], timeout: float | None = None) -> dict[str, Any]:
    """Returns the measurement of a peer, or why there is none."""
    command = [sys.executable, __file__, *options, "--peers", peer, "--one"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"peer": peer, "options": options, "failed": f"not done in {timeout:.0f} s"}
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        return {"peer": peer, "options": options, "failed": reason, "log": done.stderr[-2000:]}
    return {**json.loads(done.stdout.splitlines()[-1]), "options": options}


def describe(result: dict[str, Any], ours: dict[str, Any]) -> str:
    """Returns a line of the table; the ratio is that of the first line's images a second."""
    name = f"{result['peer']:15}"
    if "failed" in result:
        return f"{name} {result['failed']}"
    ratio = ours.get("images_per_second", float("nan")) / result["images_per_second"]
    peak = result["peak_bytes"]
    return (
        f"{name} {result['milliseconds']:9.2f} ms  {result['images_per_second']:9.1f} images/s  "
        f"{result['processor_seconds']:7.3f} processor s  first call {result['first_call']:5.1f} s"
        f"  {'' if peak is None else f'{peak / 2**30:6.2f} GiB'}  ratio {ratio:.3f}"
    )


def measure(peer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times one peer in this process."""
    if importlib.util.find_spec("torch" if peer.startswith("torch") else "flax") is None:
        raise SystemExit(f"{peer} is missing")
    start = time.perf_counter()
    build = {"ours": build_ours, "flax": build_flax}.get(peer, build_torch)
    bench = build(arguments, peer)
    with contextlib.ExitStack() as stack:
        if arguments.lock and peer != "torch_compiled":  # its compiler hardly uses the device
            stack.enter_context(taken(arguments.lock))
        built = time.perf_counter()
        bench.step()
        bench.wait()
        first = time.perf_counter() - built
        if arguments.lock and peer == "torch_compiled":
            stack.enter_context(taken(arguments.lock))
        return timed(bench, arguments, peer) | {"built": built - start, "first_call": first}


@contextlib.contextmanager
def taken(path: str) -> Iterator[None]:
    """Holds the lock of the device."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timed(bench: Bench, arguments: argparse.Namespace, peer: str) -> dict[str, Any]:
    for _ in range(3):
        bench.step()
    bench.wait()
    parts, deadline = [], time.perf_counter() + arguments.seconds
    length = 1
    while (arguments.steps is None and time.perf_counter() < deadline) or not parts:
        length = arguments.steps or length
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(length):
            bench.step()
        bench.wait()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        parts.append((wall / length, processor / length))
        length = max(1, min(1000, round(0.5 * length / wall)))
    if arguments.profile:
        import jax

        with jax.profiler.trace(arguments.profile):
            for _ in range(5):
                bench.step()
            bench.wait()
    seconds = statistics.median(part[0] for part in parts[len(parts) > 1 :])
    return {
        "peer": peer,
        "task": arguments.task,
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "size": arguments.size,
        "milliseconds": 1e3 * seconds,
        "images_per_second": arguments.batch / seconds,
        "processor_seconds": statistics.median(part[1] for part in parts[len(parts) > 1 :]),
        "parts": len(parts),
        "spread": [1e3 * min(parts)[0], 1e3 * max(parts)[0]],
        "peak_bytes": bench.peak(),
        "digest": bench.digest(),
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


def jax_bench(step: Callable, state: Any, *, train: bool) -> Bench:
    """Returns the bench of `step(state) -> (state, output)` or `step(state) -> output`."""
    import jax

    kept = [state, None]

    def once() -> None:
        if train:
            kept[0], kept[1] = step(kept[0])
        else:
            kept[1] = step(kept[0])

    def peak() -> int | None:
        of = jax.local_devices()[0].memory_stats()
        return (
            1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if of is None
            else of.get("peak_bytes_in_use")
        )

    def digest() -> str:
        leaves = jax.tree.leaves(jax.device_get(kept[0] if train else kept[1]))
        return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()[:16]

    return Bench(once, lambda: jax.block_until_ready(kept), peak, digest)


def build_ours(arguments: argparse.Namespace, peer: str) -> Bench:
    import ast

    import jax
    import jax.numpy as jnp
    import numpy as np

    from resnet_jax import config as configs
    from resnet_jax import create_model
    from resnet_jax.data import Statistics, preprocess
    from resnet_jax.parallel import AXIS, Replicas
    from resnet_jax.training.optimizer import make_optimizer
    from resnet_jax.training.schedules import make_schedule
    from resnet_jax.training.state import init_state
    from resnet_jax.training.step import make_train_step

    config = configs.base_config()
    fields = {}
    for item in arguments.set:
        key, value = item.split("=", 1)
        try:
            fields[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fields[key] = value
    replicas = Replicas(fields.pop("parallel", "pmap"))
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
        batch = replicas.shard(batch)
        return jax_bench(lambda state: mapped(state, batch), state, train=True)

    def infer(variables: Any, batch: Any) -> jax.Array:
        images = preprocess(batch, statistics, padding=0)
        logits = model.apply(variables, images, train=False)
        return jax.lax.all_gather(jnp.argmax(cast(jax.Array, logits), -1), AXIS, tiled=True)

    mapped, variables = replicas.map(infer), replicas.place(state.variables)
    batch = replicas.shard(batch)
    return jax_bench(lambda variables: mapped(variables, batch), variables, train=False)


def build_flax(arguments: argparse.Namespace, peer: str) -> Bench:
    import functools

    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn

    dtype = jnp.dtype(arguments.dtype)
    conv = functools.partial(nn.Conv, use_bias=False, dtype=dtype)

    class Bottleneck(nn.Module):
        filters: int
        stride: int

        @nn.compact
        def __call__(self, x, train):
            norm = functools.partial(
                nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=dtype
            )
            y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
            y = nn.relu(norm()(conv(self.filters, (3, 3), (self.stride,) * 2)(y)))
            y = norm(scale_init=nn.initializers.zeros_init())(conv(4 * self.filters, (1, 1))(y))
            if x.shape != y.shape:
                x = norm()(conv(4 * self.filters, (1, 1), (self.stride,) * 2)(x))
            return nn.relu(x + y)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = conv(64, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(x.astype(dtype))
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=dtype)(x)
            x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), padding="SAME")
            for i, blocks in enumerate((3, 4, 6, 3)):
                for j in range(blocks):
                    x = Bottleneck(64 * 2**i, 2 if i > 0 and j == 0 else 1)(x, train)
            x = nn.Dense(1000, dtype=dtype)(x.mean(axis=(1, 2)))
            return x.astype(jnp.float32)

    network = Network()
    key = jax.random.key(0)
    images = jax.random.normal(key, (arguments.batch, arguments.size, arguments.size, 3), dtype)
    labels = jax.random.randint(key, (arguments.batch,), 0, 1000)
    variables = jax.jit(functools.partial(network.init, train=False))(key, images[:1])
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    if arguments.task == "infer":
        infer = jax.jit(lambda v: cast(jax.Array, network.apply(v, images, train=False)).argmax(-1))
        return jax_bench(infer, variables, train=False)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, images, labels):
        params, stats, opt_state = state

        def loss_of(params):
            logits, updates = network.apply(
                {"params": params, "batch_stats": stats}, images, train=True, mutable="batch_stats"
            )
            loss = optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 1000)).mean()
            decay = sum(jnp.sum(x**2) for x in jax.tree.leaves(params) if x.ndim > 1)
            return loss + 0.5 * 1e-4 * decay, (logits, updates["batch_stats"])

        (loss, (logits, new_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        error = jnp.mean(jnp.argmax(logits, -1) != labels)
        return (optax.apply_updates(params, updates), new_stats, opt_state), (loss, error)

    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    return jax_bench(lambda state: step(state, images, labels), state, train=True)


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

    def peak() -> int:
        if device == "cuda":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    if arguments.task == "infer":
        network.eval()
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    return Bench(train if arguments.task == "train" else infer, wait, peak, lambda: "")


if __name__ == "__main__":
    main()
