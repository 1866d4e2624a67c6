"""Prepared data sets: the images of any source in a few large files, on request made smaller.

A shard is written under another name, made durable, and renamed; under its final name it is
finished. A preparation that was killed goes on with the shards that are missing, to the same bytes.
`python -m resnet_jax prepare` does it from the command line.
"""

import contextlib
import dataclasses
import errno
import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import numpy as np
from etils import epath
from PIL import Image, features
from tqdm import tqdm

from resnet_jax.data.decoding.decode import JPEG, MOST_PIXELS, in_colours, open_image
from resnet_jax.data.manifest import (
    BAD,
    LAST,
    Plan,
    Settings,
    Shard,
    finish,
    image_features,
    read_manifest,
)
from resnet_jax.data.sources import Example, Source
from resnet_jax.data.workers import worker_count
from resnet_jax.errors import InputError, exit_moved
from resnet_jax.files import is_local, make_durable, try_lock, write_atomically

_PLAN = ".progress/plan.json"
"""In the folder of a data set until that is finished."""

_ORIENTATION = 0x0112  # tag of EXIF

_AHEAD = 32
"""Images a thread that are encoded and not yet written."""


class _Bad(TypedDict):
    """An image that was left out: the shard without it, its split and key, and what is wrong."""

    shard: str
    split: str
    key: str
    error: str


def prepare(
    sources: Mapping[str, Source],
    out: epath.PathLike,
    name: str,
    *,
    version: str = "1.0.0",
    settings: Settings | None = None,
    skip_bad: float = 0.0,
    workers: int | None = None,
) -> epath.Path:
    """Writes a data set of tensorflow_datasets, and returns its folder, `out/name/version`.

    It has the examples in the order of their source, and each one's key as `file_name`. The bytes
    of all files are the same for any number of workers, interrupted or not. Nothing finds the data
    set until all of it is written.

    Args:
      sources: The splits by name.
      out: A local folder for data sets of tensorflow_datasets.
      name: Name of the data set, as `my_photos`.
      version: Its version.
      settings: How images are stored.
      skip_bad: Share of the images, from 0 to below 1, that may be left out because they cannot be
        decoded; `bad.jsonl` lists them.
      workers: Number of threads that decode and encode; by default as many as there are cores.

    Raises:
      InputError: A source, an image or the folder cannot be used; the message says why.
      OSError: A file cannot be written, as on a full disk.
    """
    if not 0 <= skip_bad < 1:
        raise InputError(f"the share that may be left out is from 0 to below 1, not {skip_bad}")
    workers = worker_count(workers)
    plan = _make_plan(sources, name, version, settings or Settings())
    folder = epath.Path(out).expanduser() / name / version
    if not is_local(folder):
        raise InputError(
            f"{folder} is in an object store, and ArrayRecord files are written to disks only; "
            "give a local folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor):
            raise InputError(f"another process is preparing {folder}")
        if (folder / LAST).exists():
            # Nothing is left to encode, so the encoder does not matter.
            there = {**read_manifest(folder)["plan"], "encoder": plan.encoder}
            plan.refuse_other(folder, "prepared", there)
        else:
            path = folder / _PLAN
            if path.exists():
                plan.refuse_other(folder, "begun", json.loads(path.read_bytes()))
            elif others := sorted(each.name for each in folder.iterdir() if each != path.parent):
                raise InputError(
                    f"{folder} has something else in it ({others[0]}); take another place or "
                    "version"
                )
            write_atomically(path, json.dumps(dataclasses.asdict(plan)).encode())
            shards = _write_shards(folder, plan, sources, skip_bad, workers)
            finish(folder, plan, shards)
        shutil.rmtree((folder / _PLAN).parent, ignore_errors=True)
    finally:
        os.close(descriptor)
    return folder


def _make_plan(sources: Mapping[str, Source], name: str, version: str, settings: Settings) -> Plan:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"{name!r} cannot name a data set of tfds; write it as my_photos_2")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"{version!r} is not a version of a data set; write it as 1.0.0")
    if not sources:
        raise InputError("there is no split to prepare")
    for split, source in sources.items():
        if not re.fullmatch(r"\w+", split):
            raise InputError(f"{split!r} cannot name a split of tfds, which has letters, digits, _")
        if len(source) == 0:
            raise InputError(f"split {split} has no examples")
    class_names, *others = (source.class_names for source in sources.values())
    if any(other != class_names for other in others):
        raise InputError("splits with different classes cannot be one data set")
    for each in class_names:
        if not each or not each.isprintable():
            raise InputError(f"{each!r} cannot name a class of a data set of tfds")
    return Plan(
        name=name,
        version=version,
        settings=settings,
        class_names=list(class_names),
        counts={split: len(source) for split, source in sources.items()},
        encoder=f"Pillow {Image.__version__}, libjpeg {features.version('jpg')}",
    )


