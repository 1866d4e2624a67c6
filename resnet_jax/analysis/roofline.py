"""The least time of a training step or of inference on a device, from FLOPs and bytes.

Operations run one after the other. Each takes its FLOPs at the device's peak or its bytes at the
bandwidth of the memory, whichever is longer (Williams, Waterman & Patterson, "Roofline", CACM 52,
2009). FLOPs are twice the multiply-adds. The bytes follow these rules; no cache holds an array.

1. A convolution, matrix product or pooling reads its input and its parameters and writes its output
   once. It does not read rows and columns that its stride skips.
2. Its gradient is two more such operations: one reads the output's gradient and the parameters and
   writes the input's gradient; one reads the output's gradient and the input and writes that of the
   parameters. The image has no gradient. The gradients of several readers of an array are added up
   in memory: each after the first reads the sum and writes it.
3. What is done to each element (bias, rectification, addition of a shortcut, concatenation, batch
   normalisation in inference) is done by the operation before it as it writes; of an addition, the
   other summands are read. No operation does it as it reads. The gradient of a sum is that of each
   summand as it stands.
4. Batch normalisation in training reads its input for the statistics, then reads it again, with the
   other summands of an addition, and writes the result. Its gradient reads the input and the
   output's gradient for two sums, then reads both again and writes the input's gradient.
5. Masks of rectifications, positions of maxima, vectors of channels, dropout and the loss take no
   bytes. Auxiliary classifiers are left out.
6. Activations and images have the type of the arithmetic, parameters are float32. An update reads
   parameters, gradient and momentum, and writes parameters and momentum.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from resnet_jax.analysis.summarize import Summary
from resnet_jax.analysis.tables import align, group_by_stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DType = Literal["bfloat16", "float32"]
Phase = Literal["forward", "backward"]

_IMAGE = frozenset({"image"})
_PASSES = "passes over memory"
_COLOURS = {"products forward": "#1f6fb2", "products backward": "#c0392b", _PASSES: "#9aa1a9"}
_INK = "#22262b"


class Device(NamedTuple):
    """The limits of a chip.

    Attributes:
      bfloat16: Peak of products in bfloat16, without sparsity, FLOP/s.
      float32: Peak of float32 products as JAX does them by default (in TF32 on a GPU, in bfloat16
        on a TPU), FLOP/s.
      bandwidth: Of the memory, bytes/s.
      source: The chip and the document with the numbers.
    """

    bfloat16: float
    float32: float
    bandwidth: float
    source: str


_NVIDIA, _GOOGLE = "www.nvidia.com/en-us/data-center", "docs.cloud.google.com/tpu/docs"
DEVICES = {
    "h100": Device(989.4e12, 494.7e12, 3.35e12, f"H100 SXM, {_NVIDIA}/h100"),
    "h200": Device(989.4e12, 494.7e12, 4.8e12, f"H200 SXM, {_NVIDIA}/h200"),
    "a100": Device(312e12, 156e12, 2.039e12, f"A100 80GB SXM, {_NVIDIA}/a100"),
    "tpu-v4": Device(275e12, 275e12, 1.2e12, f"TPU v4, {_GOOGLE}/v4"),
    "tpu-v5e": Device(197e12, 197e12, 0.819e12, f"TPU v5e, {_GOOGLE}/v5e"),
    "tpu-v5p": Device(459e12, 459e12, 2.765e12, f"TPU v5p, {_GOOGLE}/v5p"),
    "tpu-v6e": Device(918e12, 918e12, 1.638e12, f"TPU v6e, {_GOOGLE}/v6e"),
}


class Operation(NamedTuple):
    """What a layer (or the "update", which is backward) does at once, for the whole batch."""

    layer: str
    phase: Phase
    flops: int
    bytes: int

    @property
    def kind(self) -> str:
        """Its colour in the plot: convolutions and matrix products have FLOPs, passes none."""
        return f"products {self.phase}" if self.flops else _PASSES


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The operations of a network on a batch, in training or inference, and a device's limits."""

    summary: Summary
    device: Device
    batch: int
    dtype: DType = "bfloat16"
    train: bool = True

    @property
    def task(self) -> str:
        """The task in words."""
        return f"{'training' if self.train else 'inference'}, batch {self.batch}, {self.dtype}"

    @property
    def peak(self) -> float:
        """The device's FLOP/s in this type."""
        return self.device.bfloat16 if self.dtype == "bfloat16" else self.device.float32

    def times(self, operations: Sequence[Operation]) -> tuple[float, float, float]:
        """Returns the seconds at the peak, at the bandwidth, and each operation at the longer."""
        each = [(o.flops / self.peak, o.bytes / self.device.bandwidth) for o in operations]
        compute, memory = (math.fsum(times[i] for times in each) for i in (0, 1))
        return compute, memory, math.fsum(map(max, each))

    @functools.cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The operations by the rules of this module."""
        return tuple(_operations(self))

    @functools.cached_property
    def stages(self) -> dict[str, list[Operation]]:
        """The operations of each stage, as `summary` has them, and the update."""
        grouped = group_by_stage(self.summary.layers)
        stage = {layer.name: name for name, layers in grouped for layer in layers}
        stages: dict[str, list[Operation]] = {name: [] for name, _ in grouped}
        for operation in self.operations:
            stages.setdefault(stage.get(operation.layer, "update"), []).append(operation)
        return stages


def _operations(roofline: Roofline) -> Iterator[Operation]:
    """Yields first the passes of batch normalisation, then each layer's operations, the update."""
    summary, batch, train = roofline.summary, roofline.batch, roofline.train
    each = batch * (2 if roofline.dtype == "bfloat16" else 4)  # bytes of a number of an image
    layers = [layer for layer in summary.layers if layer.kind != "scale"]
    sizes = {layer.name: layer.activations for layer in layers}
    order = list(sizes)
    normalized = {
        name for layer in summary.layers if train and layer.statistics for name in layer.sources
    }
    # An array is known by the layers whose outputs it consists of; here are its numbers.
    arrays = {_IMAGE: math.prod(summary.image_shape)}
    reader: dict[frozenset[str], str] = {}  # the first layer that reads it
    # Numbers that an operation reads besides, to add them to what it writes.
    addends = {phase: collections.Counter[str]() for phase in get_args(Phase)}
    for layer in layers:
        array, numbers = frozenset(layer.sources), math.prod(layer.input)
        reader.setdefault(array, layer.name)
        if array in arrays:
            continue
        rest, ready = array, 0
        for part in sorted(arrays, key=len, reverse=True):
            if part <= rest:
                rest, ready = rest - part, ready + min(arrays[part], numbers)
                if part != _IMAGE:
                    addends["backward"][reader[part]] += min(arrays[part], numbers)
        ready += sum(sizes[name] for name in rest - normalized)
        raw = sum(sizes[name] for name in rest & normalized)
        added = min(ready, max(0, ready + raw - numbers))  # nothing in a concatenation
        last = max(rest or array - _IMAGE, key=order.index)
        if raw:
            made = min(numbers, raw)
            yield Operation(last, "forward", 0, each * (2 * raw + added + made))
            yield Operation(last, "backward", 0, each * (2 * (raw + made) + raw))
        else:
            addends["forward"][last] += added
        arrays[array] = numbers
    for layer in layers:
        array, numbers, output = frozenset(layer.sources), math.prod(layer.input), layer.activations
        read = numbers
        for side, stride in zip((layer.filter or ())[:2], layer.stride, strict=False):
            read = read * min(side, stride) // stride
        flops, parameters = 2 * batch * layer.multiply_adds, 4 * layer.parameters
        more = addends["forward"][layer.name]
        yield Operation(layer.name, "forward", flops, each * (read + output + more) + parameters)
        if train and flops:
            yield Operation(layer.name, "backward", flops, each * (read + output) + parameters)
        if train and array != _IMAGE:
            more = addends["backward"][layer.name]
            written = numbers if reader[array] == layer.name else 2 * read
            moved = each * (output + written + more) + parameters
            yield Operation(layer.name, "backward", flops, moved)
    if train:
        yield Operation("update", "backward", 0, 5 * 4 * summary.parameters)


