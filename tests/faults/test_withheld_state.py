"""A part of the state that is lost when a run goes on is noticed by what the run leaves."""

import shutil
import signal

import pytest

from tests.faults import FAULTS, Fault, withheld
from tests.faults.test_evaluations import PLATEAU
from tests.launcher import finished, launcher, reference  # noqa: F401
from tests.outcomes import Outcome


def on_resuming(instead):
    return Fault("resnet_jax.training.run:Run.resume", "", instead)


DROPOUT = {"model.name": "vgg11", "model.hidden_units": 16, "schedule.learning_rate": 0.01}
PARTS = {
    "momentum": ({}, on_resuming(withheld.no_momentum)),
    "window": ({}, on_resuming(withheld.no_window)),
    "batch statistics": ({}, on_resuming(withheld.no_batch_statistics)),
    "mean of the data": ({}, on_resuming(withheld.no_mean)),
    "step": ({}, on_resuming(withheld.a_step_too_far)),
    "plateau": (PLATEAU, on_resuming(withheld.no_plateau)),
    "key of dropout": (
        DROPOUT,
        Fault("resnet_jax.training.run:make_train_step", "*", withheld.another_key_of_dropout),
    ),
}
QUICK = ("momentum", "window")


@pytest.fixture(scope="module")
def killed(launcher, reference, tmp_path_factory):
    """Returns for a config the workdir of a run that was killed after step 20, and the whole."""
    made = {}

    def of(overrides):
        name = str(overrides)
        if name not in made:
            folder = tmp_path_factory.mktemp("killed")
            whole = reference
            if overrides:
                launcher.finish(folder / "whole", **overrides)
                whole = Outcome.of(folder / "whole")
            trainer = launcher.start(folder / "run", fault=FAULTS["line not saved"], **overrides)
            assert trainer.wait() == -signal.SIGKILL, trainer.said()
            made[name] = folder / "run", whole
        return made[name]

    return of


@pytest.mark.parametrize(
    "part", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PARTS]
)
def test_is_noticed(part, killed, launcher, tmp_path):
    overrides, fault = PARTS[part]
    run, whole = killed(overrides)
    shutil.copytree(run, tmp_path / "without")
    launcher.finish(tmp_path / "without", fault=fault, **overrides)
    without = Outcome.of(tmp_path / "without")
    print([name for name in vars(whole) if getattr(without, name) != getattr(whole, name)])
    assert without != whole


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, PLATEAU, DROPOUT], ids=["tiny", "plateau", "dropout"])
def test_nothing_is_noticed_where_nothing_is_lost(overrides, killed, launcher, tmp_path):
    run, whole = killed(overrides)
    shutil.copytree(run, tmp_path / "with")
    launcher.finish(tmp_path / "with", **overrides)
    assert Outcome.of(tmp_path / "with") == whole


@pytest.mark.slow
def test_a_run_that_counts_from_0_again_cannot_save(killed, launcher, tmp_path):
    shutil.copytree(killed({})[0], tmp_path / "without")
    trainer = launcher.start(tmp_path / "without", fault=on_resuming(withheld.first_step))
    assert trainer.wait() == 1
    assert "step 4 cannot be saved: " in trainer.said()
