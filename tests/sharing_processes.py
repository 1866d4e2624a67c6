"""One of several processes that share the work of a start.

`python sharing_processes.py FOLDER PORT PROCESSES PROCESS`. It writes `FOLDER/<process>.json`.
"""

import json
import os
import pathlib
import sys

import jax
import numpy as np

from resnet_jax import parallel
from resnet_jax.data import DecodedImages, load_images, measure_statistics
from resnet_jax.errors import InputError


def counted(function, argument):
    """Returns the function, and a list of what it is called with."""
    calls = []

    def instead(*args):
        calls.append(args[argument])
        return function(*args)

    return instead, calls


def work(root):
    """Returns what a process has listed, read and got."""
    os.listdir, listed = counted(os.listdir, 0)
    os.scandir, scanned = counted(os.scandir, 0)
    DecodedImages.read, reads = counted(DecodedImages.read, 1)
    with parallel.agree_on_input():
        images = load_images("folder", "train", 8, path=root, in_memory=False, once=parallel.once)
        statistics = measure_statistics(images, "pixel", "channel", total=parallel.total)
    folders = [os.path.relpath(folder, root) for folder in [*listed, *scanned]]
    return {
        "listed": [folder for folder in folders if not folder.startswith("..")],
        "keys": [images._source[index].key for index in range(len(images))],
        "read": np.concatenate(reads).tolist(),
        "statistics": [np.asarray(array).tobytes().hex() for array in statistics[:2]],
    }


def refused(leaves):
    """Returns the refusal of a process that leaves before the others wait for it, or for others."""
    try:
        with parallel.agree_on_input():
            if leaves:
                raise InputError(f"no data in process {parallel.process_index()}")
            parallel.once(lambda: parallel.process_index())
            parallel.total(9, lambda share: np.array([len(share)], np.uint64))
    except InputError as error:
        return [str(error), error.on_all_processes]


def lost():
    """Ends the primary process in its work; returns whether this one has noticed."""

    def fail():
        raise OSError

    try:
        parallel.once(fail)
    except OSError:
        parallel.leave(1)
    except Exception as error:
        return parallel.lost_process(error)


def main(folder, port, processes, process):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.initialize(f"localhost:{port}", processes, process)
    parallel.processes._CHUNK = 1000
    number = {"large": 2**53, "letters": "é\udce9" * 1000}
    found = {
        **work(folder / "data"),
        "once": parallel.once(lambda: {**number, "process": process}) == {**number, "process": 0},
        "total": parallel.total(9, lambda share: np.array([sum(share)], np.uint64) << 40).tolist(),
        "refused": [refused(process == 0), refused(process == 1), refused(False)],
    }
    if process:
        found["lost"] = lost()
    (folder / f"{process}.json").write_text(json.dumps(found))
    if not process:
        lost()
    parallel.leave(0)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