def roofline_table(roofline: Roofline, measured: float | None = None) -> str:
    """Returns a line for each stage, the sums, and the share of the limit that is reached.

    Args:
      roofline: The operations and the limits.
      measured: Seconds that the batch took.
    """
    groups = {**roofline.stages, "all": roofline.operations}
    lines = []
    for operations in groups.values():
        moved = [sum(o.bytes for o in operations if o.phase == p) / 1e9 for p in get_args(Phase)]
        times = [seconds * 1e3 for seconds in roofline.times(operations)]
        lines.append([sum(o.flops for o in operations) / 1e9, *moved, *times])
    total = lines[-1]
    head = "stage|GFLOP|GB forward|GB backward|compute ms|memory ms|limit ms|share"
    rows: list[list[str]] = [[*head.split("|")]]
    for name, line in zip(groups, lines, strict=True):
        cells = [_number(n, like) if n else "" for n, like in zip(line, total, strict=True)]
        rows.append([name, *cells, f"{line[-1] / total[-1]:.1%}"])
    device, limit = roofline.device, total[-1] / 1e3
    products = roofline.times([o for o in roofline.operations if o.flops])[-1]
    text = [
        align(rows, left=1),
        "",
        f"{device.source}: {roofline.peak / 1e12:,g} TFLOP/s, {device.bandwidth / 1e9:,g} GB/s",
        f"convolutions and matrix products {_ms(products)}, "
        f"passes over memory {_ms(limit - products)}",
        f"{roofline.task}: {_ms(limit)}, {roofline.batch / limit:,.0f} images/s at the limit",
    ]
    if measured is not None:
        rate = f"{roofline.batch / measured:,.0f} images/s"
        text.append(f"measured {_ms(measured)}, {rate}: {limit / measured:.1%} of the limit")
    return "\n".join(text)


