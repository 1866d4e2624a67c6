"""Images a second, ours against tf.data and torch: `python benchmarks/input.py FOLDER`.

Each gets random-resized crops of 224 pixels, in batches of 64, from the JPEG files of a folder:
- ours, by 2 threads and by 1;
- tf.data as its guide to performance has it: `decode_and_crop_jpeg`, bilinear resizing (which does
  not average over what it leaves out), parallel calls and prefetching tuned by itself;
- torch's DataLoader with Pillow, by 2 processes: crop and resize, as torchvision's does.
The boxes have the same distribution for all: drawn anew by ours, drawn before the start for the
others. Images stay whole numbers in ours and torch, and are the float32 that tf's resizing gives in
tf.data. Nothing is flipped or normalised.

    python benchmarks/input.py FOLDER --in-memory

The folder is CIFAR-10 as `train/<class>/*`, decoded before the start. Each makes batches of 128 for
padded crops and flips: ours draws their numbers, for the device to crop and flip; tf.data and
torch (`torchvision.transforms` on tensors, by 2 processes) crop and flip on the host. A step of
1 ms needs a batch in that time.

They take turns, each turn in a process of its own; what is printed are the medians. It needs
tensorflow and torch, or `--only ours`. On a machine that others use too, trust the processor time:
it is summed over all threads, and waits for nobody. (That of torch's own processes is not counted,
and not shown.)
"""

import argparse
import functools
import itertools
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import turns
from turns import Result

SIZE, BATCH = 224, 64
BATCH_IN_MEMORY = 128
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


def cifar(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training images, uint8 [n, 32, 32, 3], and their labels."""
    from resnet_jax.data import load_images

    images = load_images("folder", "train", 32, path=folder)
    return images.read(np.arange(len(images)))


def ours_in_memory(folder: str) -> Iterator[object]:
    from resnet_jax.data import augmentation, load_images, train_batches

    return train_batches(
        load_images("folder", "train", 32, path=folder),
        augmentation("pad_crop_flip", image_size=32),
        batch_size=BATCH_IN_MEMORY,
        seed=0,
        start=0,
        stop=10**9,
        rows=slice(None),
    )


def tf_in_memory(folder: str) -> Iterator[object]:
    import tensorflow as tf  # pyrefly: ignore[missing-import]

    def change(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), (32, 32, 3))
        return tf.image.random_flip_left_right(image), label

    images, labels = cifar(folder)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels)).repeat()
    data = data.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    data = data.batch(BATCH_IN_MEMORY, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return data.as_numpy_iterator()


def torch_in_memory(folder: str) -> Iterator[object]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms

    images, labels = cifar(folder)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    change = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    )

    class Images:
        def __len__(self) -> int:
            return 1000 * len(labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            row = index % len(labels)
            return change(pixels[row]), int(labels[row])

    loader = DataLoader(Images(), BATCH_IN_MEMORY, shuffle=True, num_workers=2)  # pyrefly: ignore[bad-argument-type]
    return iter(loader)


Way = Callable[[str], Iterator[object]]


def from_files(read: Callable[[list[str], int], Iterator[object]], workers: int) -> Way:
    """Returns the way that reads the JPEG files of a folder."""

    def way(folder: str) -> Iterator[object]:
        paths = sorted(pathlib.Path(folder).resolve().rglob("*"))
        files = [str(path) for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
        if not files:
            raise SystemExit(f"there are no JPEG files in {folder}")
        return read(files if read is ours else DRAWS * files, workers)

    return way


WAYS = {
    "ours": from_files(ours, 2),
    "tf.data": from_files(tf_data, 2),
    "torch": from_files(torch_loader, 2),
    "ours, 1 worker": from_files(ours, 1),
}
WAYS_IN_MEMORY = {"ours": ours_in_memory, "tf.data": tf_in_memory, "torch": torch_in_memory}


def measure(name: str, way: Way, folder: str, batches: int, batch: int) -> Result:
    """Measures the speed after the first batches."""
    try:
        iterator = way(folder)
    except ImportError as error:
        raise SystemExit(f"{error.name} is missing") from error
    for _ in itertools.islice(iterator, SKIPPED):
        pass
    wall, processor = time.perf_counter(), time.process_time()
    for _ in itertools.islice(iterator, batches):
        pass
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    found = {
        "images_per_second": batch * batches / wall,
        "batch_milliseconds": 1e3 * wall / batches,
    }
    return (
        found if name == "torch" else found | {"processor_milliseconds": 1e3 * processor / batches}
    )


def peaks(folder: str) -> Result:
    """Returns the most memory that the process has used up to some of our batches, in MB."""
    found = {}
    for number, _ in enumerate(itertools.islice(WAYS["ours"](folder), max(STEADY)), 1):
        if number in STEADY:
            found[str(number)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
    return found


def describe(name: str, result: Result) -> str:
    """Returns a line about a measurement."""
    if "failed" in result:
        return f"{name}: {result['failed']}"
    return f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in result.items())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="its JPEG files are read, those of folders in it too")
    parser.add_argument("--in-memory", action="store_true", help="of CIFAR-10")
    parser.add_argument("--only", action="append", choices=WAYS, help="leave the others out")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", help="file for the results, as JSON")
    parser.add_argument("--one", choices=[*WAYS, "memory"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ways = WAYS_IN_MEMORY if arguments.in_memory else WAYS
    batch = BATCH_IN_MEMORY if arguments.in_memory else BATCH
    if arguments.one == "memory":
        print(json.dumps(peaks(arguments.folder)))
        return
    if arguments.one:
        way, name = ways[arguments.one], arguments.one
        print(json.dumps(measure(name, way, arguments.folder, arguments.batches, batch)))
        sys.stdout.flush()
        return

    command = [sys.executable, __file__, *sys.argv[1:]]
    jobs = {
        name: functools.partial(turns.measure, [*command, f"--one={name}"])
        for name in arguments.only or ways
    }
    results = turns.by_turns(jobs, arguments.turns, describe)
    print(comparison(results, batch))
    if not arguments.in_memory and "ours" in results:
        results["memory of ours, MB at batch"] = turns.measure([*command, "--one=memory"])
        print(describe("memory of ours, MB at batch", results["memory of ours, MB at batch"]))
    turns.write(arguments.out, results)


def comparison(results: dict[str, Result], batch: int) -> str:
    """Returns the table of the medians, and each one's time over that of the first."""
    rows = [["", "images/s", f"ms a batch of {batch}", "processor ms", "ratio"]]
    ours = next(iter(results.values())).get("processor_milliseconds", float("nan"))
    for name, result in results.items():
        if "failed" in result:
            rows.append([name, "-", "-", "-", result["failed"][:40]])
            continue
        processor = result.get("processor_milliseconds", float("nan"))
        rows.append(
            [
                name,
                f"{result['images_per_second']:.0f}",
                f"{result['batch_milliseconds']:.3f}",
                f"{processor:.3f}",
                f"{processor / ours:.2f}",
            ]
        )
    return turns.table(rows)


if __name__ == "__main__":
    main()
