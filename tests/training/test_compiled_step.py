"""The compiled step of a run: where its replicas meet, and the memory that it uses again."""

import dataclasses
import functools
import re

import jax
import pytest

from resnet_jax.parallel import Replicas
from resnet_jax.training.run import Run
from tests.quick import QUICK
from tests.tiny import tiny_config

MAPPINGS = ("pmap", "shard_map")
SHARE = 2  # images of each of the 8 replicas
COLLECTIVE = re.compile(
    r" (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+)(?:-start)?\("
)


@functools.cache
def compiled(mapping, group_size):
    """Returns the program of the step as text, and the number of arrays of the state."""
    run = Run.from_config(tiny_config(**{"model.bn_group_size": group_size}))
    run = dataclasses.replace(run, replicas=Replicas(mapping, compiler_options=QUICK))
    assert run.replicas.count == run.config.batch_size // SHARE == 8
    batch = run.replicas.shard(next(run.batches(0)))
    program = run.train_step(run.measure_statistics()).compile(run.state_shapes, batch)
    return program.as_text(), len(jax.tree.leaves(run.state_shapes))


def collectives(hlo):
    """Returns the names that jax gave to the operations in which replicas meet."""
    lines = [line for line in hlo.splitlines() if COLLECTIVE.search(line)]
    return [re.findall(r'op_name="(.*?)"', line)[0] for line in lines]


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_replicas_meet_once_and_after_the_backward_pass(mapping):
    (name,) = collectives(compiled(mapping, SHARE)[0])
    assert "jvp" not in name  # neither in the pass forward nor backward, which is its transpose


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_replicas_meet_in_each_normalization_that_spans_them(mapping):
    names = collectives(compiled(mapping, 2 * SHARE)[0])
    passes = ["transpose" if "transpose" in name else "jvp" for name in names if "jvp" in name]
    assert passes == ["jvp"] * 3 + ["transpose"] * 3  # there are three
    assert len(names) == len(passes) + 1


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_each_array_of_the_state_is_written_in_its_own_place(mapping):
    hlo, arrays = compiled(mapping, SHARE)
    header = hlo.splitlines()[0]
    aliases = re.findall(r"\{(\d+)\}: \((\d+), \{\}, (?:may|must)-alias\)", header)
    assert arrays > 30
    assert aliases == [(str(i), str(i)) for i in range(arrays)]
