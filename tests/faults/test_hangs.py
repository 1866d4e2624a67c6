"""A run that hangs ends itself, and the same command goes on."""

import re
import time

import pytest

from tests.faults import Fault
from tests.launcher import launcher, reference  # noqa: F401
from tests.outcomes import Outcome


def hang(function, *args, **kwargs):
    time.sleep(1000)


def hang_in_the_middle(function, *args, **kwargs):
    """For functions that return an iterator."""
    for count, item in enumerate(function(*args, **kwargs)):
        if count == 3:
            hang(function)
        yield item


HANGS = {
    "input": Fault("resnet_jax.training.run:train_batches", "*", hang_in_the_middle),
    "step": Fault("resnet_jax.training.logging:Logger.advance", "13", hang),
    "save": Fault("resnet_jax.checkpoints:Checkpoints.save", "16", hang),
    "evaluation": Fault("resnet_jax.evaluation.engine:eval_batches", "*", hang_in_the_middle),
}


@pytest.mark.parametrize(
    "phases", [("input", "save"), pytest.param(tuple(HANGS), marks=pytest.mark.slow)], ids=len
)
def test_a_run_that_hangs_again_and_again(phases, launcher, reference, tmp_path):
    workdir = tmp_path / "workdir"
    for phase in phases:
        trainer = launcher.start(workdir, fault=HANGS[phase], **{f"timeouts.{phase}": 2.0})
        assert trainer.wait() == 75, trainer.said()
        *_, last = trainer.said().splitlines()
        place = rf"the run has hung for 2 s \(timeouts.{phase}\) in its {phase} after step \d+"
        assert re.match(place, last), trainer.said()
    launcher.finish(workdir)
    assert Outcome.of(workdir) == reference
