"""Bytes that a step reduces, against XLA's own; times of all-reduces by hand."""

import functools
import math
import re

import jax
import numpy as np
import pytest

from resnet_jax import InputError, create_model, summarize
from resnet_jax.analysis.roofline import DEVICES, Device, Roofline
from resnet_jax.analysis.scaling import (
    LINKS,
    Input,
    Links,
    reduced_bytes,
    reduction_seconds,
    scaling_table,
)
from resnet_jax.data import Statistics
from resnet_jax.models import variable_shapes
from resnet_jax.parallel import AXIS, Replicas
from resnet_jax.training import init_state, make_train_step
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.schedules import make_schedule
from tests.quick import QUICK
from tests.tiny import tiny_config

ROUND = Links(host=2, island=4, fast=1e9, network=1e8, source="round numbers")


def all_reduced_bytes(hlo):
    """Returns the bytes of all results of all-reduces."""
    results = re.findall(r" = (.*) all-reduce(?:-start)?\(", hlo)
    arrays = [array for result in results for array in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    assert {kind for kind, _ in arrays} == {"f32"}
    return 4 * sum(math.prod(map(int, sides.split(",") if sides else ())) for _, sides in arrays)


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
@pytest.mark.parametrize("name", ["cifar_resnet8", "lenet5_modern"])
def test_xla_reduces_the_counted_bytes(name, mapping):
    options = {"num_classes": 10}
    if name == "cifar_resnet8":
        options |= {"stage_sizes": (1,), "width": 4, "dtype": "bfloat16"}
        options |= {"bn_group_size": 2, "bn_axis_name": AXIS}
    shape = (32, 32, 3)
    model, config = create_model(name, **options), tiny_config()
    optimizer = make_optimizer(config.optimizer)
    step = make_train_step(
        model,
        optimizer,
        make_schedule(config.schedule, config.total_steps),
        Statistics(np.zeros(3, np.float32), np.ones(3, np.float32)),
        padding=0,
        label_smoothing=0.0,
        frozen=(),
        seed=0,
    )
    replicas = Replicas(mapping, devices=jax.devices()[:4], compiler_options=QUICK)
    state = jax.eval_shape(functools.partial(init_state, model, optimizer, shape, seed=0))
    batch = {
        "image": jax.ShapeDtypeStruct((8, *shape), np.uint8),
        "label": jax.ShapeDtypeStruct((8,), np.int32),
    }
    hlo = replicas.map(step).compile(state, replicas.shard_shapes(batch)).as_text()
    counted = reduced_bytes(variable_shapes(model, shape))
    assert all_reduced_bytes(hlo) == sum(counted.values())
    assert (counted["statistics"] > 0) == (name == "cifar_resnet8")


def test_resnet50_reduces_its_parameters_and_statistics():
    counted = reduced_bytes(variable_shapes(create_model("resnet50"), (224, 224, 3)))
    assert counted == {"gradients": 4 * 25_557_032, "statistics": 4 * 53_120, "metrics": 8}


def test_all_reduces_by_hand():
    assert reduction_seconds(ROUND, 10**9, 1) == 0
    assert reduction_seconds(ROUND, 10**9, 2) == 1  # half is sent twice
    assert reduction_seconds(ROUND, 10**9, 4) == 1.5
    # Of a quarter of the bytes, half and three quarters are sent twice through the network.
    assert reduction_seconds(ROUND, 10**9, 8) == 1.5 + 2.5
    assert reduction_seconds(ROUND, 10**9, 16) == 1.5 + 3.75
    with pytest.raises(InputError, match="--devices is 5, and must be at most 4"):
        reduction_seconds(ROUND._replace(network=None), 1, 5)


def test_every_kind_has_a_roofline_and_whole_hosts():
    assert LINKS.keys() == DEVICES.keys()
    assert all(links.island % links.host == 0 for links in LINKS.values())


def test_the_table_by_hand():
    # 10 images take 1 ms at the limit, which is reached by half.
    summary = summarize(create_model("cifar_resnet8"), (32, 32, 3))
    unlimited = Device(1e30, 1e30, 1.0, "a device")
    moved = sum(o.bytes for o in Roofline(summary, unlimited, 10, "float32").operations)
    roofline = Roofline(summary, unlimited._replace(bandwidth=moved / 1e-3), 10, "float32")
    image = Input(seconds=1e-3, read=1e6, sent=2e6)
    table = scaling_table(roofline, ROUND, {"gradients": 2 * 10**6}, image, (1, 8), 50)
    _, one, eight, _, *text = table.splitlines()
    assert " ".join(one.split()) == "1 10 5,000 2.00 0.000 0.0% 1 5 5.00 10.00"
    # 3 ms in islands, 5 ms between them.
    assert " ".join(eight.split()) == "8 80 8,000 10.00 8.000 80.0% 4 2 2.00 4.00"
    assert text[0] == "a device: training, batch 10, float32, 2.00 ms, 50% of the roofline's limit"
    assert text[2] == "all-reduce: 2,000,000 bytes (gradients 2,000,000)"
