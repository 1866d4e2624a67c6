"""Summaries as text: layer by layer, and stage by stage as in table 1 of the paper."""

import itertools
import math
from collections.abc import Iterable, Sequence

from resnet_jax.analysis.summarize import Layer, Summary

BYTES = 4
"""Bytes of an activation: float32."""


def layer_table(summary: Summary, *, batch: int = 1) -> str:
    """Returns a line for each layer; bytes are those of the outputs for `batch` images."""
    head = "layer|output|filter|stride|padding|parameters|multiply-adds|bytes|receptive field"
    image = math.prod(summary.image_shape) * batch * BYTES
    rows = [head.split("|"), ["image", _by(summary.image_shape), *[""] * 5, f"{image:,}", ""]]
    for layer in summary.layers:
        window = ["", "", ""]
        if layer.filter is not None:
            spread = "" if layer.dilation == (1, 1) else f" /{_short(layer.dilation)}"
            padding = _short(map(_short, layer.padding))
            window = [_by(layer.filter) + spread, _short(layer.stride), padding]
        numbers = _numbers([layer], batch)
        rows.append([layer.name, _by(layer.output), *window, *numbers, _by(layer.receptive_field)])
    return align(rows, left=1)


def stage_table(summary: Summary, *, batch: int = 1) -> str:
    """Returns a line for each stage, with its blocks as in table 1 of the paper.

    A module of the network that consists of blocks is a stage; other layers have lines of their
    own. Blocks are written without strides, normalisation and shortcuts; sums include those.
    """
    rows = [["stage", "output", "layers", "parameters", "multiply-adds", "bytes"]]
    for name, layers in group_by_stage(summary.layers):
        main = [layer for layer in layers if _is_main(layer)] or layers
        sides = main[-1].output[:2] if len(main[-1].output) > 2 else (1, 1)
        text = _blocks(main) if len(main) > 1 else _describe(main[0], stride=True)
        rows.append([name, _by(sides), text, *_numbers(layers, batch)])
    return align(rows, left=3)


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


def group_by_stage(layers: Sequence[Layer]) -> list[tuple[str, list[Layer]]]:
    """Returns the layers of each stage, or of each layer outside stages, by name."""
    deep = {_part(layer, 0) for layer in layers if layer.name.count("/") > 1}

    def stage(layer: Layer) -> str:
        return _part(layer, 0) if _part(layer, 0) in deep else layer.name

    stages: list[tuple[str, list[Layer]]] = []
    for name, members in itertools.groupby(layers, stage):
        group = list(members)
        if stages and not any(map(_is_main, group)):  # a normalisation joins the layer before it
            stages[-1][1].extend(group)
        else:
            stages.append((name, group))
    return stages


def _blocks(layers: Iterable[Layer]) -> str:
    """Returns the blocks of a stage, with runs of equal blocks written once."""
    blocks = [
        [_describe(layer) for layer in block]
        for _, block in itertools.groupby(layers, lambda layer: _part(layer, 1))
    ]
    texts = []
    for block, run in itertools.groupby(blocks):
        times = len(list(run))
        texts += block * times if len(block) == 1 else [f"[{'; '.join(block)}] x{times}"]
    return "; ".join(texts)


def _describe(layer: Layer, *, stride: bool = False) -> str:
    if layer.filter is None or layer.kind not in ("conv", "max_pool", "avg_pool"):
        return f"{layer.output[-1]}-d fc" if layer.kind == "dense" else layer.kind
    kinds = {"conv": f", {layer.output[-1]}", "max_pool": " max pool", "avg_pool": " mean pool"}
    text = _by(layer.filter[:2]) + kinds[layer.kind]
    if layer.dilation != (1, 1):
        text += f", dilation {_short(layer.dilation)}"
    if stride and layer.stride != (1, 1):
        text += f", stride {_short(layer.stride)}"
    return text


def _is_main(layer: Layer) -> bool:
    return layer.kind != "scale" and "shortcut" not in layer.name.split("/")


def _part(layer: Layer, number: int) -> str:
    return [*layer.name.split("/"), "", ""][number]


def _numbers(layers: Sequence[Layer], batch: int) -> list[str]:
    """Returns parameters, multiply-adds and bytes, with blanks for zeros."""
    activations = sum(layer.activations for layer in layers)
    parameters = sum(layer.parameters for layer in layers)
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    numbers = (parameters, multiply_adds, activations * batch * BYTES)
    return [f"{number:,}" if number else "" for number in numbers]


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


def _short(values: Iterable[object]) -> str:
    """Returns a pair, or one number where both are the same."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def align(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Returns the rows in columns, of which the first ones are aligned on their left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
