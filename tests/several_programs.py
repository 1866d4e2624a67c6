"""One of several processes: is refused, trains, goes on with the other mapping, evaluates.

`python several_programs.py FOLDER FLAGS_OF_A_CONFIG... -- FLAGS_OF_PROCESSES...`. Processes join
once, so that their start is paid once.
"""

import sys

from resnet_jax.cli import evaluate, train
from resnet_jax.errors import InputError

if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    end = arguments.index("--")
    config, processes = arguments[:end], arguments[end + 1 :]
    try:
        train.main([f"--workdir={folder}/full", *config, *processes])
    except InputError as error:
        print("refused:", error, error.on_all_processes)
    run = f"--workdir={folder}/run"
    train.main([run, *config, "--config.total_steps=5"])
    train.main([run, *config, "--config.parallel=shard_map"])
    evaluate.main([run, f"--predictions={folder}/predictions.jsonl"])
