"""Networks with dropout and auxiliary heads that were killed end as those that were not."""

import signal

import pytest

from tests.faults import Fault, die_before
from tests.launcher import launcher  # noqa: F401
from tests.outcomes import Outcome

_WITH_HIDDEN_LAYERS = {"model.name": "vgg11", "model.hidden_units": 16}
_WITH_AUXILIARY_HEADS = {
    "model.name": "googlenet_bn",
    "model.stage_sizes": None,
    "model.width": 8,
    "model.auxiliary_units": 8,
    "data.image_size": 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(_WITH_HIDDEN_LAYERS, id="vgg11"),
        pytest.param(
            _WITH_AUXILIARY_HEADS,
            id="googlenet_bn",
            marks=pytest.mark.timeout(900),  # it is long in compiling
        ),
    ],
)
def test_killed_before_a_save(network, launcher, tmp_path):
    settings = {
        **network,
        "total_steps": 8,
        "schedule.learning_rate": 0.01,
        "checkpoint_every": 3,
        "log_every": 2,
        "eval_every": 8,
        "data.eval_split": "test[:64]",
    }
    launcher.finish(tmp_path / "whole", **settings)
    fault = Fault("resnet_jax.checkpoints:Checkpoints.save", "8", die_before)
    assert launcher.start(tmp_path / "killed", fault=fault, **settings).wait() == -signal.SIGKILL
    assert "going on from step" in launcher.finish(tmp_path / "killed", **settings)
    assert Outcome.of(tmp_path / "killed") == Outcome.of(tmp_path / "whole")
