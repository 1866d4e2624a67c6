"""Analysis of networks: layers, sizes and costs; limits of devices; signals, gradients, maps."""

from resnet_jax.analysis.responses import Gradients, gradient_norms, layer_responses
from resnet_jax.analysis.summarize import Layer, Summary, summarize

__all__ = ["Gradients", "Layer", "Summary", "gradient_norms", "layer_responses", "summarize"]
