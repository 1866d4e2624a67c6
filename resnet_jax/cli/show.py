"""Draws a network's input: `show --config configs/NAME.py`.

The PNG has the first images of a step's batch, cropped, mirrored, in random colours and normalised
as the device has them, and beside them the same images in evaluation, each above its class.
`--split test` draws images of that split in evaluation. Exit status: 0 done, 2 wrong input.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.cli.frame import Flags, plot_path
from resnet_jax.data import BadRecords, measure_statistics
from resnet_jax.data.show import draw, plot_evaluation, plot_training
from resnet_jax.files import write_atomically

_MOST_MEASURED = 1000
"""Examples on which the mean is measured: more would take long, and look the same."""


def main(arguments: Sequence[str]) -> None:
    """Draws the images and prints the name of the file."""
    command = Flags(__doc__, arguments)
    config = command.define_config()
    whole = flags.DEFINE_integer
    command.add(flags.DEFINE_string, "out", "grid.png", "The file of the plot.")
    command.add(flags.DEFINE_string, "split", None, "Images of this split, in evaluation.")
    command.add(whole, "step", 0, "Step of the batch, from 0.", upper_bound=10**12)
    command.add(whole, "rows", 4, "Rows of images.", lower_bound=1)
    command.add(whole, "columns", 6, "Columns of images.", lower_bound=1)
    command.parse()
    values = command.values
    out = plot_path(values.out)
    write_atomically(out, _draw(config.value, values))
    print(out)


def _draw(config: ConfigDict, values: flags.FlagValues) -> bytes:
    configs.check(config)
    augmentation = configs.build_augmentation(config)
    bad_records = BadRecords(config.data.train_split, config.data.max_bad_share)
    train_images = configs.load_images(config, config.data.train_split, bad_records)
    most = min(config.data.statistics_examples or _MOST_MEASURED, _MOST_MEASURED)
    statistics = measure_statistics(
        train_images, config.data.mean, config.data.std, color=config.data.color, most=most
    )
    count = values.rows * values.columns
    if values.split is None:
        split = config.data.train_split
        plots = plot_training(
            train_images,
            augmentation,
            statistics,
            batch_size=config.batch_size,
            seed=config.seed,
            step=values.step,
            count=count,
        )
    else:
        split = values.split
        images = configs.load_images(config, split)
        plots = [plot_evaluation(images, statistics, count=count)]
    described = [
        f"{config.data.image_size} pixels",
        f"augment {config.data.augment}",
        f"color {config.data.color}",
        f"mean {config.data.mean}, measured on {min(most, len(train_images)):,} images",
    ]
    return draw(
        plots,
        columns=values.columns,
        title=f"{configs.data_name(config)}, {split}",
        note="; ".join(described),
    )
