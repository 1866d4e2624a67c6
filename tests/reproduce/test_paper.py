"""The experiments: their configs exist, and their numbers are the paper's."""

import numpy as np
import pytest

from resnet_jax.config import load_config
from resnet_jax.errors import InputError
from resnet_jax.models import list_models
from resnet_jax.reproduce import EXPERIMENTS
from resnet_jax.reproduce.paper import METRICS

ROWS = [(name, row) for name, experiment in EXPERIMENTS.items() for row in experiment.rows]


def test_every_run_has_a_config_and_every_size_a_network():
    for name, row in ROWS:
        for spec in row.configs:
            if EXPERIMENTS[name].kind == "sizes":
                assert spec in list_models()
            else:
                assert load_config(spec).total_steps > 0


def test_labels_say_which_network_is_run():
    """A label such as ResNet-34 B names the depth and the shortcut of its config."""
    for name, row in ROWS:
        kind, _, rest = row.label.partition("-")
        if kind not in ("plain", "ResNet") or not row.configs or name == "table5":
            continue
        (spec,) = row.configs
        model = load_config(spec).model
        depth, _, shortcut = rest.partition(" ")
        assert model.name.removeprefix("cifar_") == f"{kind.lower()}{depth}", row
        assert shortcut in ("", model.shortcut), row


def test_metrics_are_named_and_published_numbers_are_of_measured_ones():
    for name, row in ROWS:
        metrics = EXPERIMENTS[name].metrics
        assert set(metrics) <= set(METRICS)
        assert not row.paper or set(row.paper) & set(metrics), (name, row)


@pytest.mark.parametrize(
    ("name", "metric", "wanted"),
    [
        ("table2", "top1_error", [27.94, 28.54, 27.88, 25.03]),
        (
            "table3",
            "top1_error",
            [28.07, None, 24.27, 28.54, 25.03, 24.52, 24.19, 22.85, 21.75, 21.43],
        ),
        ("table3", "top5_error", [9.33, 9.15, 7.38, 10.02, 7.76, 7.46, 7.40, 6.71, 6.05, 5.71]),
        ("table4", "top5_error", [8.43, 7.89, 7.1, 5.71, 5.81, 5.71, 5.60, 5.25, 4.60, 4.49]),
        ("table5", "top5_error", [7.32, 6.66, 6.8, 4.94, 4.82, 3.57]),
        ("table6", "top1_error", [8.75, 7.51, 7.17, 6.97, 6.43, 7.93]),
    ],
)
def test_published_numbers(name, metric, wanted):
    found = [row.paper.get(metric) for row in EXPERIMENTS[name].rows]
    assert found == wanted


def test_the_multiply_adds_of_table_1_are_those_of_the_summary_to_two_percent():
    from resnet_jax.reproduce.report import _summary

    row = EXPERIMENTS["table1"].rows[0]
    found = _summary(row.configs[0]).multiply_adds / 1e9
    np.testing.assert_allclose(found, row.paper["multiply_adds"], rtol=0.02)


def test_a_config_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"cifar10\.py"):
        load_config("cifar.py:resnet20")
    with pytest.raises(InputError, match="resnet20"):
        load_config("cifar10.py:resnet21")
