"""Prepared data sets: images of any source in a few large files, checked and made smaller.

`python -m resnet_jax prepare` does it from the command line.
"""

from resnet_jax.data.prepare.plan import Settings
from resnet_jax.data.prepare.run import prepare
from resnet_jax.data.prepare.verify import verify

__all__ = ["Settings", "prepare", "verify"]
