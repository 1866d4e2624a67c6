"""Draws what a network sees: `python -m resnet_jax.data.show --config configs/NAME.py`.

The first images of a step's batch, cropped, mirrored, in random colours and normalised as the
device has them, and beside them the same ones as they are evaluated, each above its class; as a
PNG. `--split test` draws images of that split as they are evaluated. No network is needed. Exit
status: 0 done, 2 wrong input.

It is an entry point, which nothing imports.
"""

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax import entry
from resnet_jax.data import BadRecords, measure_statistics
from resnet_jax.data.show.grid import draw_grid
from resnet_jax.data.show.panels import evaluation_panel, training_panels
from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically

_MOST_MEASURED = 1000
"""Examples that the mean is measured on: more would take long, and look the same."""

CONFIG = entry.define_config()
OUT = flags.DEFINE_string("out", "grid.png", "The picture.")
SPLIT = flags.DEFINE_string("split", None, "Images of this split as they are evaluated.")
STEP = flags.DEFINE_integer("step", 0, "Step of the batch, from 0.", upper_bound=10**12)
ROWS = flags.DEFINE_integer("rows", 4, "Rows of images.", lower_bound=1)
COLUMNS = flags.DEFINE_integer("columns", 6, "Columns of images.", lower_bound=1)


def main() -> None:
    """Draws what the flags say."""
    out = epath.Path(OUT.value).expanduser()
    if out.suffix.lower() != ".png" or out.is_dir():
        raise InputError(f"--out is {out}; it has to be a file whose name ends in .png")
    picture = _draw(CONFIG.value)
    try:
        write_atomically(out, picture)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    print(out)


def _draw(config: ConfigDict) -> bytes:
    configs.check(config)
    augmentation = configs.build_augmentation(config)
    bad_records = BadRecords(config.data.train_split, config.data.max_bad_share)
    train_images = configs.load_images(config, config.data.train_split, bad_records)
    most = min(config.data.statistics_examples or _MOST_MEASURED, _MOST_MEASURED)
    statistics = measure_statistics(
        train_images, config.data.mean, config.data.std, color=config.data.color, most=most
    )
    count = ROWS.value * COLUMNS.value
    if SPLIT.value is None:
        split = config.data.train_split
        panels = training_panels(
            train_images,
            augmentation,
            statistics,
            batch_size=config.batch_size,
            seed=config.seed,
            step=STEP.value,
            count=count,
        )
    else:
        split = SPLIT.value
        images = configs.load_images(config, split)
        panels = [evaluation_panel(images, statistics, count=count)]
    described = [
        f"{config.data.image_size} pixels",
        f"augment {config.data.augment}",
        f"color {config.data.color}",
        f"mean {config.data.mean}, measured on {min(most, len(train_images)):,} images",
    ]
    return draw_grid(
        panels,
        columns=COLUMNS.value,
        title=f"{configs.data_name(config)}, {split}",
        note="; ".join(described),
    )


if __name__ == "__main__":
    entry.run(main)
