"""Prints the least time of a network on a device: `roofline resnet50 --batch 256 --kind h100`.

There is a line for each stage: its FLOPs, the fewest bytes that it moves, its time at the device's
peak, at the bandwidth of its memory, and with each operation at the longer of both.
`resnet_jax/analysis/roofline.py` has the rules. `--task infer` is inference, `--measured 46.3` adds
the share of the limit that a step of 46.3 ms reaches, `--out FILE.png` draws it. `--peak 1.2
--bandwidth 40` are TFLOP/s and GB/s of another device. Exit status: 0 done, 2 wrong input.
"""

import io
import math
from collections.abc import Sequence

from resnet_jax.analysis.roofline import DEVICES, Device, Roofline, draw_roofline, roofline_table
from resnet_jax.cli.frame import Parser, add_network, plot_path, summarize_network
from resnet_jax.errors import InputError, unknown
from resnet_jax.files import write_atomically


def main(arguments: Sequence[str]) -> None:
    """Prints the limits that the arguments, those after the command, ask for, and draws them.

    Raises:
      InputError: There is no such network, option or device, or a number is out of range.
    """
    parser = Parser("roofline", __doc__)
    add_network(parser, batch=256)
    parser.add_argument("--kind", help=f"{', '.join(DEVICES)}; the default is h100")
    parser.add_argument("--peak", type=float, metavar="TFLOPS")
    parser.add_argument("--bandwidth", type=float, metavar="GBYTES")
    parser.add_argument("--task", choices=("train", "infer"), default="train")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--measured", type=float, metavar="MILLISECONDS")
    parser.add_argument("--out", metavar="FILE.png")
    given = parser.parse_args(arguments)
    for name in ("peak", "bandwidth", "measured"):
        value = getattr(given, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} is {value:g}; it must be above 0")
    if given.peak and given.bandwidth and not given.kind:
        peak = given.peak * 1e12
        device = Device(peak, peak, given.bandwidth * 1e9, "the given device")
    elif given.peak or given.bandwidth:
        raise InputError("a device is either --kind, or --peak and --bandwidth together")
    elif (kind := given.kind or "h100") in DEVICES:
        device = DEVICES[kind]
    else:
        raise unknown("kind of device", kind, DEVICES)
    out = given.out and plot_path(given.out)
    measured = given.measured and given.measured / 1e3
    network = summarize_network(given)
    roofline = Roofline(network, device, given.batch, given.dtype, given.task == "train")
    print(roofline_table(roofline, measured))
    if out:
        image = io.BytesIO()
        draw_roofline(roofline, given.name, measured).savefig(image, format="png")
        write_atomically(out, image.getvalue())
        print(out)
