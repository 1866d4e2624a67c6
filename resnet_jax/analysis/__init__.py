"""What networks consist of, and what their layers do."""

from resnet_jax.analysis.layers import Layer, Summary
from resnet_jax.analysis.trace import summarize

__all__ = ["Layer", "Summary", "summarize"]
