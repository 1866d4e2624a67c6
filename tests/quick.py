"""How to compile what runs once."""

import jax

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.__version_info__ < (0, 11):  # newer ones have no such choice
    QUICK["xla_cpu_use_fusion_emitters"] = False
"""Options of XLA that compile a network in a fraction of the time, and run it slowly."""
