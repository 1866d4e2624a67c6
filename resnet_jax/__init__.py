"""Deep Residual Learning for Image Recognition (arXiv 1512.03385), in JAX and Flax."""

__version__ = "0.1.0"
