"""An error of reading is not damage: it is tried again, then ends the run, and moves nothing."""

import builtins
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.cli import train as cli
from resnet_jax.errors import InputError
from resnet_jax.training import train
from tests import tiny
from tests.checkpoints.trees import SMALL, assert_same, flip, listing, small, steps
from tests.faults import Fault
from tests.tiny import SELDOM, tiny_config

READS = {
    "manifest": (builtins, "open", "checkpoints/20/manifest.json"),
    "another manifest": (builtins, "open", "checkpoints/10/manifest.json"),
    "arrays": (builtins, "open", "checkpoints/20/variables/manifest.ocdbt"),
    "directory": (os, "listdir", "checkpoints"),
}


def forbidden(*_):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture
def break_reading(monkeypatch) -> Callable[..., None]:
    """Lets a kind of reading fail for a number of times."""
    monkeypatch.setattr(manifests, "_WAITS", (0.0, 0.0, 0.0))

    def break_reading(what: str, number: int = errno.EIO, times: int = 1000) -> None:
        module, function, end = READS[what]
        original = getattr(module, function)
        failures = iter(range(times))

        def read(path, *args, **kwargs):
            if str(path).endswith(end) and next(failures, None) is not None:
                raise OSError(number, os.strerror(number), str(path))
            return original(path, *args, **kwargs)

        monkeypatch.setattr(module, function, read)

    return break_reading


@pytest.mark.parametrize("what", READS)
@pytest.mark.parametrize("times", [1, 3])
def test_an_error_that_passes_changes_nothing(what, times, pair, break_reading, logged):
    before = listing(pair)
    break_reading(what, times=times)
    with Checkpoints(pair, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
    assert checkpoint is not None
    assert_same(checkpoint.items, small(20))
    assert (listing(pair), logged) == (before, [])


LASTING = [(what, errno.EIO) for what in READS]
LASTING += [("arrays", number) for number in (errno.ESTALE, errno.ETIMEDOUT)]


@pytest.mark.parametrize(("what", "number"), LASTING)
def test_an_error_that_stays_is_refused_and_moves_nothing(
    what, number, pair, monkeypatch, break_reading, logged
):
    before = listing(pair)
    break_reading(what, number)
    with pytest.raises(OSError, match="no checkpoint was moved or deleted") as error:  # noqa: SIM117
        with Checkpoints(pair, log=logged.append) as checkpoints:
            checkpoints.restore("newest", SMALL)
    monkeypatch.undo()
    assert error.value.errno == number
    assert f"cannot be read ({os.strerror(number)})" in str(error.value)
    assert str(pair) in str(error.value)
    assert (listing(pair), logged) == (before, [])


@pytest.mark.parametrize("what", ["manifest", "arrays"])
def test_one_without_permission_is_passed_over(what, pair, monkeypatch, break_reading, logged):
    break_reading(what, errno.EACCES)
    aside = f"{pair}/set_aside/20-1"
    with Checkpoints(pair, log=logged.append) as checkpoints:
        with pytest.raises(InputError, match=r"checkpoint 20 cannot be read .*; there is 10"):
            checkpoints.restore(20, SMALL)
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(10))
        assert logged == [
            f"checkpoint 20 cannot be read (permission denied): set aside as {aside}; "
            "checkpoint 10 is used"
        ]
        monkeypatch.undo()
        checkpoints.save(20, small(20), {}, metric=None)
    assert steps(pair) == ["10", "20"]


