"""Prepares a data set: `prepare --source folder --path ROOT --out DIR`.

The images of a folder, or of any other source, become a data set of tensorflow_datasets in
`DIR/NAME/VERSION`: a few ArrayRecord files with random access, on request of smaller images
(`--shorter_side 256`). `--config.data.source=tfds --config.data.path=DIR --config.data.name=NAME`
trains on it. Killed at any moment, the same command goes on. Exit status: 0 done, 2 wrong input,
130 interrupted, 1 anything else.
"""

import argparse
from collections.abc import Mapping, Sequence

from etils import epath

from resnet_jax.cli.frame import Parser
from resnet_jax.data.load import load_splits
from resnet_jax.data.manifest import Settings, read_manifest, verify
from resnet_jax.data.prepare import prepare
from resnet_jax.errors import InputError, unknown

RESUME = "; the same command goes on"


def main(arguments: Sequence[str]) -> None:
    """Prepares or verifies a data set.

    Args:
      arguments: The command line after the command.

    Raises:
      InputError: The command line, the source or the folder cannot be used.
    """
    given = _parser().parse_args(arguments)
    name = given.called or _name(given)
    if given.verify:
        lengths = verify(given.out, name, given.version)
        _report(epath.Path(given.out) / name / given.version, lengths, "is as it was written")
        return
    if given.source is None:
        raise InputError("--source is not given; it is folder, tfds or mnist")
    settings = Settings(given.shorter_side, given.quality, given.examples_per_shard)
    if given.source == "folder" and given.path is not None:
        inside, root = (epath.Path(p).expanduser().resolve() for p in (given.out, given.path))
        if inside == root or root in inside.parents:
            raise InputError(f"--out {given.out} is inside --path {given.path}; take another place")
    splits = load_splits(given.source, name=given.name, path=given.path)
    chosen = given.splits.split(",") if given.splits else list(splits)
    for split in chosen:
        if split not in splits:
            raise unknown(f"split of {given.name or given.source}", split, splits)
    folder = prepare(
        {split: splits[split]() for split in chosen},
        given.out,
        name,
        version=given.version,
        settings=settings,
        skip_bad=given.skip_bad,
        workers=given.workers,
    )
    _report(folder, read_manifest(folder)["examples"], "is prepared")


def _parser() -> Parser:
    parser = Parser("prepare", __doc__)
    add = parser.add_argument
    usual = Settings()
    add("--source", help="folder, tfds or mnist, as data.source of a config")
    add("--path", help="folder of the source, as data.path of a config")
    add("--name", help="tfds: the data set, as data.name of a config")
    add("--splits", help="some of its splits, as train,validation (all)")
    add("--out", required=True, help="local folder of data sets of tensorflow_datasets")
    add("--as", dest="called", metavar="NAME", help="name of the data set (that of its source)")
    add("--version", default="1.0.0", help="version of the data set (%(default)s)")
    add("--shorter_side", type=int, metavar="N", help="shrink images whose shorter side is longer")
    add("--quality", type=int, default=usual.quality, help="of shrunk JPEGs (%(default)s)")
    add(
        "--examples_per_shard",
        type=int,
        metavar="N",
        default=usual.examples_per_shard,
        help="about how many examples a file has (%(default)s)",
    )
    add(
        "--skip_bad",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="share of the images that may be left out because they cannot be decoded (0)",
    )
    add("--workers", type=int, metavar="N", help="number of threads (that of the cores)")
    add("--verify", action="store_true", help="compare the files with what was written")
    return parser


def _name(given: argparse.Namespace) -> str:
    """Returns the name of the source, which the data set has by default."""
    if given.source == "folder" and given.path is not None:
        return epath.Path(given.path).expanduser().resolve().name
    if given.source == "tfds" and given.name is not None:
        return given.name.split("/")[0].split(":")[0]
    if given.source is None:
        raise InputError("--as is not given; it is the name of the data set")
    return given.source


def _report(folder: epath.Path, examples: Mapping[str, int], how: str) -> None:
    counts = ", ".join(f"{count} of {split}" for split, count in examples.items())
    print(f"{folder} {how}: {counts}")
