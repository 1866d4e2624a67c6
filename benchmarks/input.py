"""Images a second, ours against tf.data and torch: `python benchmarks/input.py FOLDER`.

Each gets random-resized crops of 224 pixels, in batches of 64, from the JPEG files of a folder:
- ours, by 2 threads and by 1;
- tf.data as its guide to performance has it: `decode_and_crop_jpeg`, bilinear resizing (which does
  not average over what it leaves out), parallel calls and prefetching tuned by itself;
- torch's DataLoader with Pillow, by 2 processes: crop and resize, as torchvision's does.
They take turns, each turn in a process of its own; what is printed are the medians. The boxes have
the same distribution for all: drawn anew by ours, drawn before the start for the others. Images
stay whole numbers in ours and torch, and are the float32 that tf's resizing gives in tf.data.
Nothing is flipped or normalised. It needs tensorflow and torch, or `--only ours`.

On a machine that others use too, trust the processor time: it is summed over all threads, and waits
for nobody. (That of torch's own processes is not counted, and not shown.)
"""

import argparse
import itertools
import json
import math
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np

SIZE, BATCH = 224, 64
SKIPPED = 5  # batches at the start
DRAWS = 10  # of boxes that are drawn before the start, for each file
STEADY = 20, 200  # batches between which memory must not grow


def ours(files: list[str], workers: int) -> Iterator[object]:
    from resnet_jax.data import DecodedImages, FolderSplit, augmentation, prefetch, train_batches

    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder, "train", "all")
        place.mkdir(parents=True)
        for file in files:
            path = pathlib.Path(file)  # files of two folders may have the same name
            (place / f"{path.parent.name}-{path.stem}.jpg").symlink_to(file)
        batches = train_batches(
            DecodedImages(FolderSplit(folder, "train"), SIZE, workers=workers),
            augmentation("inception_crop", image_size=SIZE),
            batch_size=BATCH,
            seed=0,
            start=0,
            stop=10**9,
            rows=slice(None),
        )
        with prefetch(batches, 2) as ahead:
            yield from ahead


def boxes(files: list[str]) -> list[list[int]]:
    """Returns a random box for each file: upper, left, height and width, in pixels."""
    from PIL import Image

    from resnet_jax.data import Draws, InceptionCrop

    count = len(files)
    crops = InceptionCrop()(Draws(0, 0, count, slice(0, count)))
    found = []
    for row, file in enumerate(files):
        with Image.open(file) as image:
            box = crops(row, image.height, image.width)
        sides = box.upper, box.left, box.lower - box.upper, box.right - box.left
        found.append([int(side) for side in sides])
    return found


def tf_data(files: list[str], workers: int) -> Iterator[object]:
    import tensorflow as tf  # pyrefly: ignore[missing-import]

    def read(file: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        crop = tf.io.decode_and_crop_jpeg(tf.io.read_file(file), box, channels=3)
        return tf.image.resize(crop, (SIZE, SIZE))

    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    data = tf.data.Dataset.from_tensor_slices((files, boxes(files)))
    data = data.shuffle(len(files)).repeat()
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    data = data.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return data.with_options(options).as_numpy_iterator()


class Files:
    """The data set of torch's DataLoader, for as many epochs as it wants."""

    def __init__(self, files: list[str]) -> None:
        self._files = files
        self._boxes = boxes(files)

    def __len__(self) -> int:
        return 1000 * len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        from PIL import Image

        upper, left, height, width = self._boxes[index % len(self._files)]
        with Image.open(self._files[index % len(self._files)]) as file:
            crop = file.convert("RGB").crop((left, upper, left + width, upper + height))
        return np.array(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def torch_loader(files: list[str], workers: int) -> Iterator[object]:
    from torch.utils.data import DataLoader

    data = Files(files)  # which need not be a Dataset
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers)  # pyrefly: ignore[bad-argument-type]
    return iter(loader)


WAYS: dict[str, tuple[Callable[[list[str], int], Iterator[object]], int]] = {
    "ours": (ours, 2),
    "tf.data": (tf_data, 2),
    "torch": (torch_loader, 2),
    "ours, 1 worker": (ours, 1),
}


class Speed(NamedTuple):
    """The cost of an image in steady state.

    Attributes:
      wall: Images a second, by the clock.
      processor: Milliseconds of processors for an image.
    """

    wall: float
    processor: float

    @classmethod
    def median(cls, speeds: Sequence[Self]) -> Self:
        """Returns the medians of several."""
        return cls(*map(statistics.median, zip(*speeds, strict=True)))

    def __str__(self) -> str:
        return f"{self.wall:.0f} ({self.processor:.2f} ms)"


def measure(way: str, files: list[str], batches: int) -> Speed:
    """Measures the speed after the first batches."""
    read, workers = WAYS[way]
    iterator = read(files if read is ours else DRAWS * files, workers)
    for _ in itertools.islice(iterator, SKIPPED):
        pass
    wall, processor = time.perf_counter(), time.process_time()
    for _ in itertools.islice(iterator, batches):
        pass
    images = BATCH * batches
    spent = math.nan if read is torch_loader else time.process_time() - processor
    return Speed(images / (time.perf_counter() - wall), 1e3 * spent / images)


def peaks(files: list[str]) -> list[int]:
    """Returns the most memory that the process has used up to some of our batches, in MB."""
    found, iterator = [], ours(files, 2)
    for number, _ in enumerate(itertools.islice(iterator, max(STEADY)), 1):
        if number in STEADY:
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10)
    return found


def turn(*arguments: str) -> list[float]:
    """Runs this file in a process of its own."""
    output = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(output.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="its JPEG files are read, those of folders in it too")
    parser.add_argument("--only", action="append", choices=WAYS, help="leave the others out")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--turn", choices=[*WAYS, "memory"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    suffixes = (".jpg", ".jpeg")
    paths = sorted(pathlib.Path(arguments.folder).resolve().rglob("*"))
    files = [str(path) for path in paths if path.suffix.lower() in suffixes]
    if not files:
        parser.error(f"there are no JPEG files in {arguments.folder}")
    if arguments.turn:
        memory = arguments.turn == "memory"
        print(
            json.dumps(
                peaks(files) if memory else measure(arguments.turn, files, arguments.batches)
            )
        )
        sys.stdout.flush()
        return

    same = [arguments.folder, f"--batches={arguments.batches}"]
    ways = arguments.only or list(WAYS)
    speeds: dict[str, list[Speed]] = {way: [] for way in ways}
    for _ in range(arguments.turns):
        for way in ways:
            speeds[way].append(Speed(*turn(*same, f"--turn={way}")))
        print(", ".join(f"{way} {speeds[way][-1]}" for way in ways), flush=True)
    print(
        f"{len(files)} files, batch {BATCH}, {SIZE} pixels; images/s and processor time of an "
        f"image, medians of {arguments.turns} turns:"
    )
    for way in ways:
        print(f"{way:>16} {Speed.median(speeds[way])}")
    first, last = turn(*same, "--turn=memory")
    print(f"most memory of ours: {first:.0f} MB at batch {STEADY[0]}, {last:.0f} at {STEADY[1]}")


if __name__ == "__main__":
    main()
