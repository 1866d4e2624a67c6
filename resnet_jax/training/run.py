"""The parts of a run, made of its config and checked before anything is written."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import linen as nn
from flax import traverse_util
from jaxtyping import PyTree
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.checkpoints import Checkpoint
from resnet_jax.data import (
    Augmentation,
    BadRecords,
    Batch,
    ImageSet,
    MeanOf,
    Order,
    Statistics,
    StdOf,
    load_source,
    measure_statistics,
    statistics_template,
    train_batches,
)
from resnet_jax.errors import InputError
from resnet_jax.evaluation import (
    Description,
    Evaluator,
    is_run,
    network_of_weights,
    restore,
    same_classes,
)
from resnet_jax.models import compiler_options
from resnet_jax.parallel import AXIS, Replicas, is_alone, total
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.schedules import Plateau, Schedule, make_schedule
from resnet_jax.training.state import TrainState, init_state, pack, unpack
from resnet_jax.training.step import TrainStep, make_train_step
from resnet_jax.training.transfer import freeze, known_modules, transfer


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts that the config decides; the parts that change in training are in the state."""

    config: ConfigDict  # complete and checked
    replicas: Replicas
    train_images: ImageSet
    bad_records: BadRecords  # replaces the training images that cannot be read
    eval_images: ImageSet
    augmentation: Augmentation  # the random changes of the training images
    model: nn.Module
    optimizer: optax.GradientTransformation  # gives the direction of descent
    schedule: Schedule  # gives the learning rate

    @classmethod
    def from_config(cls, config: ConfigDict, *, ledger: epath.PathLike | None = None) -> "Run":
        """Builds and checks the parts; `ledger` is the file that lists unreadable examples.

        Raises:
          InputError: A part of the config does not exist, or contradicts another or the data.
        """
        configs.check(config)
        options = compiler_options(config.model.lowering, configs.DTYPES[config.dtype])
        replicas = Replicas(config.parallel, compiler_options=options)
        replicas.rows(config.batch_size)  # refuses a batch that does not divide
        bad_records = BadRecords(config.data.train_split, config.data.max_bad_share, ledger=ledger)
        train_images = configs.load_images(config, config.data.train_split, bad_records)
        run = cls(
            config=config,
            replicas=replicas,
            train_images=train_images,
            bad_records=bad_records,
            eval_images=configs.load_images(config, config.data.eval_split),
            augmentation=configs.build_augmentation(config),
            model=configs.build_model(config, len(train_images.class_names), bn_axis_name=AXIS),
            optimizer=freeze(make_optimizer(config.optimizer), config.init.freeze),
            schedule=make_schedule(config.schedule, config.total_steps),
        )
        same_classes(run.eval_images, train_images.class_names)
        run._check_forward_pass()
        known_modules(config.init.freeze, run.state_shapes.params, "init.freeze")
        return run

    def init_state(self) -> TrainState:
        """Returns the state before the first step."""
        return init_state(
            self.model, self.optimizer, self.train_images.image_shape, self.config.seed
        )

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """The shapes and types of `init_state`."""
        return jax.eval_shape(self.init_state)

    def begin(self) -> tuple[TrainState, Statistics]:
        """Returns the state before the first step, with the variables of `init.source` if given.

        Raises:
          InputError: `init.source` cannot be read, or does not fit.
        """
        path, new = self.config.init.source, self.config.init.new
        if path is None:
            return self.init_state(), self.measure_statistics()
        source = restore(path) if is_run(path) else network_of_weights(path, configs.base_config())
        taken = transfer(self.model, self.state_shapes.variables, source, new)
        wanted = self.statistics_template()
        if source.statistics.mean.shape not in (wanted.mean.shape, wanted.std.shape):
            raise InputError(
                f"init.source has a mean of shape {source.statistics.mean.shape}, and this run one "
                f"of shape {wanted.mean.shape}; data.mean and data.image_size have to fit it"
            )
        mean = np.broadcast_to(source.statistics.mean, wanted.mean.shape)
        color = self.measure_statistics(mean="none", std="none").color
        state = self.init_state()
        variables = {**traverse_util.flatten_dict(state.variables, sep="/"), **taken}
        state = state.replace(**traverse_util.unflatten_dict(variables, sep="/"))
        return state, Statistics(mean, source.statistics.std, color)

    def resume(self, saved: Checkpoint) -> tuple[TrainState, Statistics]:
        """Returns the state and the statistics of a checkpoint.

        Raises:
          InputError: The data have grown or shrunk, or the checkpoint is not finite.
        """
        before, now = saved.metadata.get("examples"), len(self.train_images)
        if before not in (None, now):  # older runs do not have it
            raise InputError(
                f"the run has learned from {before} examples of {self.config.data.train_split} "
                f"until now, and there are {now}; their order would be another one"
            )
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.items["variables"])):
            raise InputError(
                f"checkpoint {saved.step} has parameters or statistics that are infinite or NaN; "
                "remove it to go on from the one before"
            )
        state, statistics = unpack(saved.items, self.state_shapes)
        if saved.evaluation and saved.evaluation.plateau:  # it came after the state was saved
            state = state.replace(plateau=Plateau.from_json(saved.evaluation.plateau))
        return state, statistics

    def checkpoint_template(self) -> dict[str, PyTree]:
        """Returns the shapes and types of the parts of a checkpoint."""
        return pack(self.state_shapes, self.statistics_template())

    def description(self) -> Description:
        """Returns the metadata of a checkpoint."""
        return Description(
            config=self.config.to_dict(),
            class_names=self.train_images.class_names,
            examples=len(self.train_images),
            image_shape=self.train_images.image_shape,
        )

    def measure_statistics(
        self, *, mean: MeanOf | None = None, std: StdOf | None = None
    ) -> Statistics:
        """Measures the training images: mean and deviation of the config's kinds, and colours."""
        config = self.config.data
        return measure_statistics(
            self.train_images,
            mean or config.mean,
            std or config.std,
            color=config.color,
            most=config.statistics_examples,
            total=total,
        )

    def statistics_template(self) -> Statistics:
        """Returns the shapes and types of `measure_statistics`."""
        config = self.config.data
        return statistics_template(
            self.train_images.image_shape, mean=config.mean, color=config.color
        )

    def train_step(self, statistics: Statistics) -> TrainStep:
        """Returns the step over all replicas; the state that it is given is lost."""
        step = make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            statistics,
            padding=self.augmentation.padding,
            label_smoothing=self.config.label_smoothing,
            frozen=self.config.init.freeze,
            seed=self.config.seed,
            skips=self.config.skip_steps > 0,
        )
        return self.replicas.map(step, donate=True)

    def batches(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        """Yields this process's rows of the batches from step `start`, from 0, until `stop`.

        By default it stops at the end of the run.
        """
        return train_batches(
            self.train_images,
            self.augmentation,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start=start,
            stop=self.config.total_steps if stop is None else stop,
            rows=self.replicas.rows(self.config.batch_size),
        )

    def example_keys(self, step: int) -> list[str]:
        """Returns the source's keys of the examples of the batch of a step, counted from 0.

        An example that cannot be read is named by its number.
        """
        config = self.config.data
        source = load_source(config.source, config.train_split, name=config.name, path=config.path)

        def key(index: int) -> str:
            try:
                return source[index].key
            except Exception:  # sources come in many kinds
                return f"number {index}"

        order = Order(len(self.train_images), self.config.batch_size, self.config.seed)
        return [key(index) for index in order.indices(step).tolist()]

    def timeouts(self) -> dict[str, float]:
        """Returns the seconds after which each phase of the loop counts as hung, see `Watch`."""
        timeouts = self.config.timeouts.to_dict()
        if timeouts["input"] is None:  # the others wait in vain for one of several
            timeouts["input"] = 600.0 if is_alone() else 45.0
        return timeouts

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after a number of steps."""
        return step == self.config.total_steps or step % self.config.eval_every == 0

    def evaluator(self, statistics: Statistics) -> Evaluator:
        """Returns the evaluation of a state's variables."""
        return Evaluator(
            self.model,
            self.eval_images,
            statistics,
            self.replicas,
            batch_size=self.config.eval_batch_size or self.config.batch_size,
        )

    def _check_forward_pass(self) -> None:
        """Traces the network on a batch's shapes, so that one that does not fit is refused now."""
        shape = (self.config.batch_size, *self.train_images.image_shape)
        batch = self.replicas.shard_shapes(jax.ShapeDtypeStruct(shape, jnp.float32))

        def forward(variables: PyTree, batch: PyTree) -> PyTree:
            return self.model.apply(
                variables,
                batch,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )

        jax.eval_shape(self.replicas.map(forward), self.state_shapes.variables, batch)
