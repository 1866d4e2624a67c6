"""The command `checkpoints`."""

import json
import os
import pathlib
import shutil

import pytest
from etils import epath

from resnet_jax.checkpoints import Evaluation, lock
from resnet_jax.checkpoints import manifest as manifests
from tests.checkpoints.trees import files, flip, save_small, steps
from tests.commands import run_command
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    metrics = {1: 40.0, 2: 10.0, 3: None, 4: 30.0, 5: None}
    save_small(run / "checkpoints", metrics, keep_newest=9)
    (run / "config.json").write_text(json.dumps(tiny_config(keep_newest=2).to_dict()))
    mark = Evaluation(20.0)
    manifests.write_evaluation(epath.Path(run / "checkpoints" / "3"), 3, mark)
    return run


@pytest.fixture
def workdir(finished, tmp_path):
    """A run with checkpoints 1 to 5; 2 is the best, 3 was evaluated later."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def checkpoints(capsys):
    def run(action, workdir, *arguments):
        ended = run_command(capsys, "checkpoints", action, workdir, *arguments)
        return ended.status, ended.out.splitlines(), ended.err

    return run


def damage(workdir: pathlib.Path, step: int) -> None:
    folder = workdir / "checkpoints" / str(step)
    flip(max(files(folder), key=lambda path: (path.name != "manifest.json", path)), 3)


def test_list(workdir, checkpoints):
    folder = workdir / "checkpoints"
    (folder / "4" / "manifest.json").write_text("{}")
    (folder / "5" / "manifest.json").unlink()
    (folder / "set_aside").mkdir()
    (folder / "1").rename(folder / "set_aside" / "1-1")
    status, (head, *lines), err = checkpoints("list", workdir)
    assert (status, err) == (0, "")
    assert head.split("  ")[0] == "step"
    assert "top-1 error on test" in head
    assert [" ".join(line.split()).split(" 0.0 MB 2")[0] for line in lines] == [
        "2 finished, best 10.00%",
        "3 finished, newest 20.00%",
        "4 damaged (its manifest is not what was written)",
        "5 unfinished (it has no manifest)",
        "1 set_aside/1-1",
    ]


def test_verify_reads_every_byte(workdir, checkpoints):
    assert checkpoints("verify", workdir) == (
        0,
        [f"checkpoint {step} is good" for step in range(1, 6)],
        "",
    )
    damage(workdir, 2)
    flip(workdir / "checkpoints" / "metric-3.json", 5)
    status, lines, _ = checkpoints("verify", workdir)
    assert status == 1
    assert lines[0] == "checkpoint 1 is good"
    assert lines[1].startswith("checkpoint 2 is damaged (")
    assert lines[2] == "checkpoint 3 is damaged (metric-3.json is not what was written)"
    assert checkpoints("verify", workdir, "--step=2")[:2] == (1, [lines[1]])
    assert checkpoints("verify", workdir, "--step=5")[:2] == (0, ["checkpoint 5 is good"])


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], "2 4 5"),
        (["--keep_newest=1"], "2 5"),
        (["--keep_newest=1", "--keep_best=0"], "5"),
        (["--keep_best=3"], "2 3 4 5"),
    ],
)
def test_prune_deletes_the_old_ones(workdir, checkpoints, arguments, kept):
    told = [f"checkpoint {n} would be deleted" for n in "12345" if n not in kept]
    last = f"kept: {', '.join(kept.split())}"
    assert checkpoints("prune", workdir, "--dry_run", *arguments) == (0, [*told, last], "")
    assert steps(workdir / "checkpoints") == list("12345")
    told = [line.replace("would be", "is") for line in told]
    assert checkpoints("prune", workdir, *arguments) == (0, [*told, last], "")
    assert steps(workdir / "checkpoints") == kept.split()
    assert checkpoints("prune", workdir, *arguments) == (0, [last], "")
    marks = {path.name for path in (workdir / "checkpoints").glob("metric-*")}
    assert marks == ({"metric-3.json"} if "3" in kept else set())


def test_prune_neither_counts_nor_deletes_damaged_ones(workdir, checkpoints):
    damage(workdir, 2)
    damage(workdir, 5)
    (workdir / "checkpoints" / "1" / "manifest.json").unlink()
    status, lines, _ = checkpoints("prune", workdir, "--keep_newest=1")
    assert status == 0
    assert lines[0] == "checkpoint 1 is unfinished (it has no manifest), and stays"
    assert lines[-1] == "kept: 3, 4"
    assert steps(workdir / "checkpoints") == list("12345")


def test_prune_is_kept_out_by_a_trainer(workdir, checkpoints):
    held = lock(epath.Path(workdir))
    status, lines, err = checkpoints("prune", workdir)
    assert (status, lines) == (75, [])
    assert f"another trainer is at work in {workdir}" in err
    os.close(held)
    assert checkpoints("prune", workdir)[0] == 0


def test_in_an_object_store(workdir, checkpoints, object_store):
    for path in files(workdir):
        target = object_store / path.relative_to(workdir).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert len(checkpoints("list", object_store)[1]) == 6
    assert checkpoints("verify", object_store)[0] == 0
    assert checkpoints("prune", object_store)[1][-1] == "kept: 2, 4, 5"
    left = manifests.steps(object_store / "checkpoints")
    assert left == [2, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst", "run"], "there is no action of checkpoints 'lst'; did you mean list?"),
        (["list"], "the following arguments are required: W"),
        (["list", "nowhere"], "there is no workdir"),
        (["list", "run", "--step=3"], "--step is an option of verify, not of list"),
        (["verify", "run", "--step=7"], "no checkpoint 7 in "),
        (["prune", "run", "--keep_newest=0"], "--keep_newest is 0; it must be at least 1"),
        (["prune", "run", "--keep_best=-1"], "--keep_best is -1; it must be at least 0"),
        (["verify", "empty"], "has no checkpoints yet"),
    ],
)
def test_wrong_input_gets_one_sentence(workdir, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(workdir.parent)
    (workdir.parent / "empty").mkdir()
    (workdir.parent / "empty" / "config.json").write_text("{}")
    ended = run_command(capsys, "checkpoints", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
