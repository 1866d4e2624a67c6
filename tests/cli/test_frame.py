"""The programs from the outside: what they say and how they end."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from resnet_jax.__main__ import main
from resnet_jax.cli import COMMANDS
from tests.commands import run_command
from tests.tiny import tiny_flags

ROOT = pathlib.Path(__file__).parents[2]


def program(name, *arguments, cwd):
    return subprocess.run(
        [sys.executable, ROOT / name, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
        check=False,
    )


def test_trains_and_evaluates_from_anywhere(tmp_path):
    trained = program("train.py", "--workdir", "run", *tiny_flags(total_steps=10), cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    assert "step 10/10  test   examples 360" in trained.stderr
    evaluated = program("evaluate.py", "--workdir", "run", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    (line,) = evaluated.stdout.splitlines()
    found = json.loads(line)
    logged = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert found.pop("protocol")["name"] == "single_crop"
    assert found == json.loads(logged)
    assert list(found) == ["step", "split", "examples", "top1_error", "top5_error", "loss"]
    kept = tmp_path / "run" / "evaluations" / "test-10.json"
    assert json.loads(kept.read_text()).items() >= found.items()

    missing = program("evaluate.py", "--workdir", "run", "--step", "3", cwd=tmp_path)
    assert missing.returncode == 2
    assert "no checkpoint 3" in missing.stderr
    assert "there is 4, 8, 10" in missing.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train.py", ["--config.toatl_steps=3"], 'Did you mean "total_steps"'),
        ("train.py", ["--config.model.nmae=a"], 'Did you mean "name"'),
        ("train.py", ["--config.model.name=resnet5"], "did you mean resnet50"),
        ("train.py", ["--config.total_steps=x"], "invalid literal for int"),
        ("train.py", ["--config=nowhere.py"], "No such file"),
        ("train.py", ["--wrkdir=x"], "Did you mean: workdir"),
        ("train.py", ["--workdir=https://a/b"], "https://a/b is in no store that can be read"),
        ("train.py", ["stray"], "'stray' is not a flag; flags start with --"),
        ("evaluate.py", ["--best", "--step=3"], "--step and --best each name a checkpoint"),
        ("evaluate.py", ["--config.seed=1"], "a run has a config of its own; --config is for"),
    ],
)
def test_wrong_input_gets_one_sentence_and_leaves_nothing(tmp_path, name, arguments, message):
    ended = program(name, "--workdir", "run", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith(f"{name}: ")
    assert ended.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("data.prepare", "prepare"),
        ("data.show", "show"),
        ("doctor", "doctor"),
        ("interop", "convert"),
        ("interop.export", "export"),
        ("analysis.summary", "summary"),
    ],
)
def test_former_programs_name_their_command(capsys, module, command):
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"resnet_jax.{module}", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"this program is now `python -m resnet_jax {command}`\n")


def test_help_lists_the_commands_and_others_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["resnet_jax", "--help"])
    main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == [*COMMANDS]
    ended = run_command(capsys, "summry")
    assert ended.status == 2
    assert ended.err == "resnet_jax: there is no command 'summry'; did you mean summary?\n"
