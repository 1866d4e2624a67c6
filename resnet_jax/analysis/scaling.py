"""The time of a training step on a pod, and the input that it needs, from FLOPs and bytes.

1. A device takes the time of its roofline over the share of that limit that it reaches.
2. One all-reduce a step carries gradients, batch statistics and metrics in float32. It begins after
   the backward pass and ends before the update: nothing overlaps.
3. Devices on one fast interconnect are an island: a node of GPUs, a slice of TPUs. Of `n` devices
   in an island each sends `2 (n - 1) / n` times the bytes, the fewest that an all-reduce can
   (Patarasuk & Yuan, JPDC 69, 2009). Over islands each device reduces its part of the bytes, one
   in `n`, with its peers in the others through its share of the network.
4. Links and networks carry the bandwidth of their makers. They have no latency, and a slice of TPUs
   has the links of a whole torus. The all-reduce takes longer than that, never less.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from resnet_jax.analysis.roofline import Roofline
from resnet_jax.analysis.tables import align
from resnet_jax.errors import InputError

REACHED = 60
"""Percent of the roofline's limit: a step of ResNet-50 on one H100, docs/performance.md."""


class Links(NamedTuple):
    """How the devices of a kind are connected.

    Attributes:
      host: Devices of a host.
      island: Devices on one fast interconnect.
      fast: Bytes/s that a device sends over it.
      network: Bytes/s that a device sends to other islands, or `None` where none is published.
      source: The interconnect and the documents with the numbers.
    """

    host: int
    island: int
    fast: float
    network: float | None
    source: str


_GOOGLE = "docs.cloud.google.com/tpu/docs"
_DGX = "docs.nvidia.com/dgx-basepod, core components"
_HOPPER = Links(
    *(8, 8, 450e9, 50e9),
    "NVLink, 900 GB/s both ways, www.nvidia.com/en-us/data-center/h100\n"
    f"  InfiniBand, 400 Gb/s a GPU, {_DGX}",
)
LINKS = {
    "h100": _HOPPER,
    "h200": _HOPPER,
    "a100": Links(
        *(8, 8, 300e9, None),
        "NVLink, 600 GB/s both ways, www.nvidia.com/data-center/nvlink",
    ),
    # Of a pod's all-reduce bandwidth each chip has its share: what its links send, one way.
    "tpu-v4": Links(4, 4096, 1.1e15 / 4096, None, f"ICI, 1.1 PB/s a pod, {_GOOGLE}/v4"),
    "tpu-v5e": Links(
        *(8, 256, 51.2e12 / 256, 6.4e12 / 8 / 256),
        f"ICI, 51.2 TB/s, and network, 6.4 Tb/s a pod, {_GOOGLE}/v5e",
    ),
    "tpu-v5p": Links(
        *(4, 6144, 600e9, 50e9 / 8),
        f"ICI, 1,200 GB/s both ways, and network, 50 Gb/s a chip, {_GOOGLE}/v5p",
    ),
    "tpu-v6e": Links(
        *(8, 256, 102.4e12 / 256, 25.6e12 / 8 / 256),
        f"ICI, 102.4 TB/s, and network, 25.6 Tb/s a pod, {_GOOGLE}/v6e",
    ),
}


def reduced_bytes(variables: Mapping[str, PyTree[jax.ShapeDtypeStruct]]) -> dict[str, int]:
    """Returns the bytes of gradients, statistics and metrics that a step reduces.

    Args:
      variables: The shapes of a network's `params` and `batch_stats`.
    """

    def size(tree: PyTree[jax.ShapeDtypeStruct]) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    gradients, statistics = size(variables["params"]), size(variables["batch_stats"])
    return {"gradients": gradients, "statistics": statistics, "metrics": 2 * 4}


def reduction_seconds(links: Links, size: int, devices: int) -> float:
    """Returns the least time of an all-reduce of `size` bytes.

    Raises:
      InputError: The devices are more than an island, and its network is not known.
    """
    here = min(devices, links.island)
    islands = math.ceil(devices / here)
    seconds = 2 * size * (here - 1) / here / links.fast
    if islands == 1:
        return seconds
    if links.network is None:
        raise InputError(
            f"there are no figures for the network between {links.island} devices and others; "
            f"--devices is {devices}, and must be at most {links.island}"
        )
    return seconds + 2 * size / here * (islands - 1) / islands / links.network


class Input(NamedTuple):
    """The cost of an image: seconds of a processor core, bytes read, bytes sent to the device."""

    seconds: float
    read: float
    sent: float


def scaling_table(
    roofline: Roofline,
    links: Links,
    reduced: Mapping[str, int],
    image: Input,
    devices: Iterable[int],
    reached: int = REACHED,
) -> str:
    """Returns a line for each number of devices, then the assumptions.

    Args:
      roofline: The operations of a device on its share of the batch, in training.
      links: Between the devices.
      reduced: `reduced_bytes` of the network.
      image: The cost of an image.
      devices: The numbers of devices.
      reached: Percent of the roofline's limit that a device reaches.

    Raises:
      InputError: The devices are more than the links' figures are for.
    """
    compute = roofline.times(roofline.operations)[-1] / (reached / 100)
    size = sum(reduced.values())
    head = "devices|batch|images/s|step ms|all-reduce ms|share|hosts|cores|GB/s read|GB/s sent"
    rows: list[list[str]] = [[*head.split("|")]]
    for count in devices:
        reduction = reduction_seconds(links, size, count)
        step = compute + reduction
        rate, hosts = count * roofline.batch / step, math.ceil(count / links.host)
        row = [f"{count:,}", f"{count * roofline.batch:,}", f"{rate:,.0f}", f"{step * 1e3:,.2f}"]
        row += [f"{reduction * 1e3:,.3f}", f"{reduction / step:.1%}", f"{hosts:,}"]
        row.append(f"{math.ceil(rate / hosts * image.seconds):,}")
        row += [f"{rate / hosts * cost / 1e9:,.2f}" for cost in (image.read, image.sent)]
        rows.append(row)
    parts = ", ".join(f"{name} {number:,}" for name, number in reduced.items())
    text = [
        align(rows, left=0),
        "",
        f"a device: {roofline.task}, {compute * 1e3:,.2f} ms, {reached}% of the roofline's limit",
        f"  {roofline.device.source}",
        f"all-reduce: {size:,} bytes ({parts})",
        "  after the backward pass, before the update; nothing overlaps",
        f"  {links.source}",
        f"input: cores, GB/s read from files and sent to devices are those of each host; an image "
        f"takes\n  {image.seconds * 1e3:,.2f} ms of a core, {image.read / 1e3:,.1f} kB read, "
        f"{image.sent / 1e3:,.1f} kB sent",
    ]
    return "\n".join(text)
