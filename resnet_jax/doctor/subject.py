"""What the doctor measures: a run, and parts of it that a run keeps to itself."""

import dataclasses
import os
import platform
import shlex
from collections.abc import Callable

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.data import BadRecords, DecodedImages, ImageSet, ScaleJitter, Source, load_source
from resnet_jax.data.workers import cores, worker_count
from resnet_jax.doctor.findings import Case
from resnet_jax.files import is_local
from resnet_jax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
      run: The run.
      source: Its training examples, as they are stored.
      decoder: Returns images that are decoded as they are read, of a source, by so many threads.
    """

    run: Run
    source: Source
    decoder: Callable[[Source, int], ImageSet]

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Subject":
        """Makes the parts of a run.

        Raises:
          InputError: The config asks for what there is not, or contradicts itself or the data.
        """
        data = config.data

        def decoder(source: Source, threads: int) -> ImageSet:
            return DecodedImages(
                source,
                data.image_size,
                resize=data.eval_resize,
                interpolation=data.interpolation,
                workers=threads,
                bad_records=BadRecords(data.train_split, data.max_bad_share),
            )

        return cls(
            run=Run.from_config(config),
            source=load_source(data.source, data.train_split, name=data.name, path=data.path),
            decoder=decoder,
        )

    @property
    def workers(self) -> int:
        """How many threads decode."""
        return worker_count(self.run.config.data.workers)


def case_of(subject: Subject) -> Case:
    """Returns what a run is, as far as it matters for its speed."""
    run = subject.run
    config = run.config
    versions = {"Python": platform.python_version()} | {
        module.__name__: module.__version__ for module in (jax, flax, np)
    }
    return Case(
        title=f"{config.model.name} on {len(run.train_images):,} images of "
        f"{configs.data_name(config)}, {config.data.train_split}",
        machine=f"{run.replicas}; {cores()} cores",
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        examples=len(run.train_images),
        batch_size=config.batch_size,
        image_shape=run.train_images.image_shape,
        dtype=config.dtype,
        in_memory=config.data.in_memory,
        crops=run.augmentation.crop is not None,
        prepared=config.data.source == "tfds",
        data_flags=_data_flags(config),
        shorter_side=_shorter_side(run),
        remote=config.data.path is not None and not is_local(config.data.path),
        workers=subject.workers,
        prefetch=config.prefetch,
        shares_cores=jax.default_backend() == "cpu",
        host_memory=_host_memory(),
    )


def _data_flags(config: ConfigDict) -> str:
    given = {"name": config.data.name if config.data.source == "tfds" else None}
    given |= {"path": config.data.path}
    flags = [f"--{flag} {shlex.quote(v)}" for flag, v in given.items() if v is not None]
    return " ".join([f"--source {config.data.source}", *flags])


def _shorter_side(run: Run) -> int:
    """Returns how many pixels images may be shrunk to."""
    size = run.config.data.image_size
    match run.augmentation.crop:
        case ScaleJitter(longest=longest):
            return longest
        case None:
            return run.config.data.eval_resize or size
        case _:
            return 2 * size  # crops of a quarter of the area and more are not enlarged


def _host_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
