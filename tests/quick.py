"""How to compile what runs once."""

import contextlib
from collections.abc import Iterator

import jax

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.__version_info__ < (0, 11):  # newer ones have no such choice
    QUICK["xla_cpu_use_fusion_emitters"] = False
"""Options of XLA that compile a network in a fraction of the time, and run it slowly."""


@contextlib.contextmanager
def few_optimizations() -> Iterator[None]:
    """Compiles whatever does not say otherwise in less time; it runs more slowly then."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
