"""The layers of networks: sizes, parameters, multiply-adds, activations, receptive fields."""

from resnet_jax.analysis.summarize import Layer, Summary, summarize

__all__ = ["Layer", "Summary", "summarize"]
