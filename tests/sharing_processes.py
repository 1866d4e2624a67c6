"""One of several processes that share the work of a start.

`python sharing_processes.py FOLDER PORT PROCESSES PROCESS`. It writes `FOLDER/<process>.json`.
"""

import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import parallel
from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import load_source, measure_statistics
from resnet_jax.errors import InputError

NUMBERS = np.random.default_rng(0)
TREE = {
    "uint8": NUMBERS.integers(0, 256, 3, np.uint8),
    "bfloat16": np.asarray(NUMBERS.random((3, 5)), jnp.bfloat16),
    "int64": NUMBERS.integers(2**62, size=(2, 1)),
    "float32": NUMBERS.random((1000, 500), np.float32),
    "bool": np.array(True),
    "float64": NUMBERS.random(4),
}


class Pixels:
    """Images given as an array."""

    image_shape = (4, 4, 3)
    pixels = NUMBERS.integers(0, 256, (9, *image_shape), np.uint8)

    def __init__(self):
        self.indices = []

    def __len__(self):
        return len(self.pixels)

    def read(self, indices):
        self.indices += indices.tolist()
        return self.pixels[indices], indices


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
    images = Pixels()
    with parallel.agree_on_input():
        source = load_source("folder", "train", path=root, once=parallel.once)
        statistics = measure_statistics(images, "pixel", "channel", total=parallel.total)
    folders = [os.path.relpath(folder, root) for folder in [*listed, *scanned]]
    return {
        "listed": [folder for folder in folders if not folder.startswith("..")],
        "keys": [source[index].key for index in range(len(source))],
        "read": images.indices,
        "statistics": [np.asarray(array).tobytes().hex() for array in statistics[:2]],
    }


def bytes_read():
    """Returns how many bytes this process has read from files; 0 where the system does not say."""
    counts = pathlib.Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


def restored(folder):
    """Returns how many bytes a process reads to restore a checkpoint, and a hash of the leaves."""
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), TREE)
    before = bytes_read()
    with Checkpoints(folder, writable=False) as checkpoints:
        step, items, metadata, evaluation = checkpoints.restore("newest", {"tree": template})
    same = jax.tree.map(lambda one, other: one.tobytes() == other.tobytes(), items["tree"], TREE)
    return {
        "read": bytes_read() - before,
        "same": jax.tree.all(same) and all(array.flags.aligned for array in items["tree"].values()),
        "rest": [step, metadata, evaluation],
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
    parallel.processes._CHUNK = 100_000
    number = {"large": 2**53, "letters": "é\udce9" * 1000}
    found = {
        **work(folder / "data"),
        "once": parallel.once(lambda: {**number, "process": process}) == {**number, "process": 0},
        "total": parallel.total(9, lambda share: np.array([sum(share)], np.uint64) << 40).tolist(),
        "restored": restored(folder / "checkpoints"),
        "refused": [refused(process == 0), refused(process == 1), refused(False)],
    }
    (folder / f"{process}.json").write_text(json.dumps(found))
    parallel.once(lambda: 0)
    parallel.leave(0 if lost() else 3)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
