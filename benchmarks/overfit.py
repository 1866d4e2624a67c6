"""Trains a network on 100 photos until it knows them: `overfit.py --config FILE:NAME --data F`.

FILE:NAME is a file of `configs/` and a name of its own, as for `train.py`, and F has
`train/<class>/*`. Images are normalised as in the config, and dropout stays on. The 100 photos are
evaluated, too; batches are small, each is one group of batch normalisation; the rate is constant,
by default the config's first in proportion to the batch; there is no augmentation and no decay. The
program prints loss and error over all photos in evaluation, before the first step and after the
last, and the time of the steps.
"""

import argparse
import math
import runpy
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax.training.run import Run

PHOTOS = "train[:100]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configs/FILE.py:NAME")
    parser.add_argument("--data", required=True, help="the folder")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=300, help="after which no step begins")
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, help="by default in proportion to the batch")
    parser.add_argument("--size", type=int, help="pixels; by default the config's")
    given = parser.parse_args()

    file, _, name = given.config.partition(":")
    config = runpy.run_path(file)["get_config"](*[name] * bool(name))
    on_photos(config, given.data, given.size or config.data.image_size)
    rate = config.schedule.learning_rate * given.batch_size / config.batch_size
    rate = rate if given.learning_rate is None else given.learning_rate
    config.batch_size = config.eval_batch_size = given.batch_size
    config.total_steps, config.schedule.learning_rate = given.steps, rate

    run = Run.from_config(config)
    statistics = run.measure_statistics()
    state = run.replicas.place(run.init_state())
    step, evaluate = run.train_step(statistics), run.evaluator(statistics)
    before = evaluate(state.variables)
    start, seconds, losses = time.perf_counter(), 0.0, []
    for batch in run.batches(0):
        state, metrics = step(state, run.replicas.shard(batch))
        losses.append(float(metrics["loss"]))
        seconds = time.perf_counter() - start
        if seconds > given.seconds:
            break
    after = evaluate(state.variables)
    height, width, _ = run.train_images.image_shape
    print(
        f"{config.model.name}: {before['examples']} photos of {height}x{width}, "
        f"{len(losses)} steps of {given.batch_size} at {rate:.2g} in {seconds:.0f} s on "
        f"{jax.devices()}; loss {before['loss']:.3f} "
        f"(chance {math.log(len(run.train_images.class_names)):.3f}) -> {after['loss']:.3f}, "
        f"error {before['top1_error']:.0f}% -> {after['top1_error']:.0f}%; minimised "
        f"{losses[0]:.3f} -> {np.mean(losses[-10:]):.3f} (the last ten)"
    )


def on_photos(config: ConfigDict, folder: str, size: int) -> None:
    """Changes a config to train and evaluate on the same photos of a folder."""
    data = config.data
    data.source, data.path = "folder", folder
    data.train_split = data.eval_split = PHOTOS
    data.eval_resize = round((data.eval_resize or data.image_size) * size / data.image_size)
    data.image_size = size
    data.augment, data.color, data.in_memory = "none", "none", True
    config.model.bn_group_size = None
    config.optimizer.weight_decay = 0.0
    config.schedule.name, config.schedule.warmup_steps = "constant", 0


if __name__ == "__main__":
    main()
