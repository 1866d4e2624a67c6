"""The results and files of every protocol, on the finished run of `tests/pins/run`.

`evaluation.json` holds the JSON lines, `predictions.jsonl` and `per_class.csv` the files, and
`run.safetensors` the run's newest checkpoint under our own names, as commit 3111d32 wrote them.
"""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.evaluation import Protocol, evaluate

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
LINES = json.loads((HERE / "evaluation.json").read_text())
SMALL = "test[:60]"
CASES = {
    "test-{step}": {},
    "best": {"which": "best"},
    "step": {"which": 10, "split": SMALL},
    SMALL + "-{step}-ten_crop-resize10": {
        "split": SMALL,
        "protocol": Protocol("ten_crop", resize=10),
    },
    SMALL + "-{step}-resize12-crop10-bicubic": {
        "split": SMALL,
        "protocol": Protocol("single_crop", resize=12, crop=10, interpolation="bicubic"),
    },
    SMALL + "-{step}-multi_scale-8-11": {
        "split": SMALL,
        "protocol": Protocol("multi_scale", scales=(8, 11)),
    },
    SMALL + "-{step}-precise_bn64": {"split": SMALL, "precise_bn": 70},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return shutil.copytree(HERE / "run", tmp_path_factory.mktemp("pins") / "run")


def compare(found, expected):
    """Keys, their order, and counts exactly; errors to one image; losses to 1e-5."""
    assert list(found) == list(expected)
    one_image = 100 / expected["examples"]
    for key, value in expected.items():
        if key.endswith("_error"):
            assert found[key] == pytest.approx(value, abs=1.001 * one_image), key
        elif key == "loss":
            assert found[key] == pytest.approx(value, abs=1e-5, rel=1e-5)
        else:
            assert json.dumps(found[key]) == json.dumps(value), key


@pytest.mark.parametrize("case", CASES)
def test_a_run_has_the_same_errors_in_the_same_file(workdir, case):
    options = CASES[case]
    result = evaluate(workdir, **options)
    expected = LINES[case]
    name = case.format(step=expected["step"])
    if case in ("best", "step"):
        name = f"{expected['split']}-{expected['step']}"
    found = json.loads((workdir / "evaluations" / f"{name}.json").read_text())
    compare(found, expected)
    for attribute in ("split", "examples", "top1_error", "top5_error", "loss"):
        assert getattr(result, attribute) == found[attribute]


def test_the_files_of_predictions_and_classes(workdir, tmp_path):
    predictions, per_class = tmp_path / "a/predictions.jsonl", tmp_path / "per_class.csv"
    evaluate(workdir, split=SMALL, predictions=predictions, per_class=per_class)
    found, expected = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (predictions, HERE / "predictions.jsonl")
    )
    assert len(found) == len(expected) == 60
    for here, there in zip(found, expected, strict=True):
        assert list(here) == list(there) == ["key", "label", "top5", "probabilities"]
        assert (here["key"], here["label"]) == (there["key"], there["label"])
        np.testing.assert_allclose(here["probabilities"], there["probabilities"], atol=1e-5)
        assert len(here["top5"]) == len(set(here["top5"])) == 5
        clear = np.abs(np.diff(there["probabilities"])) > 1e-4
        for place in range(4):  # neighbours that are nearly equal may change places
            if clear[max(0, place - 1) : place + 1].all():
                assert here["top5"][place] == there["top5"][place]
    tables = []
    for path in (per_class, HERE / "per_class.csv"):
        with path.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for here, there in zip(*tables, strict=True):
        assert list(here) == list(there)
        assert (here["class_name"], here["examples"]) == (there["class_name"], there["examples"])
        for error in ("top1_error", "top5_error"):
            one_image = 100 / int(there["examples"])
            assert float(here[error]) == pytest.approx(float(there[error]), abs=1.001 * one_image)


@pytest.mark.parametrize("case", ["ensemble", "weights"])
def test_the_line_of_evaluate_py(workdir, case):
    flags = {
        "ensemble": ["--workdir=run", "--workdir=run", "--step=10", "--protocol=ten_crop"],
        "weights": ["--weights", str(HERE / "run.safetensors"), f"--config={ROOT}/tests/tiny.py"],
    }[case]
    if case == "ensemble":
        flags.append("--resize=10")
    ended = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *flags, f"--split={SMALL}"],
        capture_output=True,
        text=True,
        cwd=workdir.parent,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    (line,) = ended.stdout.splitlines()
    found = json.loads(line)
    if case == "weights":
        assert found["weights"] == str(HERE / "run.safetensors")
        found["weights"] = LINES[case]["weights"]
    compare(found, LINES[case])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"which": 3}, "no checkpoint 3 in "),
        ({"split": "tset"}, "there is no split of digits 'tset'"),
        ({"per_class": "a.txt"}, r"the errors of the classes are a \.csv or a \.json file"),
        ({"predictions": HERE}, f"{HERE} is a folder; give the name of a file"),
        ({"predictions": "a.csv", "per_class": "a.csv"}, "a.csv cannot have both predictions and "),
        ({"precise_bn": 3}, "precise statistics need at least a group of 16 images"),
        ({"protocol": Protocol("ten_crop")}, "ten crops are taken of images that are larger "),
    ],
)
def test_refusals(workdir, options, words):
    with pytest.raises(InputError, match=f"^{words}"):
        evaluate(workdir, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ten_crops"}, "there is no protocol of evaluation 'ten_crops'; did you mean ten"),
        ({"interpolation": "nearest"}, "there is no interpolation 'nearest'"),
        ({"name": "multi_scale", "crop": 3}, "multi_scale takes whole images and no crops"),
        ({"name": "multi_scale", "scales": ()}, "multi_scale has at least one scale"),
        ({"name": "ten_crop", "scales": (3,)}, "scales belong to multi_scale"),
    ],
)
def test_refusals_of_protocols(options, words):
    with pytest.raises(InputError, match=f"^{words}"):
        Protocol(**options)


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"^there is no workdir "):
        evaluate(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"^\S+ is no workdir: it has no config\.json"):
        evaluate(tmp_path)
