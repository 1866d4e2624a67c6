"""Results of runs, weights and ensembles: what is printed, written and refused."""

import csv
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from resnet_jax import InputError, interop
from resnet_jax.cli.evaluate import main
from resnet_jax.evaluation import (
    Network,
    Protocol,
    evaluate,
    evaluate_ensemble,
    metrics,
    network_of_weights,
    restore,
    results,
    weights_of_run,
)
from tests.data.pictures import encode
from tests.test_processes import finish, start
from tests.tiny import tiny_config

HERE = pathlib.Path(__file__).parent
TEN = Protocol("ten_crop", resize=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return shutil.copytree(HERE.parent / "pins/run", tmp_path_factory.mktemp("runs") / "run")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_and_classes_agree_with_the_errors(run, tmp_path):
    files = {"predictions": tmp_path / "a/b.jsonl", "per_class": tmp_path / "c.csv"}
    found = evaluate(run, split="test[:101]", protocol=TEN, **files)
    predictions = lines(files["predictions"])
    assert [p["key"] for p in predictions] == [f"digits/{1437 + i}" for i in range(101)]
    wrong = [p["label"] != p["top5"][0] for p in predictions]
    assert found.examples == len(predictions) == 101
    assert found.top1_error == pytest.approx(100 * np.mean(wrong))
    assert found.top5_error == pytest.approx(
        100 * np.mean([p["label"] not in p["top5"] for p in predictions])
    )
    probabilities = np.array([p["probabilities"] for p in predictions])
    assert (np.diff(probabilities, axis=1) <= 0).all()
    assert (probabilities.sum(axis=1) <= 1 + 1e-6).all()

    with files["per_class"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["class_name"] for row in table] == list("0123456789")
    for row in table:
        mine = [p for p in predictions if p["label"] == row["class_name"]]
        others = [p["top5"][0] for p in mine if p["top5"][0] != p["label"]]
        assert int(row["examples"]) == len(mine)
        assert float(row["top1_error"]) == pytest.approx(100 * len(others) / len(mine), abs=1e-4)
        counts = [others.count(str(digit)) for digit in range(10)]
        assert int(row["confused"]) == max(counts)
        assert row["confused_with"] == (str(np.argmax(counts)) if others else "")
    evaluate(run, split="test[:101]", protocol=TEN, per_class=tmp_path / "c.JSON")
    as_json = json.loads((tmp_path / "c.JSON").read_text())
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == table


def test_a_metric_is_one_function(run, monkeypatch):
    def confidence(predictions):
        return float(predictions.probabilities[:, 0].mean())

    monkeypatch.setitem(metrics.METRICS, "confidence", confidence)
    result = evaluate(run, split="test[:20]")
    assert list(result.as_json())[-3:] == ["loss", "confidence", "protocol"]
    assert 0.1 < result.confidence == result.as_json()["confidence"] < 1
    with pytest.raises(AttributeError, match="no metric top9_error"):
        result.top9_error  # noqa: B018


def test_ensembles_of_one_kind_and_another(run, tmp_path):
    weights = tmp_path / "a.safetensors"
    interop.write_weights(weights_of_run(run, 10), weights, "resnet_jax")
    ours, theirs = restore(run), network_of_weights(weights, tiny_config())
    options = {"protocol": TEN, "split": "test[:40]"}
    found = evaluate_ensemble([ours, theirs, ours], **options)
    assert [each["name"] for each in found.networks] == [str(run), str(weights), str(run)]
    assert [each["step"] for each in found.networks] == [30, None, 30]
    assert found.networks[0]["protocol"]["resize"] == 10
    alone = evaluate_ensemble([ours], **options)
    assert alone.loss == pytest.approx(evaluate(run, **options).loss)
    assert alone.loss != found.loss
    with pytest.raises(InputError, match=r"more knows 12 classes and .*run 10; only networks of t"):
        evaluate_ensemble([ours, ours._replace(name="more", num_classes=12)])
    with pytest.raises(InputError, match="fewer knows 7 classes, and the data has 10"):
        evaluate_ensemble([theirs._replace(name="fewer", num_classes=7)])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"channels": 4}, {}, "takes images of 4 channels, and the data has 3"),
        ({"class_names": tuple("abcdefghij")}, {}, "label 0 is '0' in the former and 'a' in the l"),
        ({}, {"predictions": "a file/p.jsonl"}, r"a file/p\.jsonl cannot be written: "),
    ],
)
def test_refusals_before_the_work(run, tmp_path, monkeypatch, change, options, message):
    monkeypatch.setattr(results, "predict", None)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("a file").touch()
    with pytest.raises(InputError, match=message):
        evaluate_ensemble([restore(run)._replace(**change)], **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_workdir_that_takes_no_results_is_refused_before_the_work(run, tmp_path, monkeypatch):
    workdir = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    monkeypatch.setattr(results, "predict", None)
    (workdir / "evaluations").touch()
    with pytest.raises(InputError, match=r"evaluations/any\.json cannot be written: "):
        evaluate(workdir)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_refused(run, monkeypatch, value):
    network = restore(run)
    monkeypatch.setattr(results, "predict", None)
    broken = jax.tree.map(np.array, network.variables)
    broken["batch_stats"]["stem"]["bn"]["var"][0] = value
    message = r"run has values that are not numbers \(NaN or infinite\) in batch_stats/stem/bn/var"
    with pytest.raises(InputError, match=message):
        evaluate_ensemble([network._replace(variables=broken)])


@pytest.mark.parametrize("protocol", [None, TEN])
def test_outputs_that_are_not_numbers_are_refused(run, protocol):
    network = restore(run)
    huge = jax.tree.map(lambda array: np.full_like(array, 3e38), network.variables)
    with pytest.raises(InputError, match=r"the outputs of \S*run are not numbers"):
        evaluate_ensemble([network._replace(variables=huge)], protocol=protocol, split="test[:9]")


@pytest.mark.filterwarnings("ignore:the load_module")  # in ml_collections
def test_the_program_prints_how_images_were_seen(run, tmp_path, capsys):
    flags = ["--protocol=multi_scale", "--scales=8,11", "--precise_bn=32", "--split=test[:50]"]
    main(["--workdir", str(run), *flags, f"--predictions={tmp_path / 'a.jsonl'}"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        *("step", "split", "examples", "top1_error", "top5_error", "loss", "protocol")
    ]
    assert found["protocol"] == {
        "name": "multi_scale",
        "views": 4,
        "scales": [8, 11],
        "interpolation": "bilinear",
        "precise_bn": 32,
        "shapes": 2,
    }
    assert len(lines(tmp_path / "a.jsonl")) == 50


@pytest.mark.filterwarnings("ignore:the load_module")  # in ml_collections
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --workdir, with --step or --best if wanted; or --weights and a --config"),
        (["--weights=a", "--best"], "give --workdir, with --step or --best if wanted; or --wei"),
        (["--workdir=a", "--config.seed=1"], "a run has a config of its own; --config is for"),
        (["--workdir=a", "--best", "--step=3"], "--step and --best each name a checkpoint"),
        (
            ["--workdir=a", "--protocol=multi_scale", "--scales=8,x"],
            "'x' is not a number of pixels; write scales as 224,256,384,480,640",
        ),
    ],
)
def test_the_program_refuses_flags_that_do_not_fit(flags, message):
    with pytest.raises(InputError, match=f"^{message}"):
        main(flags)


