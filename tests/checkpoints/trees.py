"""What the tests of checkpoints save, and how they look at what is left."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from resnet_jax.checkpoints import Checkpoints

METADATA = {"config": {"seed": 3, "name": "résnet"}, "rates": [0.1, 1e-3], "none": None}


class Moments(NamedTuple):
    mean: Any
    scale: Any


def make_items(step: int) -> dict[str, Any]:
    numbers = np.random.default_rng(step)
    params = {
        "conv": {"kernel": jnp.asarray(numbers.normal(size=(3, 3, 8, 16)), jnp.float32)},
        "head": {"bias": jnp.asarray(numbers.normal(size=16), jnp.bfloat16)},
        "none": {},
    }
    optimizer = optax.chain(optax.trace(0.9), optax.identity())
    return {
        "variables": {"params": params, "batch_stats": {}},
        "training": {
            "step": jnp.int32(step),
            "opt_state": optimizer.init(params),
        },
        "measured": Moments(np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32(0.5)),
        "empty": {},
    }


def template(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree
    )


def place(tree: Any, devices: int) -> Any:
    return jax.tree.map(lambda x: jax.device_put(x, spread(devices)), tree)


def spread(devices: int) -> NamedSharding:
    """Rows over devices."""
    return NamedSharding(Mesh(jax.devices()[:devices], ("rows",)), PartitionSpec("rows"))


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def listing(folder: Path) -> list[tuple[str, int, int]]:
    paths = sorted(folder.rglob("*"))
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.isdigit())


def small(step: int) -> dict[str, Any]:
    return {"variables": {"w": jnp.full((4,), step, jnp.float32)}}


SMALL = {"variables": {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}}


def save_small(folder: Path, metrics: dict[int, float | None], **options: Any) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for step, metric in metrics.items():
            checkpoints.save(step, small(step), {}, metric=metric)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
