import pathlib
import subprocess
import sys

import pytest

from resnet_jax import InputError
from resnet_jax.cli.prepare import main
from resnet_jax.data import load_source
from tests.data.pictures import write_folder
from tests.data.prepare.preparing import contents

ROOT = pathlib.Path(__file__).parents[3]
CLASSES = {"ant": 3, "bee": 4}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "photos", {"train": CLASSES, "val": CLASSES, "test": CLASSES})
    return tmp_path / "photos"


def run(*arguments):
    main([str(argument) for argument in arguments])


def test_a_folder(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--source", "folder", "--path", root, "--out", out, "--splits", "train,val"]
    command += ["--shorter_side", 16, "--quality", 80, "--examples_per_shard", 4, "--workers", 2]
    run(*command)
    place = out / "photos" / "1.0.0"
    assert capsys.readouterr().out == f"{place} is prepared: 7 of train, 7 of val\n"
    assert len(list(place.glob("*.array_record-*"))) == 4
    assert len(load_source("tfds", "train+val", name="photos", path=out)) == 14

    before = contents(out)
    run(*command)
    run(*command, "--verify")
    assert capsys.readouterr().out.splitlines() == [
        f"{place} is prepared: 7 of train, 7 of val",
        f"{place} is as it was written: 7 of train, 7 of val",
    ]
    run("--verify", "--out", out, "--as", "photos")
    assert contents(out) == before


def test_what_tfds_prepared_and_other_sources(root, tmp_path):
    out = tmp_path / "out"
    run("--source", "folder", "--path", root, "--out", out, "--as", "mine")
    run("--source", "tfds", "--name", "mine:1.0.0", "--path", out, "--out", tmp_path / "more")
    run("--source", "tfds", "--name", "mine", "--path", out, "--out", out, "--version", "1.1.0")
    run("--source", "digits", "--out", out)
    for place, name in [(tmp_path / "more", "mine"), (out, "mine:1.1.0")]:
        one = load_source("tfds", "val", name=name, path=place)
        other = load_source("folder", "val", path=root)
        assert [one[i] for i in range(7)] == [other[i] for i in range(7)]
    assert len(load_source("tfds", "test", name="digits", path=out)) == len(
        load_source("digits", "test")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out o --source", "argument --source: expected one argument"),
        ("--out o --verify", "--as is not given; it is the name of the data set"),
        (
            "--out o --source folder --as x",
            "data.path is not set; it is the folder with the images",
        ),
        (
            "--out o --source digits --splits train,tset",
            "there is no split of digits 'tset'; did you mean test?",
        ),
    ],
)
def test_refusals(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        run(*arguments.split())
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_full_disk(root, tmp_path):
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); "
    small += "import runpy; runpy.run_module('resnet_jax', run_name='__main__')"
    arguments = ["prepare", "--source", "folder", "--path", root, "--out", tmp_path / "full"]
    full = subprocess.run(
        [sys.executable, "-c", small, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1, full.stderr
    assert "File too large" in full.stderr
    assert full.stderr.splitlines()[-1].endswith("; the same command goes on")


def test_what_is_made_is_no_part_of_its_source(root):
    with pytest.raises(InputError, match=r"^--out .* is inside --path .*; take another place$"):
        run("--source", "folder", "--path", root, "--out", root / "made")
    assert not (root / "made").exists()


def test_files_that_cannot_be_read_are_left_out_where_that_is_allowed(root, tmp_path, capsys):
    victim = sorted((root / "train" / "bee").iterdir())[0]
    victim.unlink()
    victim.symlink_to("nowhere")
    command = ["--source", "folder", "--path", root, "--out", tmp_path / "out"]
    command += ["--splits", "train"]
    with pytest.raises(InputError, match="cannot be read"):
        run(*command)
    run(*command, "--skip_bad", 0.5)
    assert capsys.readouterr().out.endswith("is prepared: 6 of train\n")
