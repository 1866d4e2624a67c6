"""What the doctor is told of a run, and what it measures."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Case:
    """What a run is, as far as it matters for its speed.

    Attributes:
      title: The network and the data.
      machine: The devices and the cores.
      versions: Of what takes part.
      examples: Number of training images.
      batch_size: Images of a step, over all devices.
      image_shape: Height, width and channels of the network's input.
      dtype: Of the arithmetic.
      in_memory: Whether the images are decoded once, before the first step.
      crops: Whether other parts of the images are wanted each time.
      prepared: Whether the source is a data set that was prepared, and no folder of images.
      data_flags: How `python -m resnet_jax prepare` is told of the source.
      shorter_side: Pixels of an image's shorter side that its crops make use of.
      remote: Whether the source is in an object store.
      workers: How many threads decode.
      prefetch: How many batches are made ahead.
      shares_cores: Whether the devices are this machine's own cores.
      host_memory: Of this machine, in bytes; None if it is not known.
    """

    title: str
    machine: str
    versions: str
    examples: int
    batch_size: int
    image_shape: tuple[int, int, int]
    dtype: str
    in_memory: bool
    crops: bool
    prepared: bool
    data_flags: str
    shorter_side: int
    remote: bool
    workers: int
    prefetch: int
    shares_cores: bool
    host_memory: int | None


@dataclasses.dataclass(frozen=True)
class Reading:
    """How fast examples come from their source, encoded.

    Attributes:
      images_per_second: Examples, read by as many threads as decode.
      bytes_per_image: Mean size of an encoded image.
      seconds: From asking for an example to having it, the median.
    """

    images_per_second: float
    bytes_per_image: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Step:
    """How fast the devices take a step whose batch they have.

    Attributes:
      images_per_second: Images, over all devices.
      compile_seconds: What it takes to make the program.
      bytes_per_device: Memory that it takes, state and batch included; None if it is not known.
      bytes_of_device: Memory that a device has; None if it is not known.
    """

    images_per_second: float
    compile_seconds: float
    bytes_per_device: int | None
    bytes_of_device: int | None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What each part of a run gives on its own, and all of them together, in images/s.

    Attributes:
      reading: Of encoded examples.
      decoding: Of examples that were read before, with crops, by the number of threads.
      batches: The whole input on the host: reading, decoding and putting together.
      transfer: From the host to the devices.
      bytes_per_image: Size of an image of a batch, with what travels beside it.
      step: The step.
      together: All of it, as in training.
    """

    reading: Reading
    decoding: Mapping[int, float]
    batches: float
    transfer: float
    bytes_per_image: float
    step: Step
    together: float
