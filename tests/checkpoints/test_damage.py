"""What is damaged is noticed, and the one before is used."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from resnet_jax.checkpoints import Checkpoints, Evaluation
from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.checkpoints.manifest import Flaw
from resnet_jax.errors import InputError
from tests.checkpoints.trees import (
    SMALL,
    assert_same,
    files,
    flip,
    listing,
    save_small,
    small,
    steps,
)


def assert_falls_back(folder: Path, reason: str, *, which: Any = "newest") -> None:
    logged: list[str] = []
    with Checkpoints(folder, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore(which, SMALL)
        assert checkpoint is not None
        assert_same(checkpoint.items, small(10))
        assert logged == [
            f"checkpoint 20 {reason}: set aside as {folder}/set_aside/20-1; checkpoint 10 is used"
        ]
        assert checkpoints.steps() == [10]
        assert (folder / "set_aside" / "20-1").is_dir()


def test_a_flipped_byte_in_any_file_is_noticed(two, tmp_path):
    names = [path.relative_to(two) for path in files(two / "20")]
    assert len(names) > 10
    for number, name in enumerate(names):
        folder = Path(shutil.copytree(two, tmp_path / str(number)))
        path = folder / name
        flip(path, number % path.stat().st_size)
        what = "its manifest" if path.name == "manifest.json" else path.relative_to(folder / "20")
        assert_falls_back(folder, f"is damaged ({what} is not what was written)")


DAMAGE = {
    "first byte flipped": lambda content: bytes([content[0] ^ 1, *content[1:]]),
    "last byte flipped": lambda content: bytes([*content[:-1], content[-1] ^ 0x80]),
    "truncated": lambda content: content[:-1],
    "cut in half": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "removed": None,
}


@pytest.mark.parametrize("step", [30, pytest.param(10, marks=pytest.mark.slow)])
def test_any_damage_to_any_file_of_a_run_is_noticed(tmp_path, step):
    run = Path(__file__).parents[1] / "pins" / "run" / "checkpoints" / str(step)
    folder = epath.Path(shutil.copytree(run, tmp_path / str(step)))
    paths, noticed = files(tmp_path / str(step)), 0
    for path in paths:
        content = path.read_bytes()
        for damage in DAMAGE.values():
            path.unlink()
            if damage is not None:
                path.write_bytes(damage(content))
            with pytest.raises(Flaw, match=r"is damaged|is unfinished"):
                manifests.verify(folder, step)
            noticed += 1
            path.write_bytes(content)
        manifests.verify(folder, step)
    print(f"{noticed} of {len(DAMAGE) * len(paths)} noticed, in {len(paths)} files")
    assert len(paths) > 20


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_evaluation_is_noticed(tmp_path, damage):
    folder = epath.Path(tmp_path) / "30"
    manifests.write_evaluation(folder, 30, Evaluation(2.5))
    path = manifests.evaluation_path(folder)
    if DAMAGE[damage] is None:
        path.unlink()
        assert manifests.read_evaluation(folder, 30) is None  # it is evaluated again
        return
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(Flaw, match=r"is damaged \(metric-30.json is not what was written\)"):
        manifests.read_evaluation(folder, 30)


def test_a_truncated_file_is_noticed(pair):
    path = pair / "20" / "variables" / "_METADATA"
    path.write_bytes(path.read_bytes()[:-3])
    assert_falls_back(pair, "is damaged (variables/_METADATA is not what was written)")


def test_a_removed_file_is_noticed(pair):
    (pair / "20" / "commit_success.txt").unlink()
    assert_falls_back(pair, "is damaged (commit_success.txt is missing)")


def test_a_file_in_the_place_of_a_folder_is_noticed(pair):
    shutil.rmtree(pair / "20" / "variables")
    (pair / "20" / "variables").write_text("")
    assert_falls_back(pair, "is damaged (variables/_METADATA is missing)")


def test_an_added_file_is_no_damage(pair, logged):
    for name in (".nfs0001", "variables/d/.nfs0002"):
        (pair / "20" / name).write_text("")
    with Checkpoints(pair, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
    assert checkpoint is not None
    assert_same(checkpoint.items, small(20))
    assert logged == []


def test_a_missing_manifest_is_noticed(pair):
    (pair / "20" / "manifest.json").unlink()
    assert_falls_back(pair, "is unfinished (it has no manifest)", which="best")


def test_the_manifest_of_another_step_is_noticed(pair):
    shutil.rmtree(pair / "20")
    shutil.copytree(pair / "10", pair / "20")
    assert_falls_back(pair, "is damaged (its manifest is that of checkpoint 10)")


def test_a_damaged_best_gives_way_to_the_next_best(pair):
    flip(pair / "20" / "_CHECKPOINT_METADATA", 0)
    assert_falls_back(
        pair, "is damaged (_CHECKPOINT_METADATA is not what was written)", which="best"
    )


def test_several_flaws_make_one_line(pair, logged):
    (pair / "20" / "manifest.json").unlink()
    flip(pair / "10" / "variables" / "_METADATA", 5)
    with Checkpoints(pair, log=logged.append) as checkpoints:
        assert checkpoints.restore("newest", SMALL, begin_anew=True) is None
    assert logged == [
        f"checkpoint 20 is unfinished (it has no manifest): set aside as {pair}/set_aside/20-1; "
        "checkpoint 10 is damaged (variables/_METADATA is not what was written): set aside as "
        f"{pair}/set_aside/10-1; there is no good one"
    ]


def test_a_step_set_aside_is_saved_again_and_set_aside_again(pair, logged):
    with Checkpoints(pair, log=logged.append) as checkpoints:
        for n in (1, 2):
            flip(pair / "20" / "manifest.json", 3)
            checkpoint = checkpoints.restore("newest", SMALL)
            assert checkpoint is not None
            assert checkpoint.step == 10
            assert (pair / "set_aside" / f"20-{n}").is_dir()
            checkpoints.save(20, small(20), {}, metric=None)
            checkpoints.wait()
            assert checkpoints.steps() == [10, 20]
    assert len(logged) == 2


def test_of_those_set_aside_the_newest_stay(pair, logged):
    with Checkpoints(pair, log=logged.append) as checkpoints:
        for step in (*range(20, 90, 10), 100):
            if step > 20:
                checkpoints.save(step, small(step), {}, metric=None)
                checkpoints.wait()
            flip(pair / str(step) / "manifest.json", 3)
            os.utime(pair / str(step), (step, step))
            checkpoint = checkpoints.restore("newest", SMALL)
            assert checkpoint is not None
            assert checkpoint.step == 10
    names = {path.name for path in (pair / "set_aside").iterdir()}
    assert names == {"50-1", "60-1", "70-1", "80-1", "100-1"}


def test_an_unfinished_one_makes_room_for_its_step(pair, logged):
    (pair / "20" / "manifest.json").unlink()
    with Checkpoints(pair, log=logged.append) as checkpoints:
        checkpoints.save(20, small(20), {}, metric=None)
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20]
    assert logged == [
        f"checkpoint 20 is unfinished (it has no manifest): set aside as {pair}/set_aside/20-1; "
        "it is saved again"
    ]


def test_a_damaged_one_is_not_deleted_to_keep_the_newest(pair):
    flip(pair / "10" / "manifest.json", 3)
    save_small(pair, {30: None, 40: None}, keep_newest=1, keep_best=0)
    assert steps(pair) == ["10", "40"]


def test_read_only_changes_nothing(pair, logged):
    flip(pair / "20" / "variables" / "_METADATA", 5)
    (pair / "30.orbax-checkpoint-tmp").mkdir()
    (pair / "removing").mkdir()
    shutil.copytree(pair / "10", pair / "30")
    (pair / "30" / "manifest.json").unlink()
    before = listing(pair)
    with Checkpoints(pair, writable=False, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
        assert checkpoint is not None
        assert checkpoint.step == 10
    assert listing(pair) == before
    assert logged == [
        "checkpoint 30 is unfinished (it has no manifest): skipped; checkpoint 20 is damaged "
        "(variables/_METADATA is not what was written): skipped; checkpoint 10 is used"
    ]


def test_read_only_makes_no_folder(tmp_path):
    with Checkpoints(tmp_path / "none", writable=False) as checkpoints:
        assert checkpoints.restore("newest", SMALL) is None
        assert checkpoints.steps() == []
    assert not (tmp_path / "none").exists()


def test_one_deleted_while_others_are_looked_at_is_no_flaw(pair, monkeypatch, logged):
    survey = manifests.survey

    def survey_then_delete(directory):
        (pair / "10" / "manifest.json").unlink()
        found = survey(directory)
        shutil.rmtree(pair / "10")
        return found

    monkeypatch.setattr(manifests, "survey", survey_then_delete)
    with Checkpoints(pair, writable=False, log=logged.append) as checkpoints:
        checkpoint = checkpoints.restore("newest", SMALL)
    assert checkpoint is not None
    assert checkpoint.step == 20
    assert logged == []


def test_one_deleted_while_it_is_read_is_told_from_a_damaged_one(pair, monkeypatch):
    verify = manifests.verify
    monkeypatch.setattr(
        manifests, "verify", lambda folder, step: (verify(folder, step), shutil.rmtree(folder))
    )
    with (
        Checkpoints(pair, writable=False) as checkpoints,
        pytest.raises(InputError, match="checkpoint 10 was deleted while it was being read"),
    ):
        checkpoints.restore(10, SMALL)
