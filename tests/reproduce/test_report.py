"""Reports: made of runs, resumed, written, and drawn from their JSON alone."""

import json
import math
import shutil

import numpy as np
import pytest
from etils import epath

from resnet_jax.errors import InputError
from resnet_jax.evaluation import Protocol, evaluate
from resnet_jax.reproduce import EXPERIMENTS, Experiment, Plan, Row, make_report, write_report
from resnet_jax.reproduce import report as reports
from resnet_jax.reproduce import runs as runs_of_plan
from resnet_jax.reproduce.figures import figure_of
from resnet_jax.training.logging import read_metrics
from tests.quick import few_optimizations

TINY = {
    "model": {"stage_sizes": (1,), "width": 2, "lowering": "plain"},
    "total_steps": 40,
    "log_every": 5,
}
CURVES = Experiment(
    "Two networks",
    data="digits",
    cost="none",
    metrics=("train_error", "running_error", "top1_error"),
    rows=(
        Row("plain-8", ("degradation.py:plain8",)),
        Row("plain-20", ("degradation.py:plain8",), {"top1_error": 12.5}),
        Row("plain-32", ("degradation.py:plain32",)),
    ),
    kind="curves",
)
RESPONSES = Experiment(
    "Responses",
    data="digits",
    cost="none",
    metrics=("mean_response",),
    rows=CURVES.rows[:1],
    kind="responses",
)
ENSEMBLE = Experiment(
    "Ensembles",
    data="digits",
    cost="none",
    metrics=("top1_error",),
    rows=(Row("two", ("degradation.py:plain8",) * 2), Row("cited", (), {"top1_error": 3.0})),
)
TESTED = {"curves": CURVES, "responses": RESPONSES, "ensemble": ENSEMBLE}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of a report whose runs were interrupted once, without those of plain-32."""
    folder = epath.Path(tmp_path_factory.mktemp("reproduce"))
    plan = Plan(folder, seeds=2, changes=TINY)
    shown = Experiment(**{**vars(CURVES), "rows": CURVES.rows[:2]})
    with pytest.MonkeyPatch.context() as patch, few_optimizations():
        for name, experiment in TESTED.items():
            patch.setitem(EXPERIMENTS, name, experiment)
        patch.setitem(EXPERIMENTS, "curves", shown)
        train, done = runs_of_plan.train, []

        def stopped(config, workdir):
            if done:
                raise KeyboardInterrupt
            done.append(workdir)
            return train(config, workdir)

        patch.setattr(runs_of_plan, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            make_report("curves", plan, command="command")
        patch.setattr(runs_of_plan, "train", train)
        write_report(make_report("curves", plan, command="command"), folder)
    return folder


@pytest.fixture
def experiments(monkeypatch):
    for name, experiment in TESTED.items():
        monkeypatch.setitem(EXPERIMENTS, name, experiment)


def remake(name, out, tmp_path, **options):
    """Returns the report of the runs that are there; none may be made."""
    plan = Plan(epath.Path(tmp_path), runs=out / "runs", changes=TINY, **options)
    with few_optimizations():
        return make_report(name, plan, command="again", note="A note.")


def test_numbers_are_those_of_the_runs(out):
    report = json.loads((out / "curves.json").read_text())
    row = report["rows"][1]
    assert row["seeds"] == [0, 1]
    assert row["steps"] == [40, 40]
    for seed in (0, 1):
        workdir = out / "runs" / f"degradation-plain8-{seed}"
        log = read_metrics(workdir / "metrics.jsonl")
        (test,) = [r for r in log if r["split"] == "test" and r["step"] == 40]
        (train,) = [r for r in log if r["split"] == "train" and r["step"] == 40]
        values = {metric: value["ours"][seed] for metric, value in row["values"].items()}
        assert values["top1_error"] == pytest.approx(test["top1_error"], abs=1e-4)
        assert values["running_error"] == pytest.approx(train["top1_error"], abs=1e-4)
        with few_optimizations():
            result = evaluate(workdir, split="train", protocol=Protocol())
        assert values["train_error"] == pytest.approx(result.top1_error, abs=1e-4)
    test = row["values"]["top1_error"]
    assert test["mean"] == pytest.approx(np.mean(test["ours"]))
    assert test["difference"] == pytest.approx(test["mean"] - 12.5)
    # The half of Student's 95% interval of two numbers is 12.706 times half their distance.
    assert test["interval"] == pytest.approx(
        12.7062 * abs(np.subtract(*test["ours"])) / 2, rel=1e-4
    )


def test_given_runs_nothing_is_run_and_a_missing_one_says_so(out, tmp_path, experiments):
    before = sorted(str(path) for path in out.glob("runs/*/checkpoints/*"))
    report = remake("curves", out, tmp_path)
    there = json.loads((out / "curves.json").read_text())
    assert report["rows"][:2] == there["rows"]
    assert report["rows"][2]["values"]["top1_error"]["mean"] is None
    text = reports.markdown(report)
    assert "| plain-32 | not run | not run |  | not run |  |  |  |" in text
    assert "A note." in text
    assert sorted(str(path) for path in out.glob("runs/*/checkpoints/*")) == before
    assert not (tmp_path / "runs").exists()


def test_a_run_that_has_not_ended_is_not_shown(out, tmp_path, experiments):
    runs = tmp_path / "cut"
    shutil.copytree(out / "runs" / "degradation-plain8-0", runs / "a")
    shutil.copytree(out / "runs" / "degradation-plain8-1", runs / "b")
    shutil.rmtree(runs / "b" / "checkpoints" / "40")
    plan = Plan(epath.Path(tmp_path), runs=epath.Path(runs), changes=TINY)
    with few_optimizations():
        report = make_report("curves", plan, command="")
    assert [row["seeds"] for row in report["rows"]] == [[0], [0], []]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 32}, "workdir of another config"),
        ({"total_steps": 20}, "has a run of 40 steps, and one of 20 is wanted"),
    ],
)
def test_a_finished_run_of_another_config_is_refused(out, changes, message):
    plan = Plan(out, changes={**TINY, **changes})
    with pytest.raises(InputError, match=message):
        plan.make({"degradation.py:plain8": 1})


def test_runs_without_a_common_mean_are_refused(out, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(out / "runs" / "degradation-plain8-0", tmp_path / name)
    plan = Plan(epath.Path(tmp_path), runs=epath.Path(tmp_path), changes=TINY)
    with pytest.raises(InputError, match="two have one seed: a, b"):
        plan.make({"degradation.py:plain8": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.rindex("{")], "lacks errors of step 40"),
        (lambda text: text.replace('"top1_error": ', '"top1_error": "NaN", "_": '), "error of nan"),
        (lambda text: text.replace('"top1_error": ', '"top1_error": "a", "_": '), "error of 'a'"),
    ],
)
def test_a_damaged_log_is_refused(out, tmp_path, change, message):
    plan = Plan(epath.Path(tmp_path), runs=epath.Path(out / "runs"), changes=TINY)
    run = plan.make({"degradation.py:plain8": 1})["degradation.py:plain8"][0]
    damaged = shutil.copytree(run.workdir, tmp_path / "damaged") / "metrics.jsonl"
    damaged.write_text(change(damaged.read_text()))
    with pytest.raises(InputError, match=message):
        runs_of_plan.last_errors(runs_of_plan.curves(run._replace(workdir=damaged.parent)))


def test_the_picture_has_the_numbers_of_the_json(out):
    report = json.loads((out / "curves.json").read_text())
    plain, residual = figure_of(report).axes
    assert [line.get_label() for line in plain.lines] == ["plain-8", "plain-20"]
    assert not residual.lines
    for row, line in zip(report["rows"], plain.lines, strict=True):
        runs = [run["train"] for run in row["curves"]]
        np.testing.assert_array_equal(line.get_xdata(), runs[0][0])
        np.testing.assert_allclose(line.get_ydata(), np.mean([run[1] for run in runs], axis=0))
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_responses_are_drawn_in_order_and_sorted(out, tmp_path, experiments):
    report = remake("responses", out, tmp_path)
    row = report["rows"][0]
    values = np.array([[*of_run.values()] for of_run in row["responses"]])
    assert values.shape == (2, 3)
    assert row["values"]["mean_response"]["ours"] == pytest.approx(values.mean(axis=1), abs=1e-5)
    in_order, ranked = figure_of(report).axes
    np.testing.assert_allclose(in_order.lines[0].get_ydata(), values.mean(axis=0))
    drawn = ranked.lines[0].get_ydata()
    assert (np.diff(drawn) <= 0).all()


def test_an_ensemble_takes_a_run_of_each_member(out, tmp_path, experiments):
    report = remake("ensemble", out, tmp_path)
    two, cited = report["rows"]
    assert len(two["values"]["top1_error"]["ours"]) == 1
    assert cited["values"]["top1_error"]["mean"] is None
    (measured,) = (tmp_path / "measured").glob("*.json")
    names = [epath.Path(w).name for w in json.loads(measured.read_text())["workdirs"]]
    assert names == ["degradation-plain8-0", "degradation-plain8-1"]
    figure = figure_of({**report, "heading": "A long title " * 9})
    assert figure.get_suptitle().count("\n") == 1  # for it would be cut off
    numbers = figure.axes[0]
    assert [label.get_text() for label in numbers.get_yticklabels()] == ["two", "cited"]


def test_what_was_measured_is_not_measured_again(out, tmp_path, experiments, monkeypatch):
    first = remake("ensemble", out, tmp_path)
    monkeypatch.setattr(runs_of_plan, "evaluate_ensemble", None)
    again = remake("ensemble", out, tmp_path)
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize(("ours", "interval"), [([], None), ([3.0], None), ([3.0, 3.0, 3.0], 0.0)])
def test_an_interval_needs_two_runs(ours, interval):
    found = reports.summary(ours, 4.0)
    assert found["interval"] == interval
    assert found["difference"] == (-1.0 if ours else None)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(1000, 3)).tolist()
    found = [reports.summary(sample, 0.0) for sample in samples]
    covered = np.mean([abs(one["difference"]) <= one["interval"] for one in found])
    assert math.isclose(covered, 0.95, abs_tol=0.02)


def test_conclusions_count_the_seeds_in_which_depth_hurts(experiments):
    def row(label, errors):
        value = reports.summary(errors, None)
        seeds, values = [0, 1, 2], {"train_error": value}
        return {"label": label, "seeds": seeds, "steps": [9, 9, 9], "values": values}

    rows = [row("plain-8", [0.0, 0.0, 0.5]), row("plain-32", [30.0, 0.9, 1.4])]
    rows += [row("ResNet-8", [0.0, 0.0, 0.0]), row("ResNet-32", [0.0, 0.1, 0.0])]
    plain, residual = reports._conclusions(CURVES, rows)
    assert "of plain-32 is more than 1 point above that of plain-8 in 1 of 3 seeds" in plain
    assert "in 0 of 3 seeds (means 0.03% and 0.00%)" in residual
    rows[1]["steps"] = [10, 10, 10]
    assert reports._conclusions(CURVES, rows) == [residual]  # runs of two lengths say nothing
