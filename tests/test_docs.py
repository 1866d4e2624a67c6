"""The examples of the documentation run."""

import pathlib
import re
import shlex

import jax
import pytest

from resnet_jax.cli.summary import main
from tests.quick import few_optimizations

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["research.md", "look.md"])
def test_examples_of_a_page_run_in_order(page):
    names = {}
    examples = blocks(DOCS / page, "python")
    assert examples
    # The default kind of random keys compiles several times more slowly than "rbg".
    with few_optimizations(), jax.default_prng_impl("rbg"):
        for example in examples:
            exec(compile(example, page, "exec"), names)


def test_commands_of_research_run(capsys):
    (commands,) = blocks(DOCS / "research.md", "sh")
    for command in commands.splitlines():
        program, arguments = command.split(" -m resnet_jax summary ")
        assert program == "python"
        main(shlex.split(arguments))
        assert "multiply-adds" in capsys.readouterr().out
