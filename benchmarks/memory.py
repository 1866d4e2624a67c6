"""Memory of a training step as the compiler plans it, beside peers: `python benchmarks/memory.py`.

    python benchmarks/memory.py --dtype float32 --batch 16 --out memory.json

Nothing runs: each step is compiled, in a process of its own, and the compiler says how many bytes
the arguments (state and batch), the outputs (of a step that may not overwrite its state) and the
temporaries (activations that are kept for the gradients, above all) need; their sum is the peak. It
is exact on an accelerator that does nothing else. "ratio" is a peer's sum over that of ours; the
limit is the arguments alone. The memory that a process has taken when the step has run is printed
by `step.py`, also for libraries without such a plan.
"""

import argparse
import functools
import json
import sys

import peers
import turns
from turns import Result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers.add_options(parser, ("ours", "ours_plain", "flax", "keras"))
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.peers.split(",")
    if arguments.one:
        print(json.dumps(peers.build(names[0], arguments).plan()))
        return
    command = [sys.executable, __file__, *sys.argv[1:]]
    jobs = {
        name: functools.partial(turns.measure, [*command, "--peers", name, "--one"])
        for name in names
    }
    results = turns.by_turns(jobs, 1, describe)
    print(comparison(results))
    turns.write(arguments.out, results)


def describe(peer: str, result: Result) -> str:
    """Returns a line about a peer's plan, in MB."""
    if "failed" in result:
        return f"{peer}: {result['failed']}"
    return f"{peer}: " + ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in result.items())


def comparison(results: dict[str, Result]) -> str:
    """Returns the table of the sums."""
    rows = [["", "peak MB", "limit MB", "ratio"]]
    sums = {name: sum(plan.values()) for name, plan in results.items() if "failed" not in plan}
    for name, size in sums.items():
        ratio = size / next(iter(sums.values()))
        limit = results[name]["arguments"]
        rows.append([name, f"{size / 1e6:,.0f}", f"{limit / 1e6:,.0f}", f"{ratio:.2f}"])
    return turns.table(rows)


if __name__ == "__main__":
    main()