def _number(number: float, like: float | None = None) -> str:
    """Returns a number with the decimals that give another, by default itself, four digits."""
    return f"{number:,.{max(0, 3 - math.floor(math.log10(like or number)))}f}"


def _ms(seconds: float) -> str:
    return f"{_number(seconds * 1e3)} ms"


def draw_roofline(roofline: Roofline, title: str, measured: float | None = None) -> "Figure":
    """Draws how far the stages are below the roof, and the least time of each.

    Left are the stages that take 1% or more, by number, their area their time; passes over memory,
    which have no FLOPs, draw a stage down. Right is the time by kind of operation.

    Args:
      roofline: The operations and the limits.
      title: The network.
      measured: Seconds that the batch took, drawn on the left.
    """
    # Here, for it takes half a second, and not every call draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages, device = roofline.stages, roofline.device
    limit = roofline.times(roofline.operations)[-1]
    figure = Figure((11, max(4.6, 1.6 + 0.2 * len(stages))), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: {roofline.task}, {device.source.partition(',')[0]}")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))

    def point(operations: Sequence[Operation], seconds: float) -> tuple[float, float]:
        flops = sum(o.flops for o in operations)
        return flops / sum(o.bytes for o in operations), flops / seconds / 1e12

    labels: list[tuple[tuple[float, float], list[str]]] = []
    for number, operations in enumerate(stages.values(), 1):
        seconds = roofline.times(operations)[-1]
        if any(o.flops for o in operations) and seconds > 0.01 * limit:
            x, y = point(operations, seconds)
            left.scatter(x, y, 1500 * seconds / limit, color=_INK, alpha=0.3, linewidths=0)
            near = (n for at, n in labels if abs(math.log10(at[0] / x * at[1] / y)) < 0.12)
            if (numbers := next(near, None)) is None:
                labels.append(((x, y), numbers := []))
            numbers.append(str(number))
    for at, numbers in labels:
        style = {"ha": "center", "va": "top", "fontsize": 8}
        left.annotate("\n".join(numbers), at, (9, -9), textcoords="offset points", **style)
    for name, marker, seconds in (("all at the limit", "D", limit), ("measured", "*", measured)):
        if seconds is not None:
            label = f"{name}, {roofline.batch / seconds:,.0f} images/s"
            left.plot(*point(roofline.operations, seconds), marker, color=_INK, label=label)
    ridge = roofline.peak / device.bandwidth
    ends = [math.log10(f([*(x for (x, _), _ in labels), ridge])) for f in (min, max)]
    low, high = 10 ** math.floor(ends[0]), 10 ** math.ceil(ends[1])
    roof = [x * device.bandwidth / 1e12 for x in (low, ridge)]
    left.plot([low, ridge, high], [*roof, roof[-1]], color=_INK, linewidth=1.2, zorder=0)
    left.text(high, 1.1 * roof[1], f"{roof[1]:,g} TFLOP/s ", ha="right", va="bottom")
    left.text(1.15 * low, roof[0], f"{device.bandwidth / 1e9:,g} GB/s", va="bottom")
    left.set(xscale="log", yscale="log", xlabel="FLOPs for a byte of memory", ylabel="TFLOP/s")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")

    names = [f"{name}  {number}" for number, name in enumerate(stages, 1)]
    starts = [0.0] * len(stages)
    for kind, colour in _COLOURS.items():
        own = [[o for o in operations if o.kind == kind] for operations in stages.values()]
        widths = [1e3 * roofline.times(operations)[-1] for operations in own]
        if any(widths):
            right.barh(names, widths, left=starts, color=colour, label=kind)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    right.invert_yaxis()
    right.set_xlabel("ms at the limit")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
