"""Evaluates a checkpoint: `python evaluate.py --workdir W [--step N | --best] [--protocol P]`."""

import sys

from resnet_jax.cli import frame

if __name__ == "__main__":
    frame.run("evaluate", sys.argv[1:], name="evaluate.py")
