"""`prepare`: its files, its refusals, and the data sets that commit 3111d32 prepared.

`tools.zip` holds a folder of twelve images, `photos`, and the two data sets that `prepare` made of
it at that commit: `rows` as ArrayRecord and `framed` as TFRecord.
"""

import hashlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from resnet_jax.config import base_config, load_images

ROOT = pathlib.Path(__file__).parents[2]

# Of the records of a file, one after the other.
RECORDS = {
    "rows-train.array_record-00000-of-00002": (
        4,
        "786364ea4a6ad97ede9097f1531ae291ee94a7ca10834d170faa9d85db3616ab",
    ),
    "rows-train.array_record-00001-of-00002": (
        5,
        "18912d8660e96f32f300b627895cbde8170b683504a79b81c36bc31e3f710328",
    ),
    "rows-val.array_record-00000-of-00001": (
        3,
        "3986ccb220ae25c74301584d249d51692dcd8f798ac6fa8938f3000aab557f2f",
    ),
}
DESCRIPTIONS = {"dataset_info.json", "features.json", "label.labels.txt", "manifest.json"}


def module():
    """Returns the arguments of `python -m` that run the program, wherever it lives."""
    if (ROOT / "resnet_jax" / "cli" / "prepare.py").exists():
        return ["resnet_jax", "prepare"]
    return ["resnet_jax.data.prepare"]


@pytest.fixture
def prepare(monkeypatch, capsys, place):
    """Runs the program in this process, which has loaded its libraries already.

    Returns its status, what was printed, and the message of a refusal without the program's name.
    """

    def run(*arguments):
        name, *command = module()
        monkeypatch.setattr(sys, "argv", [name, *command, *map(str, arguments)])
        monkeypatch.delitem(sys.modules, f"{name}.__main__", raising=False)
        monkeypatch.chdir(place)
        status = 0
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as error:
            status = error.code or 0
        printed, message = capsys.readouterr()
        return status, printed, message.partition(": ")[2]

    return run


@pytest.fixture
def place(tmp_path):
    with zipfile.ZipFile(pathlib.Path(__file__).parent / "tools.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def pixels(source, split, path, name=None):
    config = base_config()
    config.data.update(source=source, path=str(path), name=name, image_size=12, in_memory=False)
    images = load_images(config, split)
    return images.class_names, *images.read(np.arange(len(images)))


def assert_the_folder(place, path, name):
    for split in ("train", "val"):
        classes, images, labels = pixels("tfds", split, path, name)
        expected_classes, expected, expected_labels = pixels("folder", split, place / "photos")
        assert classes == expected_classes == ("Bee", "ant", "cat")
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, expected_labels)


def test_files_records_and_readers(place, prepare):
    arguments = ["--source", "folder", "--path", "photos", "--as", "rows", "--out", "out"]
    status, printed, _ = prepare(*arguments, "--examples_per_shard", 5, "--workers", 3)
    assert (status, printed) == (0, "out/rows/1.0.0 is prepared: 9 of train, 3 of val\n")
    folder = place / "out" / "rows" / "1.0.0"
    assert {path.name for path in folder.iterdir()} == {*RECORDS, *DESCRIPTIONS}
    for name, expected in RECORDS.items():
        reader = ArrayRecordReader(str(folder / name))
        records = reader.read(list(range(reader.num_records())))
        assert (len(records), hashlib.sha256(b"".join(records)).hexdigest()) == expected
    assert_the_folder(place, place / "out", "rows")
    theirs = tfds.data_source("rows", split="train", data_dir=place / "out")
    examples = [(values["file_name"].decode(), int(values["label"])) for values in theirs]
    assert examples[:4] == [
        ("train/cat/09.jpg", 2),
        ("train/ant/01.jpg", 1),
        ("train/ant/03.jpg", 1),
        ("train/ant/02.jpg", 1),
    ]
    assert {values["image"].shape for values in theirs} == {(14, 12, 3)}
    assert theirs.dataset_info.supervised_keys == ("image", "label")


