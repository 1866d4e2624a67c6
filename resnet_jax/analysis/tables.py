"""Summaries as text: layer by layer, and stage by stage as in table 1 of the paper."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from resnet_jax.analysis.layers import Layer, Summary

BYTES = 4
"""Of an activation: float32."""


def layer_table(summary: Summary, *, batch: int = 1) -> str:
    """Returns a line for each layer; its bytes are those of the outputs for `batch` images."""
    head = "layer|output|filter|stride|padding|parameters|multiply-adds|bytes|receptive field"
    image = math.prod(summary.image_shape) * batch * BYTES
    rows = [head.split("|"), ["image", _by(summary.image_shape), *[""] * 5, f"{image:,}", ""]]
    for layer in summary.layers:
        window = ["", "", ""]
        if layer.filter is not None:
            window = [_filter(layer), _short(layer.stride), _short(map(_short, layer.padding))]
        memory = layer.activations * batch * BYTES
        numbers = _numbers(layer.parameters, layer.multiply_adds, memory)
        field = _by(layer.receptive_field)
        rows.append([layer.name, _by(layer.output), *window, *numbers, field])
    return _align(rows, left=1)


def stage_table(summary: Summary, *, batch: int = 1) -> str:
    """Returns a line for each stage, its blocks as table 1 of the paper has them.

    A module of the network that consists of blocks is a stage; other layers have lines of their
    own. What blocks consist of is said without strides, normalisation and shortcuts, and summed
    with them.
    """
    rows = [["stage", "output", "layers", "parameters", "multiply-adds", "bytes"]]
    for name, layers in _stages(summary.layers):
        said = [layer for layer in layers if _is_said(layer)] or layers
        height_and_width = said[-1].output[:2] if len(said[-1].output) > 2 else (1, 1)
        rows.append(
            [
                name,
                _by(height_and_width),
                _blocks(said) if len(said) > 1 else _describe(said[0], stride=True),
                *_numbers(
                    sum(layer.parameters for layer in layers),
                    sum(layer.multiply_adds for layer in layers),
                    sum(layer.activations for layer in layers) * batch * BYTES,
                ),
            ]
        )
    return _align(rows, left=3)


def totals(summary: Summary, *, batch: int = 1) -> str:
    """Returns the sums over all layers; the activations are those of `batch` images."""
    training = ""
    if summary.training_parameters:
        training = f", and {summary.training_parameters:,} that only training uses"
    activations = summary.activations * batch
    images = "image" if batch == 1 else f"{batch} images"
    return (
        f"{summary.parameters:,} parameters{training}\n"
        f"{summary.multiply_adds:,} multiply-adds an image\n"
        f"{activations:,} activations, those of the {images} included: "
        f"{activations * BYTES / 1e6:,.1f} MB at {BYTES} bytes each"
    )


def _stages(layers: Iterable[Layer]) -> list[tuple[str, list[Layer]]]:
    layers = list(layers)
    deep = {_part(layer, 0) for layer in layers if layer.name.count("/") > 1}

    def stage(layer: Layer) -> str:
        return _part(layer, 0) if _part(layer, 0) in deep else layer.name

    stages: list[tuple[str, list[Layer]]] = []
    for name, group in itertools.groupby(layers, stage):
        found = list(group)
        if stages and not any(map(_is_said, found)):  # a normalisation belongs to what is before it
            stages[-1][1].extend(found)
        else:
            stages.append((name, found))
    return stages


def _blocks(layers: Iterable[Layer]) -> str:
    """Returns what a stage consists of, with runs of equal blocks written once."""
    blocks = [
        [_describe(layer) for layer in block]
        for _, block in itertools.groupby(layers, lambda layer: _part(layer, 1))
    ]
    said = []
    for block, run in itertools.groupby(blocks):
        times = len(list(run))
        said += block * times if len(block) == 1 else [f"[{'; '.join(block)}] x{times}"]
    return "; ".join(said)


def _describe(layer: Layer, *, stride: bool = False) -> str:
    if layer.kind in ("conv", "max_pool", "avg_pool") and layer.filter is not None:
        what = {"conv": f", {layer.output[-1]}", "max_pool": " max pool", "avg_pool": " mean pool"}
        text = _by(layer.filter[:2]) + what[layer.kind]
        if layer.dilation != (1, 1):
            text += f", dilation {_short(layer.dilation)}"
        if stride and layer.stride != (1, 1):
            text += f", stride {_short(layer.stride)}"
        return text
    return f"{layer.output[-1]}-d fc" if layer.kind == "dense" else layer.kind


def _is_said(layer: Layer) -> bool:
    return layer.kind != "scale" and "shortcut" not in layer.name.split("/")


def _part(layer: Layer, number: int) -> str:
    return [*layer.name.split("/"), "", ""][number]


def _filter(layer: Layer) -> str:
    spread = "" if layer.dilation == (1, 1) else f" /{_short(layer.dilation)}"
    return _by(layer.filter or ()) + spread


def _numbers(*numbers: int) -> list[str]:
    return [f"{number:,}" if number else "" for number in numbers]


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


def _short(values: Iterable[object]) -> str:
    """Returns a pair, or one of it where both are the same."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def _align(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Returns the rows in columns, of which the first ones are aligned on their left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def lines() -> Iterator[str]:
        for row in rows:
            cells = enumerate(zip(row, widths, strict=True))
            aligned = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in cells)
            yield "  ".join(aligned).rstrip()

    return "\n".join(lines())
