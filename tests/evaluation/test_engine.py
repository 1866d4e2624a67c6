"""The engine and its metrics against the definitions in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data import Statistics, load_images
from resnet_jax.errors import InputError
from resnet_jax.evaluation import (
    Evaluator,
    Predictions,
    Protocol,
    ViewReader,
    errors_of_classes,
    measure,
    predict,
    same_classes,
)
from resnet_jax.models import create_model
from resnet_jax.parallel import Replicas
from tests.evaluation.plain import Images
from tests.evaluation.test_protocols import network


@pytest.fixture(scope="module")
def images():
    return load_images("digits", "test[:107]", 8)


STATISTICS = Statistics(mean=np.full(1, 100, np.float32), std=np.full(1, 50, np.float32))


def metrics_written_out(model, variables, images):
    """All images at once, in numpy, from the definition."""
    pixels, labels = images.read(np.arange(len(images)))
    apply = jax.jit(lambda images: model.apply(variables, images, train=False))
    logits = np.asarray(apply((jnp.asarray(pixels, jnp.float32) - 100) / 50), np.float64)
    of_label = logits[np.arange(len(labels)), labels][:, None]
    ranks = (logits > of_label).sum(axis=1)
    log_likelihood = of_label[:, 0] - np.log(np.exp(logits).sum(axis=1))
    return 100 * np.mean(ranks >= 1), 100 * np.mean(ranks >= 5), -log_likelihood.mean()


@pytest.mark.parametrize(
    ("devices", "batch_size", "mapping"),
    [(1, 107, "pmap"), (4, 100, "shard_map"), (8, 7, "pmap")],
)
def test_every_image_counts_once(images, devices, batch_size, mapping):
    model = create_model("cifar_resnet8", stage_sizes=(1,), width=4)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 1)), train=False))
    variables = dict(init(jax.random.key(1)))
    replicas = Replicas(mapping, devices=jax.devices()[:devices])
    evaluator = Evaluator(model, images, STATISTICS, replicas, batch_size=batch_size)
    found = evaluator(replicas.place(variables))
    top1, top5, loss = metrics_written_out(model, variables, images)
    assert list(found) == ["examples", "top1_error", "top5_error", "loss"]
    assert found["examples"] == 107
    one_image = 1.001 * 100 / 107  # of two classes that are nearly equal either may come first
    assert found["top1_error"] == pytest.approx(top1, abs=one_image)
    assert found["top5_error"] == pytest.approx(top5, abs=one_image)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_share_without_images_has_no_predictions():
    replicas = Replicas(devices=jax.devices()[:1])
    for protocol in (Protocol(), Protocol("multi_scale")):
        reader = ViewReader(Images(), range(9, 9))
        found, shapes = predict([network()], protocol, reader, replicas, batch_size=4)
        assert [column.shape for column in found] == [(0,), (0,), (0, 5), (0, 5)]
        assert shapes == [0]


def test_metrics_of_few_classes_and_images():
    """Of fewer than five classes the label is always among the five most probable."""
    labels = np.array([0, 1, 2, 0, 1], np.int32)
    classes = np.tile(np.array([0, 1, 2], np.int32), (5, 1))
    probabilities = np.tile(np.array([0.5, 0.25, 0.25], np.float32), (5, 1))
    losses = -np.log(probabilities[np.arange(5), labels])
    predictions = Predictions(labels, losses, classes, probabilities)
    assert measure(predictions) == {
        "examples": 5,
        "top1_error": pytest.approx(60),
        "top5_error": 0,
        "loss": pytest.approx(np.log(2) * 8 / 5),
    }
    assert [tuple(row) for row in errors_of_classes(predictions, ["a", "b", "c", "d"])] == [
        ("a", 2, 0.0, 0.0, None, 0),
        ("b", 2, 100.0, 0.0, "a", 2),
        ("c", 1, 100.0, 0.0, "a", 1),
        ("d", 0, None, None, None, 0),
    ]


def test_other_classes_than_those_of_training_are_refused(images):
    same_classes(images, [str(digit) for digit in range(10)])
    with pytest.raises(InputError, match=r"\(10 and 9\): label 3 is '3' in the former and '4' in"):
        same_classes(images, ["0", "1", "2", "4", "5", "6", "7", "8", "9"])
    with pytest.raises(InputError, match=r"label 9 is '9' in the former and None in the latter"):
        same_classes(images, [str(digit) for digit in range(9)])
