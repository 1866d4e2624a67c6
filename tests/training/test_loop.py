import contextlib
import json
import logging
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.checkpoints import Checkpoints
from resnet_jax.data import Order, Statistics, load_source
from resnet_jax.errors import InputError
from resnet_jax.evaluation import evaluate, restore
from resnet_jax.parallel import Replicas
from resnet_jax.training import DivergedError, loop, train
from resnet_jax.training.logging import Logger
from resnet_jax.training.run import Run
from tests.outcomes import read_checkpoints
from tests.tiny import SELDOM, tiny_config


@contextlib.contextmanager
def compilations():
    """Gives how many programs were compiled until each line of the log, and until the end."""
    counts, records, line = {}, [], Logger.train
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())

    def compiled():
        return sum("Compiling" in record for record in records)

    def train(logger, step, values):
        line(logger, step, values)
        counts[step] = compiled()

    Logger.train = train
    logging.getLogger("jax").addHandler(handler)
    try:
        with jax.log_compiles():
            yield counts
        counts["end"] = compiled()
    finally:
        logging.getLogger("jax").removeHandler(handler)
        Logger.train = line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that went to its end, and its last state."""
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    with compilations() as counts:
        state = jax.device_get(train(tiny_config(), workdir))
    (workdir.parent / "compilations.json").write_text(json.dumps(list(counts.values())))
    return workdir, state


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_leaves_what_a_workdir_holds(finished):
    workdir, state = finished
    assert state.step == 30
    assert {path.name for path in workdir.iterdir()} >= {
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "report",
        "tensorboard",
    }
    assert (workdir / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 4


def test_logs_at_the_steps_that_the_config_says(finished):
    workdir, _ = finished
    steps = {
        split: [row["step"] for row in rows(workdir) if row["split"] == split]
        for split in ("train", "test")
    }
    assert steps == {"train": [7, 14, 21, 28, 30], "test": [10, 20, 30]}


def test_keeps_the_newest_checkpoints_and_the_best(finished):
    workdir, _ = finished
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    errors = {row["step"]: row["top1_error"] for row in rows(workdir) if row["split"] == "test"}
    best = min(errors, key=lambda step: (errors[step], -step))
    assert kept == sorted({24, 28, 30, best})


def test_evaluates_a_checkpoint_to_the_logged_errors(finished):
    workdir, _ = finished
    logged = {row["step"]: row for row in rows(workdir) if row["split"] == "test"}
    newest = evaluate(workdir)
    assert newest.as_json() == {**logged[30], "protocol": newest.protocol}
    best = evaluate(workdir, which="best")
    assert best.as_json() == {**logged[best.step], "protocol": best.protocol}
    assert best.top1_error == min(row["top1_error"] for row in logged.values())


def test_a_finished_run_has_nothing_to_do(finished, capsys):
    workdir, state = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = jax.device_get(train(tiny_config(), workdir))
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert "the run is complete at step 30; nothing to do" in capsys.readouterr().err


def test_compiles_nothing_after_the_first_line_and_evaluation(finished):
    workdir, _ = finished
    _, *counts = json.loads((workdir.parent / "compilations.json").read_text())
    assert counts == [counts[0]] * 5
    assert counts[0] > 0


def test_another_config_is_refused_and_changes_nothing(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"model.width: 4 there, 8 here"):
        train(tiny_config(**{"model.width": 8}), workdir)
    assert (workdir / "config.json").read_bytes() == before


def poisoned(step, how):
    """Returns a method that makes a step's state sick, from outside of the step itself."""
    method = Run.train_step

    def train_step(run, statistics):
        take = method(run, statistics)

        def poison(state, batch):
            if int(state.step) == step - 1:
                state = how(state)
            return take(state, batch)

        return poison

    return train_step


def with_nan(state):
    """Puts a NaN into one number of one parameter."""
    stem = state.params["stem"]["conv"]["kernel"]
    kernel = run_place(stem.at[0, 0, 0, 0].set(jnp.nan))
    params = {**state.params, "stem": {**state.params["stem"], "conv": {"kernel": kernel}}}
    return state.replace(params=params)