def test_smaller_images_and_bad_ones(place, prepare):
    (place / "photos" / "train" / "ant" / "02.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = ["--source", "folder", "--path", "photos", "--out", "out", "--splits", "train"]
    status, printed, _ = prepare(
        *arguments, "--skip_bad", 0.2, "--shorter_side", 6, "--version", "2.0.0"
    )
    assert (status, printed) == (0, "out/photos/2.0.0 is prepared: 8 of train\n")
    listed = (place / "out" / "photos" / "2.0.0" / "bad.jsonl").read_text().splitlines()
    assert [(bad["split"], bad["key"]) for bad in map(json.loads, listed)] == [
        ("train", "train/ant/02.jpg")
    ]
    theirs = tfds.data_source("photos", split="train", data_dir=place / "out")
    assert {values["image"].shape for values in theirs} == {(7, 6, 3)}


@pytest.mark.parametrize("name", ["rows", "framed"])
def test_what_was_prepared_verifies_and_is_read(place, prepare, name):
    folder = place / "prepared" / name / "1.0.0"
    verify = ["--verify", "--out", "prepared", "--as", name]
    status, printed, _ = prepare(*verify)
    shown = folder.relative_to(place)
    assert status == 0
    assert printed == f"{shown} is as it was written: 9 of train, 3 of val\n"
    assert_the_folder(place, place / "prepared", name)

    damaged = min(folder.glob(f"{name}-val.*record-*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 1
    damaged.write_bytes(content)
    status, _, refusal = prepare(*verify)
    assert status == 2
    assert refusal.startswith(f"{damaged.relative_to(place)} is not what was written; ")


def test_a_finished_data_set_stays_as_it_is(place, prepare):
    folder = place / "prepared" / "rows" / "1.0.0"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    arguments = ["--source", "folder", "--path", "photos", "--as", "rows", "--out", "prepared"]
    arguments += ["--examples_per_shard", 5]
    printed = "prepared/rows/1.0.0 is prepared: 9 of train, 3 of val\n"
    assert prepare(*arguments)[:2] == (0, printed)
    status, _, refusal = prepare(*arguments, "--quality", 80)
    assert status == 2
    assert refusal.startswith(
        "prepared/rows/1.0.0 was prepared with settings.quality 90 and not 80; "
    )
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_refusals(place, prepare):
    source = ["--source", "folder", "--path", "photos"]
    (place / "full" / "photos" / "1.0.0").mkdir(parents=True)
    (place / "full" / "photos" / "1.0.0" / "thesis.tex").write_text("")
    (place / "photos" / "val" / "cat" / "12.png").write_bytes(b"no image")
    cases = [
        (["--as", "x", "--out", "out"], "--source is not given; it is folder, tfds or mnist"),
        ([*source], "the following arguments are required: --out"),
        (
            ["--source", "foldr", "--out", "out"],
            "there is no data source 'foldr'; did you mean folder?",
        ),
        ([*source, "--out", "photos/out"], "--out photos/out is inside --path photos; "),
        ([*source, "--out", "out", "--quality", 0], "the quality of a JPEG is 1 to 100, not 0"),
        ([*source, "--out", "full"], "full/photos/1.0.0 has something else in it (thesis.tex); "),
        (
            ["--verify", "--as", "photos", "--out", "out"],
            "there is no prepared data set out/photos/1.0.0",
        ),
        (
            [*source, "--out", "bad", "--splits", "val"],
            "image val/cat/12.png of val cannot be prepared: it cannot be decoded: ",
        ),
    ]
    for arguments, begins in cases:
        status, printed, refusal = prepare(*arguments)
        assert (status, printed) == (2, "")
        assert refusal.startswith(begins), refusal
        assert refusal.count("\n") == 1
    assert not (place / "out").exists()
    assert not (place / "photos" / "out").exists()


def test_from_a_shell(place):
    ended = subprocess.run(
        [sys.executable, "-m", *module(), "--verify", "--as", "photos", "--out", "out"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith(": there is no prepared data set out/photos/1.0.0\n")
