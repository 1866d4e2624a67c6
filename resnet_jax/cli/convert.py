"""Converts weights: `convert SOURCE DESTINATION --to DIALECT`.

A source is a file, a folder, an id of the hub, or the workdir of a run. Exit status: 0 done, 2
wrong input, 1 anything else.
"""

from collections.abc import Sequence
from typing import get_args

from resnet_jax.cli.frame import Parser, add_checkpoint, checkpoint_of_source
from resnet_jax.errors import InputError
from resnet_jax.evaluation import weights_of_run
from resnet_jax.interop import DialectName, read_weights, write_weights

_DIALECTS = get_args(DialectName)
_DESTINATION = "NAME.safetensors, NAME.h5 (Keras), NAME.caffemodel, or a folder to be made"


def main(arguments: Sequence[str]) -> None:
    """Converts weights as the command line after the command says."""
    parser = Parser("convert", __doc__)
    parser.add_argument("source", help="file, folder, owner/name of the hub, or workdir of a run")
    parser.add_argument("destination", help=_DESTINATION)
    parser.add_argument("--to", choices=_DIALECTS, required=True, help="names of the destination")
    parser.add_argument("--from", choices=_DIALECTS, dest="dialect", help="names of the source")
    add_checkpoint(parser)
    parser.add_argument(
        "--force", action="store_true", help="also where the other library has no such network"
    )
    given = parser.parse_args(arguments)
    which = checkpoint_of_source(given)
    if which is None:
        weights = read_weights(given.source, dialect=given.dialect)
    elif given.dialect is not None:
        raise InputError(f"{given.source} is a run, whose names are our own; leave --from out")
    else:
        weights = weights_of_run(given.source, which)
    write_weights(weights, given.destination, given.to, force=given.force)
