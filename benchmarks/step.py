"""A training step or inference on one batch, beside peers: `python benchmarks/step.py`.

    python benchmarks/step.py --task train --dtype float32 --batch 16 --turns 3 --out step.json

The peers are those of `peers.py`. Each runs in a process of its own on a batch that is on the
device, with 32-bit products as the library makes them by default; they take turns, and the medians
over the turns are printed. A turn's time is the median over parts of about half a second; the first
call, which compiles, is shown apart, and the compiled programs of jax are kept from turn to turn.
Processor time is summed over all threads: on a CPU that others use too, trust it alone. "ratio"
is a peer's time over that of the first peer, on a CPU of the processor, elsewhere by the
clock; for "limit" it is how far the first is from it. A peer that is missing is said to be missing.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time

import peers
import turns
from turns import Result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers.add_options(parser, tuple(peers.BUILDERS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of timing, a peer and turn")
    parser.add_argument("--steps", type=int, help="exactly so many steps after the first")
    parser.add_argument("--profile", help="folder for a profile of five steps (of jax)")
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.peers.split(",")
    if arguments.one:
        print(json.dumps(measure(names[0], arguments)))
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        jobs = {name: functools.partial(in_a_process, name, sys.argv[1:]) for name in names}
        results = turns.by_turns(jobs, arguments.turns, lambda name, result: describe(result))
    for result in results.values():
        if "turns" in result:
            result["first_call"] = result["turns"][0]["first_call"]
    print(comparison(results))
    turns.write(arguments.out, results)


def in_a_process(peer: str, options: list[str], timeout: float | None = None) -> Result:
    """Returns the measurement of a peer, or why there is none."""
    command = [sys.executable, __file__, *options, "--peers", peer, "--one"]
    return {"peer": peer, "options": options, **turns.measure(command, timeout=timeout)}


def describe(result: Result) -> str:
    """Returns a line about a measurement."""
    name = f"{result['peer']:15}"
    if "failed" in result:
        return f"{name} {result['failed']}"
    peak = result["peak_bytes"]
    return (
        f"{name} {result['milliseconds']:9.2f} ms  {result['images_per_second']:9.1f} images/s  "
        f"{result['processor_seconds']:7.3f} processor s  first call {result['first_call']:5.1f} s"
        f"  {'' if peak is None else f'{peak / 2**30:6.2f} GiB'}"
    )


def comparison(results: dict[str, Result]) -> str:
    """Returns the table of the medians, and each peer's time over that of the first."""
    rows = [["", "ms", "images/s", "processor s", "first call s", "peak GiB", "ratio"]]
    ours = next(iter(results.values()))
    for name, result in results.items():
        if "failed" in result:
            rows.append([name, *["-"] * 5, result["failed"][:40]])
            continue
        kind = "processor_seconds" if result["platform"] == "cpu" else "milliseconds"
        ratio = result[kind] / ours[kind] if kind in ours else float("nan")
        rows.append(
            [
                name,
                f"{result['milliseconds']:.2f}",
                f"{result['images_per_second']:.1f}",
                f"{result['processor_seconds']:.3f}",
                f"{result['first_call']:.1f}",
                f"{(result['peak_bytes'] or float('nan')) / 2**30:.2f}",
                f"{ratio:.2f}",
            ]
        )
    return turns.table(rows)


def measure(peer: str, arguments: argparse.Namespace) -> Result:
    """Times one peer in this process."""
    start = time.perf_counter()
    bench = peers.build(peer, arguments)
    built = time.perf_counter()
    bench.step()
    bench.wait()
    first = time.perf_counter() - built
    peers.forget_peak()
    return timed(bench, arguments, peer) | {"built": built - start, "first_call": first}


def timed(bench: peers.Bench, arguments: argparse.Namespace, peer: str) -> Result:
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
        "platform": bench.platform,
        "milliseconds": 1e3 * seconds,
        "images_per_second": arguments.batch / seconds,
        "processor_seconds": statistics.median(part[1] for part in parts[len(parts) > 1 :]),
        "parts": len(parts),
        "spread": [1e3 * min(parts)[0], 1e3 * max(parts)[0]],
        "peak_bytes": bench.peak(),
        "digest": bench.digest(),
        "flags": os.environ.get("XLA_FLAGS", ""),
    }


if __name__ == "__main__":
    main()