def _write_shards(
    folder: epath.Path, plan: Plan, sources: Mapping[str, Source], skip_bad: float, workers: int
) -> dict[str, dict[str, int]]:
    """Writes the shards that are missing; returns the number of examples of each, by split."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path, total = folder / BAD, sum(plan.counts.values())
    listed = list(map(json.loads, path.read_text().splitlines())) if path.exists() else []
    bad: dict[str, list[_Bad]] = {}
    todo = []
    for shard in plan.shards():
        bad[shard.file] = [each for each in listed if each.get("shard") == shard.file]
        reader = ArrayRecordReader(os.fspath(folder / shard.file))  # not ok if it is missing
        if not reader.ok() or reader.num_records() != len(shard.indices) - len(bad[shard.file]):
            bad[shard.file] = []
            todo.append(shard)

    def write_bad() -> None:
        lines = [json.dumps(each) + "\n" for each in itertools.chain(*bad.values())]
        if lines:
            write_atomically(path, "".join(lines).encode())
        else:
            path.unlink(missing_ok=True)

    def check_bad() -> None:
        every = list(itertools.chain(*bad.values()))
        if len(every) <= skip_bad * total:
            return
        if not skip_bad:
            raise InputError(
                f"image {every[0]['key']} of {every[0]['split']} cannot be prepared: "
                f"{every[0]['error']}; --skip_bad=0.001 leaves out up to one in a thousand, and "
                "lists them"
            )
        write_bad()
        raise InputError(
            f"{len(every)} of {total} images cannot be prepared, which is more than the share of "
            f"{skip_bad} that may be left out; {path} lists them"
        )

    check_bad()
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool,
        tqdm(
            total=total,
            initial=total - sum(len(shard.indices) for shard in todo),
            desc=plan.name,
            unit=" images",
            delay=1,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds: in a log, a line
        ) as bar,
    ):
        tasks = ((shard, index) for shard in todo for index in shard.indices)
        encode = _encoder(plan, sources)
        batches = iter(lambda: list(itertools.islice(tasks, _AHEAD * workers)), [])
        encoded = (record for batch in batches for record in pool.map(encode, batch))
        for shard in todo:
            partial = (folder / _PLAN).with_name(shard.file)
            # Images are compressed already.
            writer = ArrayRecordWriter(os.fspath(partial), "group_size:1,uncompressed")
            try:
                with contextlib.closing(writer):
                    for record in itertools.islice(encoded, len(shard.indices)):
                        bar.update()
                        if isinstance(record, bytes):
                            writer.write(record)
                        else:
                            bad[shard.file].append(record)
                            check_bad()
            except RuntimeError as error:  # of the writer, as on a full disk
                raise OSError(errno.EIO, str(error).partition("\n")[0]) from error
            make_durable(partial)
            write_bad()
            os.replace(partial, folder / shard.file)
            make_durable(folder)
    counts: dict[str, dict[str, int]] = {split: {} for split in plan.counts}
    for shard in plan.shards():
        counts[shard.split][shard.file] = len(shard.indices) - len(bad[shard.file])
    return counts


def _encoder(
    plan: Plan, sources: Mapping[str, Source]
) -> Callable[[tuple[Shard, int]], bytes | _Bad]:
    """Returns the function from a shard and an index of its split to the record of an example."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(image_features(plan.class_names).get_serialized_info())

    def encode(task: tuple[Shard, int]) -> bytes | _Bad:
        shard, index = task
        key = f"{shard.split}:{index}"
        try:
            example = sources[shard.split][index]
            key = example.key
            image = shrink(example, plan.settings.shorter_side, plan.settings.quality)
        except InputError as error:
            return {"shard": shard.file, "split": shard.split, "key": key, "error": str(error)}
        name = key.encode(errors="backslashreplace")
        values = {"file_name": name, "image": image, "label": example.label}
        return serializer.get_tf_example(values).SerializeToString(deterministic=True)

    return encode


def shrink(example: Example, shorter_side: int | None, quality: int) -> bytes:
    """Returns an image as the bytes of a JPEG or PNG file, at most of a size.

    A JPEG or PNG that is small enough is returned as it is, byte for byte. A larger image is
    resampled with Lanczos' filter, which averages, and becomes a JPEG; so does a JPEG in CMYK,
    because some readers of JPEG cannot decode it. Pixels become a PNG, and so does a file of
    another format. Of EXIF only the orientation is kept.

    Raises:
      InputError: It cannot be decoded to its end, or is enormous; the message says so of "it".
    """
    if isinstance(example.image, np.ndarray):
        return _encoded(_resized(open_image(example.image), shorter_side), "PNG")
    try:
        with open_image(example.image) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}"
                )
            image.load()
            small = shorter_side is None or min(image.size) <= shorter_side
            if small and image.format in (*JPEG, "PNG") and image.mode != "CMYK":
                return example.image
            if small and image.format not in JPEG:
                return _encoded(in_colours(image), "PNG")
            orientation, exif = image.getexif().get(_ORIENTATION), Image.Exif()
            if orientation is not None:
                exif[_ORIENTATION] = orientation
            smaller = _resized(in_colours(image), shorter_side)
            return _encoded(smaller, "JPEG", quality=quality, exif=exif)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a broken file can raise anything in Pillow
        raise InputError(f"it cannot be decoded: {error}") from error


def _resized(image: Image.Image, shorter_side: int | None) -> Image.Image:
    shorter = min(image.size)
    if shorter_side is None or shorter <= shorter_side:
        return image
    width, height = (max(1, round(side * shorter_side / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    exit_moved("prepare")
