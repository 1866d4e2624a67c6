"""Prints the layers of a network: `summary resnet50`.

There is a line for each layer, a line for each stage as in table 1 of the paper, and the sums.
Nothing is computed. `--image_size 448` is for images of another size than the network's own,
`--option KEY=VALUE` for an option of `create_model` ("shortcut=C"), `--batch 32` for the memory of
a batch's activations. Exit status: 0 done, 2 wrong input.
"""

from collections.abc import Sequence

from resnet_jax.analysis.tables import layer_table, stage_table, totals
from resnet_jax.cli.frame import Parser, add_network, summarize_network


def main(arguments: Sequence[str]) -> None:
    """Prints the summary that the arguments, those after the command, ask for.

    Raises:
      InputError: There is no such network or option, or a number is out of range.
    """
    parser = Parser("summary", __doc__)
    add_network(parser, batch=1)
    given = parser.parse_args(arguments)
    summary = summarize_network(given)
    tables = (f(summary, batch=given.batch) for f in (layer_table, stage_table, totals))
    print("\n\n".join(tables))
