import json
import os
import pathlib
import subprocess
import sys

import pytest

from resnet_jax.data import read_ledger
from tests.data.decoding import fuzz

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="only Linux says how much memory there is"
)


def check(seed, count, folder, timeout):
    """Lets a process with little memory read damaged images."""
    root = pathlib.Path(fuzz.__file__).parents[3]
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.data.decoding.fuzz",
            str(seed),
            str(count),
            str(folder / "ledger"),
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=root,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert 0.3 * count < len(result["refused"]) < count
    assert result["slowest"] < 5
    entries = read_ledger(folder / "ledger")
    assert [entry["index"] for entry in entries] == result["refused"]
    assert all(entry["key"] and entry["error"] for entry in entries)


def test_damaged_images_end_in_the_ledger(tmp_path):
    check(seed=0, count=150, folder=tmp_path, timeout=100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_damaged_images_end_in_the_ledger(tmp_path, seed):
    check(seed, count=10_000, folder=tmp_path, timeout=1000)
