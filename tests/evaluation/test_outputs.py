"""What could not be written after an evaluation is refused before it."""

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.evaluation import evaluate
from resnet_jax.evaluation import networks as evaluation_of_networks
from resnet_jax.training import train
from tests.data.pictures import encode
from tests.test_processes import finish, start
from tests.tiny import tiny_config


@pytest.fixture
def run(tmp_path):
    """A run, and a training image that became unreadable after it."""
    for split, count in (("train", 24), ("test", 1)):
        for label in range(2):
            for number in range(count):
                path = tmp_path / f"data/{split}/{label}/{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(np.full((9, 8), 100 * label + number, np.uint8)))
    data = {"data.source": "folder", "data.path": str(tmp_path / "data"), "data.in_memory": False}
    train(tiny_config(total_steps=2, **data), tmp_path / "run")
    return tmp_path / "run"


def test_a_workdir_that_takes_no_results_is_refused_before_the_work(run, monkeypatch):
    monkeypatch.setattr(evaluation_of_networks, "load_source", None)
    (run / "evaluations").touch()
    with pytest.raises(InputError, match=r"evaluations/any\.json cannot be written: "):
        evaluate(run)


def test_precise_statistics_see_what_training_saw_in_the_place_of_a_broken_image(run):
    expected = evaluate(run, precise_bn=48)
    (run.parent / "data/train/1/07.png").write_bytes(b"no image")
    found = evaluate(run, precise_bn=48)
    assert found.protocol["precise_bn"] == expected.protocol["precise_bn"] == 48
    assert found.loss != expected.loss


def test_a_file_that_only_one_process_would_write_ends_both(run):
    (run.parent / "a file").touch()
    predictions = run.parent / "a file/p.jsonl"
    statuses, outputs = finish(
        start("evaluate.py", f"--workdir={run}", f"--predictions={predictions}")
    )
    assert statuses == [2, 2], outputs
    for _, errors in outputs:
        assert f"{predictions} cannot be written: " in errors
