"""The manifest notices any change to a checkpoint's files, and to itself."""

import os
from pathlib import Path

import pytest
from etils import epath

from resnet_jax.checkpoints import manifest as manifests
from resnet_jax.checkpoints.manifest import Flaw
from resnet_jax.errors import InputError

ITEMS = {"variables": {"variables/w": "float32[3]"}}


@pytest.fixture
def folder(tmp_path: Path) -> epath.Path:
    folder = epath.Path(tmp_path) / "7"
    (folder / "d" / "deep").mkdir(parents=True)
    (folder / "d" / "deep" / "data").write_bytes(bytes(range(256)))
    (folder / "d" / "empty").write_bytes(b"")
    (folder / "text").write_text("abc")
    return folder


def test_what_is_written_is_read_and_verified(folder):
    manifests.write(folder, 7, 2.5, ITEMS)
    manifest = manifests.read(folder, 7)
    assert manifests.verify(folder, 7) == manifest
    assert manifest[:3] == (7, 2.5, ITEMS)
    assert manifest.files == {
        "d/deep/data": {
            "bytes": 256,
            "sha256": "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880",
        },
        "d/empty": {
            "bytes": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
        "text": {
            "bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        },
    }


def test_any_change_to_the_manifest_is_noticed(folder):
    manifests.write(folder, 7, 2.5, ITEMS)
    path = folder / "manifest.json"
    written = path.read_bytes()
    for at in range(len(written)):
        changed = bytearray(written)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(Flaw, match=r"is damaged \(its manifest is not what was written\)"):
            manifests.read(folder, 7)
    others = (b"", b"[]", b"{}", written[:-1], written + b"\n", written.replace(b"\n", b"\r\n"))
    for changed in (*others, written.replace(b"2.5", b"NaN")):
        path.write_bytes(changed)
        with pytest.raises(Flaw, match="its manifest is not what was written"):
            manifests.read(folder, 7)


def test_every_file_is_on_the_disk_before_the_manifest_is_in_place(folder, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def record_replace(source, target):
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    manifests.write(folder, 7, 2.5, ITEMS)
    before = events[: events.index("replace")]
    names = ["d/deep/data", "d/empty", "text", "d/deep", "d", "manifest.json.partial"]
    assert {str(folder / name) for name in names} | {str(folder), str(folder.parent)} == set(before)
    assert before[-1] == str(folder / "manifest.json.partial")
    assert events[-1] == str(folder)


def test_a_failed_write_leaves_no_manifest(folder, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        manifests.write(folder, 7, 2.5, ITEMS)
    with pytest.raises(Flaw, match=r"^is unfinished \(it has no manifest\)$"):
        manifests.read(folder, 7)


def test_another_format_is_refused_and_not_taken_for_damage(folder, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(manifests, "_FORMAT", 2)
        manifests.write(folder, 7, 2.5, ITEMS)
    with pytest.raises(InputError) as error:
        manifests.read(folder, 7)
    assert str(error.value) == (
        "checkpoint 7 was written by another version of resnet_jax: its manifest has format 2 "
        "and this version reads format 1"
    )


def test_survey_tells_the_finished_from_the_flawed(folder):
    manifests.write(folder, 7, 2.5, ITEMS)
    for name in ("12", "007", "set_aside", "9.orbax-checkpoint-tmp", "-1"):
        (folder.parent / name).mkdir()
    assert manifests.steps(folder.parent) == [7, 12]
    assert manifests.survey(folder.parent) == (
        [manifests.read(folder, 7)],
        {12: "is unfinished (it has no manifest)"},
    )
    assert manifests.survey(folder / "nowhere") == ([], {})
