"""Prepared data sets: the images of any source in a few large files, on request made smaller.

`python -m resnet_jax prepare` does it from the command line.
"""

from resnet_jax.data.prepare.plan import Settings
from resnet_jax.data.prepare.verify import read_manifest, verify
from resnet_jax.data.prepare.write import prepare

__all__ = ["Settings", "prepare", "read_manifest", "verify"]