def run_place(array):
    return Replicas().place(jax.device_get(array))


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"schedule.learning_rate": 1e9}, None),
        pytest.param(
            {
                "schedule.learning_rate": 30.0,
                "dtype": "bfloat16",
                "model.stage_sizes": (1, 1, 1),
                "model.bn_group_size": 16,
                "schedule.name": "constant",
            },
            None,
            marks=pytest.mark.slow,  # it is long in compiling
        ),
        ({"std": 0.0}, 1),
        ({"nan": True}, 6),
    ],
    ids=["1e9", "30 in bfloat16", "std 0", "a NaN"],
)
def test_what_is_not_finite_ends_a_run_and_is_not_saved(tmp_path, monkeypatch, changes, first):
    if "std" in changes:
        zeros = Statistics(np.zeros(1, np.float32), np.zeros(1, np.float32))
        monkeypatch.setattr(Run, "measure_statistics", lambda *_, **__: zeros)
        changes = {"data.mean": "channel"}
    if "nan" in changes:
        monkeypatch.setattr(Run, "train_step", poisoned(6, with_nan))
        changes = {}
    config = tiny_config(**changes, total_steps=200, eval_every=200)
    with pytest.raises(DivergedError) as raised:
        train(config, tmp_path / "run")
    error = raised.value
    assert first in (None, error.step)
    order = Order(1437, 16, 0).indices(error.step - 1)
    assert error.keys == [load_source("digits", "train")[i].key for i in order.tolist()]
    folders = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    saved = sorted(int(name) for name in folders if name.isdigit())
    assert all(step < error.step for step in saved)
    newest = f"the newest checkpoint is of step {saved[-1]}; " if saved else "none was saved; "
    assert newest in str(error)
    assert f"since step {error.step} loss, gradients, parameters or statistics are" in str(error)
    assert str(error).endswith(f"had the examples {', '.join(error.keys)}")
    for step in saved:
        for leaf in jax.tree.leaves(restore(tmp_path / "run", step).variables):
            assert np.isfinite(leaf).all()


def with_nan_at(steps):
    """Returns a method that gives the batches of these steps a loss of NaN."""
    method = Run.batches

    def batches(run, start, stop=None):
        for step, batch in enumerate(method(run, start, stop), start=start + 1):
            # A label that is none is NaN in optax's cross-entropy.
            yield {**batch, "label": batch["label"] + 1000 * (step in steps)}

    return batches


def states(workdir):
    """Returns the training state and the variables of each checkpoint, but for the step."""
    found = read_checkpoints(workdir)
    return {
        step: {name: leaf.tobytes() for name, leaf in leaves.items() if "['step']" not in name}
        for step, leaves in found.items()
    }


def test_steps_that_are_not_finite_are_left_out_up_to_a_number(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Run, "batches", with_nan_at({3, 4, 7}))
    every = {"log_every": 2, "eval_every": 10, "checkpoint_every": 1, "keep_newest": 10}
    changes = {**every, "skip_steps": 2, "total_steps": 6}
    train(tiny_config(**changes), tmp_path / "run")
    said = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    keys = Run.from_config(tiny_config()).example_keys(3)
    assert said[1] == (
        "step 4 is left out, number 2 of 2: loss, gradients, parameters or statistics would be "
        f"infinite or NaN; its batch had the examples {', '.join(keys)}"
    )
    found = states(tmp_path / "run")
    assert found[2] == found[3] == found[4] != found[5]
    assert [row["loss"] for row in rows(tmp_path / "run") if row["step"] == 4] == ["NaN"]
    with pytest.raises(DivergedError, match="since step 7 "):  # those of before count
        train(tiny_config(**{**changes, "total_steps": 8}), tmp_path / "run")


