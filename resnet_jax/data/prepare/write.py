"""Prepares a data set: decodes, shrinks and writes the examples of a source, shard by shard.

A shard is written under another name, made durable, and renamed; under its final name it is
finished. A preparation that was killed goes on with the shards that are missing, to the same bytes.
"""

import contextlib
import errno
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from etils import epath
from tqdm import tqdm

from resnet_jax.data.prepare.plan import Plan, Settings, Shard, make_plan
from resnet_jax.data.prepare.shrink import shrink
from resnet_jax.data.prepare.verify import BAD, LAST, UNFINISHED, features, finish, read_manifest
from resnet_jax.data.sources import Source
from resnet_jax.data.workers import worker_count
from resnet_jax.errors import InputError
from resnet_jax.files import is_local, make_durable, try_lock, write_atomically

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
    """Writes a data set of tensorflow_datasets, `out/name/version`.

    It has the examples in the order of their source, and each one's key as `file_name`. The bytes
    of all files are the same for any number of workers, interrupted or not. Nothing finds the data
    set until all of it is written.

    Args:
      sources: The splits by name.
      out: Where data sets of tensorflow_datasets are, or will be; a local folder.
      name: Name of the data set, as `my_photos`.
      version: Its version.
      settings: How images are stored.
      skip_bad: Share of the images, from 0 to below 1, that may be left out because they cannot be
        decoded; `bad.jsonl` lists them.
      workers: Number of threads that decode and encode; by default as many as there are cores.

    Returns:
      The folder of the data set.

    Raises:
      InputError: A source, an image or the folder cannot be used; the message says why.
      OSError: A file cannot be written, as on a full disk.
    """
    if not 0 <= skip_bad < 1:
        raise InputError(f"the share that may be left out is from 0 to below 1, not {skip_bad}")
    workers = worker_count(workers)
    plan = make_plan(sources, name, version, settings or Settings())
    folder = epath.Path(out).expanduser() / name / version
    if not is_local(folder):
        raise InputError(
            f"{folder} is in an object store, and ArrayRecord files are read from disks only; "
            "give a local folder"
        )
    with _only_writer(folder):
        if (folder / LAST).exists():
            # Nothing is left to encode, so the encoder does not matter.
            there = {**read_manifest(folder)["plan"], "encoder": plan.encoder}
            plan.refuse_other(folder, "prepared", there)
        else:
            _begin(folder, plan)
            finish(folder, plan, _write_shards(folder, plan, sources, skip_bad, workers))
        shutil.rmtree((folder / UNFINISHED).parent, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _only_writer(folder: epath.Path) -> Iterator[None]:
    """Makes a folder and keeps other processes from preparing it at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor):
            raise InputError(f"another process is preparing {folder}")
        yield
    finally:
        os.close(descriptor)


def _begin(folder: epath.Path, plan: Plan) -> None:
    """Writes the plan to the folder, or compares it with the one that is there."""
    path = folder / UNFINISHED
    if path.exists():
        plan.refuse_other(folder, "begun", json.loads(path.read_bytes()))
        return
    others = sorted(each.name for each in folder.iterdir() if each != path.parent)
    if others:
        raise InputError(
            f"{folder} has something else in it ({others[0]}); take another place or version"
        )
    write_atomically(path, plan.to_json().encode())


def _write_shards(
    folder: epath.Path, plan: Plan, sources: Mapping[str, Source], skip_bad: float, workers: int
) -> dict[str, int]:
    """Writes the shards that are missing; returns the number of examples of each, in order.

    Raises:
      InputError: Too many images cannot be decoded.
    """
    from array_record.python.array_record_module import ArrayRecordReader

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
        count = sum(map(len, bad.values()))
        if count <= skip_bad * total:
            return
        if not skip_bad:
            first = next(itertools.chain(*bad.values()))
            raise InputError(
                f"image {first['key']} of {first['split']} cannot be prepared: {first['error']}; "
                "--skip_bad=0.001 leaves out up to one in a thousand, and lists them"
            )
        write_bad()
        raise InputError(
            f"{count} of {total} images cannot be prepared, which is more than the share of "
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

        def records(shard: Shard) -> Iterator[bytes]:
            for record in itertools.islice(encoded, len(shard.indices)):
                bar.update()
                if isinstance(record, bytes):
                    yield record
                else:
                    bad[shard.file].append(record)
                    check_bad()

        for shard in todo:
            partial = (folder / UNFINISHED).with_name(shard.file)
            _write_file(partial, records(shard))
            write_bad()
            os.replace(partial, folder / shard.file)
            make_durable(folder)
    write_bad()
    return {shard.file: len(shard.indices) - len(bad[shard.file]) for shard in plan.shards()}


def _encoder(
    plan: Plan, sources: Mapping[str, Source]
) -> Callable[[tuple[Shard, int]], bytes | _Bad]:
    """Returns the function from a shard and an index of its split to the record of an example."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(features(plan.class_names).get_serialized_info())
    shorter_side, quality = plan.settings.shorter_side, plan.settings.quality

    def encode(task: tuple[Shard, int]) -> bytes | _Bad:
        shard, index = task
        key = f"{shard.split}:{index}"
        try:
            example = sources[shard.split][index]
            key = example.key
            image = shrink(example, shorter_side, quality)
        except InputError as error:
            return {"shard": shard.file, "split": shard.split, "key": key, "error": str(error)}
        name = key.encode(errors="backslashreplace")
        values = {"file_name": name, "image": image, "label": example.label}
        return serializer.get_tf_example(values).SerializeToString(deterministic=True)

    return encode


def _write_file(path: epath.Path, records: Iterable[bytes]) -> None:
    """Writes a durable file of records."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def to_disk(call: Callable[..., object], *arguments: bytes) -> None:
        try:
            call(*arguments)
        except RuntimeError as error:  # as on a full disk
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error

    # Images are compressed already.
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
    try:
        for record in records:
            to_disk(writer.write, record)
    finally:
        to_disk(writer.close)
    make_durable(path)
