"""Properties of a run that matter for its speed, and the measurements of its parts."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Case:
    """Properties of a run that matter for its speed.

    Attributes:
      heading: Lines with the network, the data, the devices and the versions of libraries.
      examples: Number of training images.
      batch_size: Images of a step, over all devices.
      image_shape: Height, width and channels of the network's input.
      dtype: Type of the arithmetic.
      in_memory: Whether the images are decoded once, before the first step.
      crops: Whether another part of each image is decoded each time.
      prepared: Whether the source is a data set of tensorflow_datasets, not a folder of images.
      data_flags: Arguments of `prepare` for the source.
      shorter_side: Pixels of an image's shorter side that its crops make use of.
      remote: Whether the source is in an object store.
      workers: Number of threads that decode.
      prefetch: Number of batches that are made ahead.
      shares_cores: Whether the devices are this machine's own cores.
      host_memory: Bytes of this machine's memory.
    """

    heading: str
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
    host_memory: int


@dataclasses.dataclass(frozen=True)
class Findings:
    """The rate of each part of a run on its own, and of all of them together, in images/s.

    Attributes:
      reading: Encoded examples from the source, by as many threads as decode.
      encoded_bytes: Mean size of an encoded image.
      read_seconds: Median time from asking for an example to having it.
      decoding: Crops of examples in memory, by the number of threads.
      batches: The whole input on the host: reading, decoding and putting together.
      transfer: Batches from the host to the devices.
      sent_bytes: Size of an image of a batch, with its random numbers.
      step: Steps whose batch is on the devices.
      compile_seconds: Time to compile the step.
      step_bytes: Memory of a device that the step takes, with state and batch; None if unknown.
      device_bytes: Memory of a device; None if unknown.
      together: All of it, as in training.
    """

    reading: float
    encoded_bytes: float
    read_seconds: float
    decoding: Mapping[int, float]
    batches: float
    transfer: float
    sent_bytes: float
    step: float
    compile_seconds: float
    step_bytes: int | None
    device_bytes: int | None
    together: float
