"""Prepares a data set: decodes, shrinks and writes the examples of a source, shard by shard.

A shard is written under another name, made durable, and renamed; under its final name it is
finished. A preparation that was killed goes on with the shards that are missing, to the same bytes.
"""

import contextlib
import errno
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypedDict, TypeVar

from etils import epath
from tqdm import tqdm

from resnet_jax.data.prepare.plan import Plan, Settings, Shard, make_plan
from resnet_jax.data.prepare.shrink import BadImageError, shrink
from resnet_jax.data.prepare.verify import LAST, features, finish, read_manifest
from resnet_jax.data.sources.prepared import UNFINISHED
from resnet_jax.data.sources.source import Source
from resnet_jax.data.workers import worker_count
from resnet_jax.errors import InputError
from resnet_jax.files import is_local, make_durable, try_lock, write_atomically

_BAD_FILE = "bad.jsonl"


class _Bad(TypedDict):
    """An image that was left out: the shard without it, its split and key, and what is wrong."""

    shard: str
    split: str
    key: str
    error: str


_In = TypeVar("_In")
_Out = TypeVar("_Out")


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
            shards = _write_shards(folder, plan, sources, skip_bad, workers)
            finish(folder, plan, shards, [_BAD_FILE] if (folder / _BAD_FILE).exists() else [])
        scratch = (folder / UNFINISHED).parent
        if scratch.exists():
            scratch.rmtree()
    return folder


@contextlib.contextmanager
def _only_writer(folder: epath.Path) -> Iterator[None]:
    """Makes a folder and keeps other processes from preparing it at the same time.

    Raises:
      InputError: Another one does, or the folder cannot be made.
    """
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
    """Writes the plan to the folder, or compares it with the one that is there.

    Raises:
      InputError: Something else is in the folder, or the beginning of something else.
    """
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
    """Writes the shards that are missing; returns the number of examples of each.

    Raises:
      InputError: Too many images cannot be decoded.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    shards = list(plan.shards())
    listed = _read_bad(folder)
    examples: dict[str, int] = {}
    for shard in shards:
        left_out = sum(each.get("shard") == shard.file for each in listed)
        reader = ArrayRecordReader(os.fspath(folder / shard.file))
        found = reader.num_records()  # 0 of a file that is missing or damaged
        if reader.ok() and found == len(shard.indices) - left_out:
            examples[shard.file] = found
    bad = [each for each in listed if each.get("shard") in examples]
    todo = [shard for shard in shards if shard.file not in examples]
    tasks = ((shard, index) for shard in todo for index in shard.indices)
    total = sum(plan.counts.values())
    _check_bad(folder, bad, skip_bad, total)
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
        encoded = _in_order(pool, _encoder(plan, sources), tasks, ahead=4 * workers)

        def records(count: int) -> Iterator[bytes]:
            for record in islice(encoded, count):
                bar.update()
                if isinstance(record, bytes):
                    yield record
                else:
                    bad.append(record)
                    _check_bad(folder, bad, skip_bad, total)

        for shard in todo:
            partial = (folder / UNFINISHED).with_name(shard.file)
            examples[shard.file] = _write_file(partial, records(len(shard.indices)))
            _write_bad(folder, bad)
            os.replace(partial, folder / shard.file)
            make_durable(folder)
    order = [shard.file for shard in shards]
    _write_bad(folder, sorted(bad, key=lambda each: order.index(each["shard"])))
    return {file: examples[file] for file in order}


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
        except (InputError, BadImageError) as error:
            return {"shard": shard.file, "split": shard.split, "key": key, "error": str(error)}
        name = key.encode(errors="backslashreplace")
        values = {"file_name": name, "image": image, "label": example.label}
        return serializer.get_tf_example(values).SerializeToString(deterministic=True)

    return encode


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], tasks: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """Yields the results of tasks in their order; threads work on the next `ahead` of them."""
    waiting: deque[Future[_Out]] = deque()
    for task in tasks:
        waiting.append(pool.submit(work, task))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_file(path: epath.Path, records: Iterable[bytes]) -> int:
    """Writes a durable file of records; returns how many."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def to_disk(call: Callable[..., object], *arguments: bytes) -> None:
        try:
            call(*arguments)
        except RuntimeError as error:  # as on a full disk
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error

    count = 0
    # Images are compressed already.
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
    try:
        for record in records:
            to_disk(writer.write, record)
            count += 1
    finally:
        to_disk(writer.close)
    make_durable(path)
    return count


def _read_bad(folder: epath.Path) -> list[_Bad]:
    path = folder / _BAD_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_bad(folder: epath.Path, bad: Sequence[_Bad]) -> None:
    lines = [json.dumps(each) + "\n" for each in bad]
    if lines:
        write_atomically(folder / _BAD_FILE, "".join(lines).encode())
    else:
        (folder / _BAD_FILE).unlink(missing_ok=True)


def _check_bad(folder: epath.Path, bad: Sequence[_Bad], share: float, total: int) -> None:
    """Raises InputError where more images cannot be decoded than their share; it lists them."""
    if len(bad) <= share * total:
        return
    if not share:
        raise InputError(
            f"image {bad[0]['key']} of {bad[0]['split']} cannot be prepared: {bad[0]['error']}; "
            "--skip_bad=0.001 leaves out up to one in a thousand, and lists them"
        )
    _write_bad(folder, bad)
    raise InputError(
        f"{len(bad)} of {total} images cannot be prepared, which is more than the share of {share} "
        f"that may be left out; {folder / _BAD_FILE} lists them"
    )
