"""Turns the examples of a source into a data set that tensorflow_datasets reads."""

import contextlib
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping

from etils import epath
from tqdm import tqdm

from resnet_jax.data.prepare.bad import Bad, BadLimit
from resnet_jax.data.prepare.finish import finish
from resnet_jax.data.prepare.info import LAST, record_maker
from resnet_jax.data.prepare.ordered import in_order
from resnet_jax.data.prepare.plan import Format, Plan, Settings, make_plan
from resnet_jax.data.prepare.progress import (
    Done,
    Progress,
    ends,
    forget,
    only_writer,
    refuse_difference,
)
from resnet_jax.data.prepare.shards import (
    count_records,
    fingerprint,
    open_writer,
    put,
)
from resnet_jax.data.prepare.shrink import BadImageError, shrink
from resnet_jax.data.prepare.verify import read_manifest
from resnet_jax.data.sources.source import Source
from resnet_jax.data.workers import worker_count
from resnet_jax.errors import InputError
from resnet_jax.files import is_local


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
    """Writes a data set, `out/name/version`.

    It has the examples in the order of their source, and each one's key as `file_name`. The bytes
    of all files are the same for any number of workers, and whether it was interrupted or not:
    called again it goes on, after it has read and compared what was finished. What reads data sets
    of tensorflow_datasets finds nothing until all is written and verified.

    Args:
      sources: The splits by name.
      out: Where data sets of tensorflow_datasets are, or will be; may be `gs://...`.
      name: What the data set is to be called, as `my_photos`.
      version: Its version.
      settings: How images are stored.
      skip_bad: Share of the images, from 0 to below 1, that may be left out because they cannot be
        decoded; `bad.jsonl` lists them.
      workers: How many threads decode and encode; by default as many as there are cores.

    Returns:
      The folder of the data set.

    Raises:
      InputError: Something is wrong with a source, an image, or what is in the folder already.
    """
    if not 0 <= skip_bad < 1:
        raise InputError(f"the share that may be left out is from 0 to below 1, not {skip_bad}")
    workers = worker_count(workers)
    plan = make_plan(sources, name, version, settings or Settings())
    folder = epath.Path(out).expanduser() / name / version
    with only_writer(folder):
        if (folder / LAST).exists():
            there = read_manifest(folder)["plan"]
            # Nothing is left to encode: it is no matter what would.
            here = {**dataclasses.asdict(plan), "encoder": there["encoder"]}
            refuse_difference(folder, "prepared", there, here)
            forget(folder)
            return folder
        progress = Progress(folder, plan)
        done = progress.finished(plan.shards(), sources)
        limit = BadLimit(folder, skip_bad, sum(plan.counts.values()))
        for each in done.values():
            for bad in each.bad:
                limit.add(bad)
        _write_shards(folder, plan, sources, progress, done, limit, workers)
        finish(folder, plan, done)
        forget(folder)
    return folder


def _write_shards(
    folder: epath.Path,
    plan: Plan,
    sources: Mapping[str, Source],
    progress: Progress,
    done: dict[str, Done],
    limit: BadLimit,
    workers: int,
) -> None:
    """Writes the files that are not among those done, and enters them there."""
    todo = [shard for shard in plan.shards() if shard.file not in done]
    total = sum(plan.counts.values())
    left = sum(shard.stop - shard.start for shard in todo)
    tasks = ((shard.split, index) for shard in todo for index in range(shard.start, shard.stop))
    with contextlib.ExitStack() as stack:
        scratch = folder
        if not is_local(folder):
            scratch = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = in_order(_maker(plan, sources), tasks, workers)
        bar = stack.enter_context(
            tqdm(
                stack.enter_context(contextlib.closing(made)),
                total=total,
                initial=total - left,
                desc=plan.name,
                unit=" images",
                delay=1,
                mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds: in a log, a line
            )
        )
        records = iter(bar)
        for shard in todo:
            partial = scratch / f"{shard.file}.partial"
            stack.callback(partial.unlink, missing_ok=True)
            of_shard = itertools.islice(records, shard.stop - shard.start)
            examples, bad = _write(partial, plan.settings.format, of_shard, limit)
            size, sha256 = fingerprint(partial)
            put(partial, folder / shard.file)
            one = Done(examples, size, sha256, ends(shard, sources[shard.split]), bad)
            progress.note(shard, one)
            done[shard.file] = one


def _maker(plan: Plan, sources: Mapping[str, Source]) -> Callable[[tuple[str, int]], bytes | Bad]:
    """Returns what makes the record of an example, which is given by its split and index."""
    make_record = record_maker(plan.class_names)

    def make(task: tuple[str, int]) -> bytes | Bad:
        split, index = task
        try:
            example = sources[split][index]
        except InputError as error:
            return Bad(split, f"{split}:{index}", str(error))
        try:
            image = shrink(example, plan.settings.shorter_side, plan.settings.quality)
        except BadImageError as error:
            return Bad(split, example.key, str(error))
        return make_record(example.key, image, example.label)

    return make


def _write(
    file: epath.Path, format_name: Format, records: Iterable[bytes | Bad], limit: BadLimit
) -> tuple[int, tuple[Bad, ...]]:
    """Writes records to a file; returns how many, and the bad images that it lacks."""
    written, bad = 0, []
    with open_writer(file, format_name) as writer:
        for record in records:
            if isinstance(record, Bad):
                limit.add(record)
                bad.append(record)
            else:
                writer.write(record)
                written += 1
    if count_records(file, format_name) != written:
        raise OSError(f"{file} does not have the {written} examples written to it")
    return written, tuple(bad)
