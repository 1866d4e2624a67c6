"""Prints how fast a pod trains, and what it needs: `scaling --config configs/NAME.py --kind h100`.

There is a line for each number of devices of `--devices 8,64,512,4096`: images/s, the time of a
step and of its all-reduce, and for each host the processor cores, the bandwidth of the disk or the
network, and that to the devices that the input needs. `resnet_jax/analysis/scaling.py` has the
rules. Each device takes `--batch 256` images, whatever the config's batch is, and reaches
`--reached 60` percent of the roofline's limit. An image takes `--image_us 1770` microseconds of a
core (random-resized crops of 224 pixels, docs/performance.md) and `--image_kb 115` of a file (the
archive of ImageNet's training images over their number); in memory it takes neither. Exit status: 0
done, 2 wrong input.
"""

import math
from collections.abc import Sequence

from absl import flags

from resnet_jax.analysis import summarize
from resnet_jax.analysis.roofline import DEVICES, Roofline
from resnet_jax.analysis.scaling import LINKS, REACHED, Input, reduced_bytes, scaling_table
from resnet_jax.cli.frame import Flags
from resnet_jax.config import build_augmentation, build_model, check
from resnet_jax.data import Draws
from resnet_jax.errors import InputError, unknown
from resnet_jax.models import create_model, image_shape, variable_shapes

_NUMBERS = {
    "batch": (256, 1, None, "Images of a device."),
    "reached": (REACHED, 1, 100, "Percent of the roofline's limit that a device reaches."),
    "image_us": (1770, 0, None, "Microseconds of a core that an image takes."),
    "image_kb": (115, 0, None, "Kilobytes of an image's file."),
}


def main(arguments: Sequence[str]) -> None:
    """Prints the table that the arguments, those after the command, ask for.

    Raises:
      InputError: There is no such config or kind of device, or a number is out of range.
    """
    command = Flags(__doc__, arguments)
    given = command.define_config()
    devices = command.add(flags.DEFINE_list, "devices", ["8", "64", "512", "4096"], "How many.")
    kind = command.add(flags.DEFINE_string, "kind", "h100", f"One of {', '.join(LINKS)}.")
    for name, (default, low, high, text) in _NUMBERS.items():
        command.add(flags.DEFINE_integer, name, default, text, low, high)
    command.parse()
    config, value = given.value, command.values
    check(config)
    name = kind.value if kind.value in LINKS else f"tpu-{kind.value}"  # "v4"
    if name not in LINKS:
        raise unknown("kind of device", kind.value, LINKS)
    if not devices.value or not all(n.isdecimal() and int(n) for n in devices.value):
        raise InputError(
            f"--devices is {','.join(devices.value)!r}; it must be whole numbers above 0, as 8,64"
        )
    group = config.model.bn_group_size
    if group == "global" or (group and value.batch % group):
        raise InputError(
            f"model.bn_group_size is {group}, which spans devices of {value.batch} images; their "
            "reductions in the forward pass are not counted, so take a batch of whole groups"
        )
    size, channels = config.data.image_size, image_shape(config.model.name)[-1]
    shape = (size, size, channels)
    model = build_model(config, getattr(create_model(config.model.name), "num_classes", 1000))
    drawn = build_augmentation(config)(Draws(0, 0, 1, slice(1)))
    sent = math.prod(shape) + 4 + sum(array.nbytes for array in drawn.values())  # uint8; the label
    decoded = not config.data.in_memory
    roofline = Roofline(summarize(model, shape), DEVICES[name], value.batch, config.dtype)
    image = Input(decoded * value.image_us / 1e6, decoded * value.image_kb * 1e3, sent)
    reduced = reduced_bytes(variable_shapes(model, shape))
    counts = map(int, devices.value)
    print(scaling_table(roofline, LINKS[name], reduced, image, counts, value.reached))
