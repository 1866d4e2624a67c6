"""Arithmetic in float64, in which equality is not a matter of a machine's rounding."""

import contextlib
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

_ROOMS = ("resnet_jax.models.", "resnet_jax.training.", "resnet_jax.data.")


@contextlib.contextmanager
def double_precision():
    """Computes in float64 where networks, steps and preprocessing say float32."""

    class Double:
        float32 = jnp.float64
        __getattr__ = staticmethod(functools.partial(getattr, jnp))

    with (
        pytest.MonkeyPatch.context() as patch,
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),  # flax keeps some numbers of its own in float32
    ):
        for name, module in list(sys.modules.items()):
            if name.startswith(_ROOMS) and hasattr(module, "jnp"):
                patch.setattr(module, "jnp", Double())
        yield


def double(tree):
    """Returns a tree with its numbers of float32 as numpy's float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else np.asarray(x), tree
    )