def test_precise_statistics_see_what_training_saw_in_the_place_of_a_broken_image(run, tmp_path):
    for split, count in (("train", 5), ("test", 1)):
        for label in range(10):
            for number in range(count):
                path = tmp_path / f"{split}/{label}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(np.full((9, 8), 20 * label + number, np.uint8)))
    network = restore(run)
    network.config.data.source, network.config.data.path = "folder", str(tmp_path)
    expected = evaluate_ensemble([network], precise_bn=50)
    (tmp_path / "train/1/3.png").write_bytes(b"no image")
    found = evaluate_ensemble([network], precise_bn=50)
    for result in (expected, found):
        assert result.networks[0]["protocol"]["precise_bn"] == 48
    assert found.loss != expected.loss


@pytest.mark.slow  # of a single crop see tests/test_processes.py
def test_two_processes_find_what_one_does(run, tmp_path):
    files = {name: tmp_path / name for name in ("one.jsonl", "two.jsonl")}
    options = {"split": "test[:37]", "protocol": Protocol("multi_scale", scales=(8, 11))}
    expected = evaluate(run, **options, precise_bn=48, predictions=files["one.jsonl"])
    flags = ["--split=test[:37]", "--protocol=multi_scale", "--scales=8,11", "--precise_bn=48"]
    flags += [f"--workdir={run}", f"--predictions={files['two.jsonl']}"]
    statuses, outputs = finish(start("evaluate.py", *flags))
    assert statuses == [0, 0], outputs
    found = json.loads(outputs[0][0].splitlines()[-1])
    assert "{" not in outputs[1][0]
    assert found["examples"] == expected.examples
    assert found["top1_error"] == pytest.approx(expected.top1_error, abs=1.001 * 100 / 37)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-4)
    one, two = (lines(path) for path in files.values())
    for here, there in zip(one, two, strict=True):
        assert (here["key"], here["label"]) == (there["key"], there["label"])
        np.testing.assert_allclose(here["probabilities"], there["probabilities"], atol=1e-4)


def test_networks_of_runs_and_of_weights_are_of_one_type(run):
    ours = restore(run, "best")
    theirs = network_of_weights(HERE.parent / "pins/run.safetensors", tiny_config())
    assert isinstance(ours, Network)
    assert isinstance(theirs, Network)
    assert ours.step == 10
    assert ours.image_shape == theirs.image_shape == (8, 8, 1)
    assert jax.tree.map(np.shape, ours.variables) == jax.tree.map(np.shape, theirs.variables)
