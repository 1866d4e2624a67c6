"""The programs from the outside: what they say and how they end."""

import runpy
import sys

import pytest

from resnet_jax.__main__ import main
from resnet_jax.cli import COMMANDS
from tests.commands import run_command


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
def test_wrong_input_gets_one_sentence_and_leaves_nothing(
    tmp_path, capsys, monkeypatch, name, arguments, message
):
    monkeypatch.chdir(tmp_path)
    ended = run_command(capsys, name, "--workdir", "run", *arguments)
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.err.startswith(f"{name}: ")
    assert ended.out == ""
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
