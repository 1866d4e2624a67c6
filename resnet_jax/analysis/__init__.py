"""The layers of networks: sizes, parameters, multiply-adds, activations, receptive fields."""

from resnet_jax.analysis.layers import Layer, Summary
from resnet_jax.analysis.summarize import summarize

__all__ = ["Layer", "Summary", "summarize"]
