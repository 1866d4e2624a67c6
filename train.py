"""Trains a network: `python train.py --workdir W [--config FILE] [--config.KEY=VALUE ...]`."""

import sys

from resnet_jax.cli import frame

if __name__ == "__main__":
    frame.run("train", sys.argv[1:], name="train.py")
