"""Whether a network learns 100 photos: `python benchmarks/overfit.py --data FOLDER --model M`.

FOLDER has `train/<class>/*`. Photos and order are the same for every network; there is no
augmentation, and dropout stays on. Printed are the loss and the error over all the photos, as in
evaluation, before the first step and after the last, and the time that the steps took.
"""

import argparse
import time
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import resnet_jax
from resnet_jax.config import base_config
from resnet_jax.data import MemoryImages, Statistics, eval_batches, measure_statistics, preprocess
from resnet_jax.data.images import DecodedImages
from resnet_jax.data.load import load_source
from resnet_jax.data.order import Order
from resnet_jax.models import image_shape
from resnet_jax.parallel import Replicas
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.schedules import make_schedule
from resnet_jax.training.state import init_state
from resnet_jax.training.step import cross_entropy, make_train_step

PHOTOS = 100


def photos(folder: str, size: int) -> MemoryImages:
    source = load_source("folder", f"train[:{PHOTOS}]", path=folder)
    return MemoryImages(DecodedImages(source, size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="the folder")
    parser.add_argument("--model", required=True, choices=resnet_jax.list_models())
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--size", type=int, help="pixels; by default the network's own")
    given = parser.parse_args()

    images = photos(given.data, given.size or image_shape(given.model)[0])
    statistics = measure_statistics(images, mean="channel", std="channel")
    model = resnet_jax.create_model(given.model, num_classes=len(images.class_names))
    config = base_config()
    config.schedule.name = "constant"
    config.schedule.learning_rate = given.learning_rate
    config.optimizer.weight_decay = 0.0
    optimizer = make_optimizer(config.optimizer)
    replicas = Replicas("pmap")
    step = replicas.map(
        make_train_step(
            model,
            optimizer,
            make_schedule(config.schedule, given.steps),
            statistics,
            padding=0,
            label_smoothing=0,
            frozen=(),
            seed=0,
        ),
        donate=True,
    )
    state = replicas.place(init_state(model, optimizer, images.image_shape, seed=0))
    first = evaluate(model, state.variables, images, statistics, given.batch_size)
    order, start, losses = Order(PHOTOS, given.batch_size, seed=0), time.perf_counter(), []
    for number in range(given.steps):
        pixels, labels = images.read(order.indices(number))
        state, metrics = step(state, replicas.shard({"image": pixels, "label": labels}))
        losses.append(float(metrics["loss"]))
    seconds = time.perf_counter() - start
    last = evaluate(model, state.variables, images, statistics, given.batch_size)
    print(
        f"{given.model}: loss {first[0]:.3f} -> {last[0]:.3f}, error {first[1]:.0f}% -> "
        f"{last[1]:.0f}%, of the first step {losses[0]:.3f}, of the last ten "
        f"{np.mean(losses[-10:]):.3f}, {given.steps} steps of {given.batch_size}, {seconds:.0f} s"
    )


def evaluate(
    model: nn.Module, variables, images: MemoryImages, statistics: Statistics, batch_size: int
) -> tuple[float, float]:
    """Returns the mean loss and the top-1 error in percent."""

    @jax.jit
    def sums(variables, batch):
        pixels = preprocess(batch, statistics, padding=0)
        logits = cast(jax.Array, model.apply(variables, pixels, train=False))
        wrong = jnp.mean((jnp.argmax(logits, -1) != batch["label"]).astype(jnp.float32))
        return cross_entropy(logits, batch["label"]), wrong

    batches = eval_batches(images, batch_size=batch_size, rows=slice(0, batch_size))
    found = [sums(variables, {k: jnp.asarray(v) for k, v in b.items()}) for b in batches]
    loss, wrong = np.mean(np.array(jax.device_get(found)), axis=0)
    return float(loss), 100 * float(wrong)


if __name__ == "__main__":
    main()
