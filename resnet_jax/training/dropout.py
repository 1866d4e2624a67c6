"""Dropout by example: what is dropped depends on the example, not on where it is computed."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int


@contextlib.contextmanager
def dropout_by_example(rows: Int[Array, " n"]) -> Iterator[None]:
    """Makes each `nn.Dropout` draw the mask of an example from its row in the global batch.

    With the same key on all replicas, an example loses the same units on any number of them, and
    no two examples of a batch are alike. Masks are not shared by examples even where a layer's
    `broadcast_dims` has the first dimension. Arrays that go through dropout have an example a row.
    """

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if not isinstance(module, nn.Dropout) or context.method_name != "__call__":
            return call(*args, **kwargs)
        inputs, *others = args

        def drop(example: Float[Array, "..."], key: Array) -> Float[Array, "..."]:
            return call(example[None], *others, **{"rng": key, **kwargs})[0]

        key = module.make_rng(module.rng_collection)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
        return jax.vmap(drop)(inputs, keys)

    with nn.intercept_methods(intercept):
        yield