def test_another_users_folder_stays_beside_the_others(pair, monkeypatch, break_reading, logged):
    break_reading("arrays", errno.EACCES)
    Fault("os:rename", "*/20|*/set_aside/*", forbidden).inject()
    with Checkpoints(pair, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert checkpoint.step == 10
        monkeypatch.undo()
        checkpoints.save(20, small(20), {}, metric=None)
    assert steps(pair) == ["10", "20"]
    assert (pair / "set_aside-20").is_dir()


def test_none_is_deleted_while_one_cannot_be_read(pair, monkeypatch, break_reading):
    with Checkpoints(pair, keep_newest=1, keep_best=0) as checkpoints:
        break_reading("another manifest")
        checkpoints.save(30, small(30), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 30]
        monkeypatch.undo()
        checkpoints.save(40, small(40), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [40]


@pytest.fixture
def damaged(pair: Path) -> Path:
    """No good checkpoint is left, and nothing but the damaged ones says that there were any."""
    (pair / "newest.json").unlink()
    for step in ("10", "20"):
        flip(pair / step / "commit_success.txt", 0)
    return pair


def damaged_since(pair: Path) -> None:
    pass


def set_aside(pair: Path) -> None:
    (pair / "set_aside").mkdir()
    (pair / "10").rename(pair / "set_aside" / "10-1")
    shutil.rmtree(pair / "20")


def lost(pair: Path) -> None:
    (pair / "newest.json").write_text('{"step": 20}\n')
    for step in ("10", "20"):
        shutil.rmtree(pair / step)


@pytest.mark.parametrize("lose", [damaged_since, set_aside, lost])
def test_a_run_that_lost_its_checkpoints_is_not_begun_anew_unasked(damaged, lose, logged):
    lose(damaged)
    before = listing(damaged)
    with Checkpoints(damaged, log=logged.append) as checkpoints:
        with pytest.raises(InputError, match=r"no good checkpoint is left in .* give --begin_anew"):
            checkpoints.restore("newest", SMALL)
        assert (listing(damaged), logged) == (before, [])
        assert checkpoints.restore("newest", SMALL, begin_anew=True) is None
        checkpoints.save(1, small(1), {}, metric=None)
        checkpoint = checkpoints.restore("newest", SMALL)
    assert checkpoint is not None
    assert checkpoint.step == 1


def test_a_run_that_never_finished_a_checkpoint_begins_anew(damaged, logged):
    (damaged / "set_aside" / "5-1").mkdir(parents=True)
    for step in ("10", "20"):
        (damaged / step / "manifest.json").unlink()
    with Checkpoints(damaged, log=logged.append) as checkpoints:
        assert checkpoints.restore("newest", SMALL) is None
    assert sorted(path.name for path in damaged.iterdir()) == ["set_aside"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parents[1] / "pins" / "run", tmp_path / "run"))


def test_training_ends_on_an_error_of_reading(run, monkeypatch, break_reading):
    before = listing(run)
    monkeypatch.setitem(READS, "arrays", (builtins, "open", "30/variables/manifest.ocdbt"))
    break_reading("arrays")
    with pytest.raises(OSError, match="no checkpoint was moved or deleted"):
        train(tiny_config(), run)
    monkeypatch.undo()
    (run / ".lock").unlink()
    assert [entry[:2] for entry in listing(run)] == [entry[:2] for entry in before]
    assert train(tiny_config(), run).step == 30


def test_training_begins_anew_when_asked(run, monkeypatch):
    for step in ("10", "30"):
        flip(run / "checkpoints" / step / "commit_success.txt", 0)
    log = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"no good checkpoint is left in .* give --begin_anew"):
        train(tiny_config(), run)
    assert (run / "metrics.jsonl").read_bytes() == log
    assert steps(run / "checkpoints") == ["10", "30"]
    assert train(tiny_config(**SELDOM, total_steps=1), run, begin_anew=True).step == 1
    assert steps(run / "checkpoints") == ["1"]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_the_flag_reaches_training(monkeypatch):
    calls = []
    monkeypatch.setattr("resnet_jax.training.train", lambda *_, **options: calls.append(options))
    for flags in ([], ["--begin_anew"]):
        cli.main(["--workdir=w", f"--config={tiny.__file__}", *flags])
    assert [call["begin_anew"] for call in calls] == [False, True]
