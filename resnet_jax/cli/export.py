"""Exports a network: `export SOURCE DESTINATION`.

SOURCE is the workdir of a run, a file or folder of weights, or an id of the hub; DESTINATION is a
file to be made. Its program takes pixels, uint8 [n, h, w, c], of the size that is printed, and
returns logits. Exit status: 0 done, 2 wrong input, 1 anything else.
"""

from collections.abc import Sequence

from resnet_jax.cli.frame import Parser, add_checkpoint, checkpoint_of_source
from resnet_jax.config import base_config
from resnet_jax.errors import InputError
from resnet_jax.evaluation import network_of_weights, restore
from resnet_jax.files import check_writable, resolve_path, write_atomically
from resnet_jax.interop.export import PLATFORMS, export_stablehlo


def main(arguments: Sequence[str]) -> None:
    """Exports a network as the command line after the command says."""
    parser = Parser("export", __doc__)
    parser.add_argument("source", help="workdir of a run, file, folder, or owner/name of the hub")
    parser.add_argument("destination", help="file to be made")
    add_checkpoint(parser)
    parser.add_argument(
        "--normalised",
        action="store_true",
        help="the program takes float32 images whose mean has been subtracted already",
    )
    parser.add_argument("--platforms", default=",".join(PLATFORMS), help="separated by commas")
    given = parser.parse_args(arguments)
    which = checkpoint_of_source(given)
    destination = resolve_path(given.destination)
    if destination.exists():
        raise InputError(f"there is something at {destination} already; name a new file")
    check_writable(destination)
    if which is None:
        network = network_of_weights(given.source, base_config())
    else:
        network = restore(given.source, which)
    program = export_stablehlo(
        network.model,
        network.variables,
        network.image_shape,
        statistics=None if given.normalised else network.statistics,
        platforms=given.platforms.split(","),
    )
    write_atomically(destination, program)
    height, width, channels = network.image_shape
    kind = "normalised float32 images" if given.normalised else "uint8 pixels"
    print(f"{destination}: {kind}, [n, {height}, {width}, {channels}] -> logits, {given.platforms}")
