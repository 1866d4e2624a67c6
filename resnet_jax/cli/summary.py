"""Prints the layers of a network: `summary resnet50`.

There is a line for each layer, a line for each stage as in table 1 of the paper, and the sums.
Nothing is computed. `--image_size 448` is for images of another size than the network's own,
`--option KEY=VALUE` for an option of `create_model` ("shortcut=C"), `--batch 32` for the memory of
a batch's activations. Exit status: 0 done, 2 wrong input.
"""

import ast
from collections.abc import Sequence

from flax import linen as nn

from resnet_jax.analysis import summarize
from resnet_jax.analysis.tables import layer_table, stage_table, totals
from resnet_jax.cli.frame import Parser
from resnet_jax.errors import InputError
from resnet_jax.models import create_model, image_shape


def main(arguments: Sequence[str]) -> None:
    """Prints the summary that the arguments, those after the command, ask for.

    Raises:
      InputError: There is no such network or option, or a number is out of range.
    """
    parser = Parser("summary", __doc__)
    parser.add_argument("name", help="one of resnet_jax.list_models()")
    parser.add_argument("--image_size", type=int, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=1, metavar="IMAGES")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    model = _model(given.name, given.option)
    height, width, channels = image_shape(given.name)
    if given.image_size is not None:
        height = width = given.image_size
    if given.batch < 1:
        raise InputError(f"--batch is {given.batch}; it must be at least 1")
    summary = summarize(model, (height, width, channels))
    tables = (f(summary, batch=given.batch) for f in (layer_table, stage_table, totals))
    print("\n\n".join(tables))


def _model(name: str, options: Sequence[str]) -> nn.Module:
    values = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise InputError(f"{option!r} is not an option; options are KEY=VALUE")
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    try:
        return create_model(name, **values)
    except TypeError as error:
        raise InputError(f"{name} cannot be made with {values}: {error}") from error
