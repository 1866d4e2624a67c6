import math

import jax
import jax.numpy as jnp
import pytest

from resnet_jax.config import base_config
from resnet_jax.errors import InputError
from resnet_jax.training.schedules import Plateau, make_schedule


def rates(total_steps, **changes):
    config = base_config().schedule
    config.update(changes)
    schedule = jax.jit(jax.vmap(make_schedule(config, total_steps)))
    return schedule(jnp.arange(total_steps)).tolist()


def test_step_divides_at_the_papers_iterations():
    found = rates(640, boundaries=(320, 480))
    assert found == pytest.approx([0.1] * 320 + [0.01] * 160 + [0.001] * 160, rel=1e-6)


def test_cosine_falls_from_the_rate_to_zero():
    found = rates(100, name="cosine", learning_rate=0.4)
    expected = [0.4 * 0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
    assert found == pytest.approx(expected, abs=1e-7)


def test_constant_stays():
    assert rates(5, name="constant", learning_rate=0.3) == pytest.approx([0.3] * 5)


@pytest.mark.parametrize("warmup", [1, 2, 10])
def test_warmup_rises_linearly_and_shifts_no_boundary(warmup):
    found = rates(40, boundaries=(20,), warmup_steps=warmup)
    rise = [0.1 * (step + 1) / warmup for step in range(warmup)]
    expected = [*rise, *[0.1] * (20 - warmup), *[0.01] * 20]
    assert found == pytest.approx(expected, rel=1e-5)


def test_cosine_after_a_warmup_starts_at_the_top():
    found = rates(30, name="cosine", warmup_steps=10)
    assert found[9] == pytest.approx(0.1)
    assert found[10] == pytest.approx(0.1)
    assert found[20] == pytest.approx(0.05)


def test_warmup_stays_at_a_rate_of_its_own():
    found = rates(10, warmup_steps=4, warmup_learning_rate=0.01, boundaries=(8,))
    assert found == pytest.approx([0.01] * 4 + [0.1] * 4 + [0.01] * 2, rel=1e-6)


def test_plateau_divides_after_evaluations_without_improvement():
    config = base_config().schedule
    config.update(name="plateau", patience=2, min_improvement=0.5, min_scale=0.01)
    errors = [50, 40, 39.8, 39.6, 39.4, 30, 31, 32, 33, 34, 35, 36]
    plateau, scales = Plateau.start(), []
    for error in errors:
        plateau = plateau.after(error, config)
        scales.append(float(plateau.scale))
    expected = [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01]
    assert scales == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cosin"}, "there is no schedule 'cosin'; did you mean cosine?"),
        ({"warmup_steps": 50}, r"schedule.warmup_steps is 50; it must be in \[0, 50\)"),
        ({"warmup_steps": -1}, r"schedule.warmup_steps is -1; it must be in \[0, 50\)"),
        ({"boundaries": (9, 3)}, r"schedule.boundaries is \(9, 3\); they must increase"),
        ({"boundaries": (9, 9)}, r"schedule.boundaries is \(9, 9\); they must increase"),
        (
            {"boundaries": (5,), "warmup_steps": 5},
            "lie after the 5 steps of the warm-up",
        ),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(InputError, match=message):
        rates(50, **changes)
