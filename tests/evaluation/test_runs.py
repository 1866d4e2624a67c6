"""Protocols over a run: what is printed, and what is written."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from resnet_jax import InputError, interop
from resnet_jax.data import load_source
from resnet_jax.evaluation import (
    Protocol,
    evaluate,
    evaluate_ensemble,
    network_of_run,
    network_of_weights,
    weights_of_run,
)
from resnet_jax.training import train
from tests.data.pictures import encode
from tests.test_processes import finish, start
from tests.tiny import tiny_config, tiny_flags

ROOT = pathlib.Path(__file__).parents[2]
TEN = Protocol("ten_crop", resize=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(total_steps=30), workdir)
    return workdir


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluate_py(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
    )


def test_the_usual_protocol_is_the_same_with_and_without_predictions(run, tmp_path):
    usual = evaluate(run)
    assert usual.protocol == {
        "name": "single_crop",
        "views": 1,
        "resize": 8,
        "crop": 8,
        "interpolation": "bilinear",
    }
    found = evaluate(run, predictions=tmp_path / "predictions.jsonl")
    assert found._replace(loss=usual.loss) == usual
    assert found.loss == pytest.approx(usual.loss, rel=1e-6)


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


def test_each_protocol_has_a_file_of_its_own(run):
    of_split = {"split": "test[:20]"}
    found = {
        "": evaluate(run, **of_split),
        "-ten_crop-resize10": evaluate(run, **of_split, protocol=TEN),
        "-ten_crop-resize10-crop6-bicubic": evaluate(
            run,
            **of_split,
            protocol=Protocol("ten_crop", resize=10, crop=6, interpolation="bicubic"),
        ),
        "-multi_scale-8-10": evaluate(
            run, **of_split, protocol=Protocol("multi_scale", scales=(8, 10))
        ),
        "-precise_bn64": evaluate(run, **of_split, precise_bn=70),
    }
    for name, evaluation in found.items():
        path = run / "evaluations" / f"test[:20]-30{name}.json"
        assert json.loads(path.read_text()) == json.loads(json.dumps(evaluation._asdict()))
        assert evaluation.examples == 20
    assert len({evaluation.loss for evaluation in found.values()}) == len(found)
    assert found["-multi_scale-8-10"].protocol["shapes"] == 2
    assert found["-precise_bn64"].protocol["precise_bn"] == 64


def test_ensembles_of_one_kind_and_another(run, tmp_path):
    weights = tmp_path / "a.safetensors"
    interop.write_weights(weights_of_run(run, 24), weights, "resnet_jax")
    ours, theirs = network_of_run(run), network_of_weights(weights, tiny_config())
    found = evaluate_ensemble([ours, theirs, ours], protocol=TEN)
    assert [each["name"] for each in found.networks] == [str(run), str(weights), str(run)]
    assert [each["step"] for each in found.networks] == [30, None, 30]
    assert found.networks[0]["protocol"]["resize"] == 10
    alone = evaluate_ensemble([ours], protocol=TEN)
    assert alone.loss == pytest.approx(evaluate(run, protocol=TEN).loss)
    assert alone.loss != found.loss
    with pytest.raises(InputError, match=r"more knows 12 classes and .*run 10; only networks of t"):
        evaluate_ensemble([ours, ours._replace(name="more", num_classes=12)])
    with pytest.raises(InputError, match="fewer knows 7 classes, and the data has 10"):
        evaluate_ensemble([theirs._replace(name="fewer", num_classes=7)])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"channels": 3}, {}, "takes images of 3 channels, and the data has 1"),
        ({"channels": 4}, {"protocol": TEN}, "takes images of 4 channels, and the data has 3"),
        ({}, {"protocol": Protocol("ten_crop")}, "resized to 8 pixels have one crop of 8"),
        ({}, {"per_class": "a.txt"}, "are a .csv or a .json file, and a.txt is not"),
        ({}, {"predictions": ROOT}, "is a folder; give the name of a file"),
        ({"class_names": tuple("abcdefghij")}, {}, "label 0 is '0' in the former and 'a' in the l"),
    ],
)
def test_what_does_not_belong_together_is_refused(run, change, options, message):
    network = network_of_run(run)._replace(**change)
    with pytest.raises(InputError, match=message):
        evaluate_ensemble([network], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictions": "a file/p.jsonl"}, r"a file/p\.jsonl cannot be written: "),
        ({"predictions": "x.json", "per_class": "x.json"}, "cannot have both predictions and"),
    ],
)
def test_what_could_not_be_written_is_refused_before_the_work(run, tmp_path, options, message):
    (tmp_path / "a file").touch()
    options = {name: tmp_path / path for name, path in options.items()}
    with pytest.raises(InputError, match=message):
        evaluate(run, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("protocol", [None, TEN])
def test_outputs_that_are_no_numbers_are_no_result(run, protocol):
    network = network_of_run(run)
    broken = jax.tree.map(lambda array: np.full_like(array, np.nan), network.variables)
    with pytest.raises(InputError, match="are not numbers"):
        evaluate_ensemble([network._replace(variables=broken)], protocol=protocol)


def test_evaluate_py_says_how_images_were_shown(run, tmp_path):
    flags = ["--protocol=multi_scale", "--scales=8,11", "--precise_bn=32", "--split=test[:50]"]
    ended = evaluate_py("--workdir", run, *flags, "--predictions", tmp_path / "a.jsonl")
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    found = json.loads(ended.stdout)
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


def test_evaluate_py_takes_several_runs(run):
    ended = evaluate_py("--workdir", run, "--workdir", run, "--step=28", "--split=test[:30]")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert [each["step"] for each in found["networks"]] == [28, 28]
    assert found["loss"] == pytest.approx(evaluate(run, which=28, split="test[:30]").loss)


def test_evaluate_py_refuses_scales_that_are_none(run):
    ended = evaluate_py("--workdir", run, "--protocol=multi_scale", "--scales=8,x")
    assert ended.returncode == 2
    assert ended.stderr == (
        "evaluate.py: 'x' is no number of pixels; write scales as 224,256,384,480,640\n"
    )


def test_a_broken_image_ends_both_processes_with_its_name(run, tmp_path):
    weights = tmp_path / "a.safetensors"
    interop.write_weights(weights_of_run(run), weights, "resnet_jax")
    for digit in range(10):
        path = tmp_path / f"data/test/{digit}/image.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode(np.full((9, 8), digit, np.uint8)))
    flags = tiny_flags(**{"data.source": "folder", "data.path": tmp_path / "data"})
    flags += [f"--weights={weights}", "--protocol=ten_crop", "--resize=10"]
    statuses, outputs = finish(start("evaluate.py", *flags))
    assert statuses == [0, 0], outputs
    broken = load_source("folder", "test", path=tmp_path / "data")[7].key
    (tmp_path / "data" / broken).write_bytes(b"no image")
    statuses, outputs = finish(start("evaluate.py", *flags))
    assert statuses == [2, 2], outputs
    for _, errors in outputs:
        assert errors.startswith(f"evaluate.py: image {broken} cannot be decoded")


@pytest.mark.parametrize("split", ["test[:37]", "test[:1]"])
def test_two_processes_find_what_one_does(run, tmp_path, split):
    files = {name: tmp_path / name for name in ("one.jsonl", "two.jsonl")}
    options = {"split": split, "protocol": Protocol("multi_scale", scales=(8, 11))}
    expected = evaluate(run, **options, precise_bn=48, predictions=files["one.jsonl"])
    flags = [f"--split={split}", "--protocol=multi_scale", "--scales=8,11", "--precise_bn=48"]
    flags += [f"--workdir={run}", f"--predictions={files['two.jsonl']}"]
    statuses, outputs = finish(start("evaluate.py", *flags))
    assert statuses == [0, 0], outputs
    found = json.loads(outputs[0][0].splitlines()[-1])
    assert "{" not in outputs[1][0]
    assert found["examples"] == expected.examples
    assert found["top1_error"] == expected.top1_error
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-5)
    one, two = (lines(path) for path in files.values())
    assert [p["key"] for p in one] == [p["key"] for p in two]
    assert [p["top5"] for p in one] == [p["top5"] for p in two]