def test_a_saved_state_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    """Runs of before could save one."""
    monkeypatch.setattr(loop._Loop, "_check_finite", lambda *_: None)
    monkeypatch.setattr(Run, "train_step", poisoned(3, with_nan))
    train(tiny_config(**SELDOM, total_steps=4), tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(InputError, match="checkpoint 4 has parameters or statistics that are inf"):
        train(tiny_config(total_steps=8), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "cifar_resnet7"}, "there is no model 'cifar_resnet7'; did you mean"),
        ({"data.source": "digit"}, "did you mean digits?"),
        ({"data.train_split": "tran"}, "did you mean train?"),
        ({"data.augment": "pad_corp"}, "did you mean pad_crop"),
        ({"data.padding": -1}, "padding is 0 pixels or more"),
        ({"batch_size": 9}, "a batch of 9 does not divide over 8 devices; take a multiple of 8"),
        ({"model.bn_group_size": 3}, "bn_group_size 3 fits no whole number of times"),
        ({"parallel": "pmapp"}, "did you mean pmap?"),
        ({"dtype": "bfloat"}, "did you mean bfloat16?"),
        ({"schedule.name": "cosin"}, "did you mean cosine?"),
        ({"total_steps": 0}, "total_steps is 0; it must be at least 1"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(tiny_config(**changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # tests/test_parallel.py compares the steps
def test_shard_map_goes_on_and_trains_as_pmap_does(finished, tmp_path):
    workdir, state = finished
    train(tiny_config(total_steps=7), tmp_path / "run")
    with compilations() as counts:
        other = jax.device_get(train(tiny_config(parallel="shard_map"), tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, other, state)
    assert 0 < counts[14] == counts["end"]  # of the first line, and of the evaluation before it
    evaluated_between = (7, "test")
    rest = [
        row for row in rows(tmp_path / "run") if (row["step"], row["split"]) != evaluated_between
    ]
    assert rest == rows(workdir)


def test_records_a_profile_and_keeps_compiled_programs(tmp_path):
    cache = str(tmp_path / "cache")
    config = tiny_config(**SELDOM, total_steps=4, profile=(3, 4), compilation_cache=cache)
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {option: getattr(jax.config, option) for option in options}
    try:
        train(config, tmp_path / "run")
    finally:
        for option, value in before.items():
            jax.config.update(option, value)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.slow  # so do the kills of tests/faults/test_evaluations.py
def test_divides_on_a_plateau_as_if_it_had_not_been_interrupted(tmp_path):
    changes = {
        "schedule.name": "plateau",
        "schedule.patience": 1,
        "schedule.min_improvement": 100.0,  # nothing is ever an improvement
        "eval_every": 3,
        "checkpoint_every": 100,
    }
    whole = train(tiny_config(**changes, total_steps=15), tmp_path / "whole")
    train(tiny_config(**changes, total_steps=9), tmp_path / "parts")
    parts = train(tiny_config(**changes, total_steps=15), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    assert float(whole.plateau.scale) == pytest.approx(1e-3)
    rates = [row["learning_rate"] for row in rows(tmp_path / "whole") if row["split"] == "train"]
    assert rates == pytest.approx([0.01, 1e-4, 1e-4], rel=1e-5)
    with pytest.raises(InputError, match="eval_every: 3 there, 6 here"):
        train(tiny_config(**{**changes, "eval_every": 6}), tmp_path / "parts")


def test_stays_at_most_two_steps_ahead_of_the_device(tmp_path, monkeypatch):
    """Each step's loss says when the loop waits for it."""
    waited, dispatched, lags = [], [], []

    class Loss:
        def __init__(self, step):
            self.step = step

        def block_until_ready(self):
            waited.append(self.step)

    step_of_run = Run.train_step

    def train_step(self, statistics):
        step = step_of_run(self, statistics)

        def take(state, batch):
            state, metrics = step(state, batch)
            dispatched.append(len(dispatched) + 1)
            lags.append(len(dispatched) - len(waited))
            return state, {**metrics, "loss": Loss(len(dispatched))}

        return take

    monkeypatch.setattr(Run, "train_step", train_step)
    train(tiny_config(**SELDOM, total_steps=12), tmp_path / "run")
    assert waited == list(range(1, 11))
    assert max(lags) == 3  # the one that was just sent, and two before it


def test_fetches_nothing_but_to_log_evaluate_and_save(tmp_path, monkeypatch):
    fetches = []
    fetch = jax.device_get

    def counted(tree):
        fetches.append(sys._getframe(1).f_code.co_name)
        return fetch(tree)

    monkeypatch.setattr(loop.jax, "device_get", counted)
    config = tiny_config(total_steps=20, log_every=10, eval_every=20, checkpoint_every=20)
    train(config, tmp_path / "run")
    assert fetches.count("_close_window") == 2
    assert fetches.count("_check_finite") == 3


def test_a_signal_does_not_end_the_last_save(tmp_path, monkeypatch):
    finish, ended = Checkpoints._finish, []

    def slow(self, *arguments):
        time.sleep(1)  # the steps are over by now
        signal.raise_signal(signal.SIGTERM)
        finish(self, *arguments)

    monkeypatch.setattr(Checkpoints, "_finish", slow)
    old = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        train(tiny_config(**SELDOM, total_steps=2), tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, old)
    assert not ended
    with Checkpoints(tmp_path / "run" / "checkpoints", writable=False) as checkpoints:
        assert checkpoints.steps() == [2]
