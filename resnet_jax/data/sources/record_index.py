"""Where the records of TFRecord files are: found once, and kept."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int64
from tqdm import tqdm

from resnet_jax.data.sources import kept
from resnet_jax.data.sources.ranged import RangedReader
from resnet_jax.data.sources.tfrecord import Damage, find_records
from resnet_jax.errors import InputError
from resnet_jax.files import is_local

_VERSION = 1
_THREADS = 8

_LOCAL_BLOCK = 1 << 12
_STORE_BLOCK = 1 << 23
"""Bytes: a store takes as long for a header as for megabytes, so files are read as a whole."""

_DIGEST = 32  # bytes, SHA-256


class _Shard(NamedTuple):
    """A file by what changes when its content does."""

    name: str
    size: int
    changed: int


def index_records(
    files: Sequence[epath.Path], name: str, reader: RangedReader
) -> Sequence[Int64[np.ndarray, "starts"]]:
    """Returns for each file where its records begin, and last its size.

    What was found is kept in `.index-<name>.bin` beside the files or, where that cannot be written,
    in the user's cache, until the size or the time of change of a file is another. Several
    processes may do this at once.

    Args:
      files: TFRecord files of one folder.
      name: What they are called together, such as the split.
      reader: What reads them.

    Raises:
      InputError: A file is missing, or is no sound TFRecord.
    """
    folder = files[0].parent
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as pool:
        shards = list(pool.map(_shard, files))
        places = kept.places(folder, f"index-{name}.bin")
        for place in places:
            starts = _read(place, shards)
            if starts is not None:
                return starts
        with tqdm(
            total=sum(shard.size for shard in shards),
            desc=f"finding the records of {folder.parent.name} {name}",
            unit="B",
            unit_scale=True,
            delay=2,
            leave=False,
        ) as bar:

            def find(file: epath.Path, shard: _Shard) -> Int64[np.ndarray, "starts"]:
                block = _LOCAL_BLOCK if is_local(file) else _STORE_BLOCK
                try:
                    found = find_records(
                        lambda start, stop: reader.read(file, start, stop), shard.size, block
                    )
                except Damage as damage:
                    raise InputError(f"{file} {damage}; copy or prepare it again") from damage
                except OSError as error:
                    raise InputError(f"{file} cannot be read: {error}") from error
                bar.update(shard.size)
                return found

            futures = [pool.submit(find, *each) for each in zip(files, shards, strict=True)]
            try:
                starts = [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()
    kept.keep(_content(shards, starts), places)
    return starts


def _shard(file: epath.Path) -> _Shard:
    try:
        if is_local(file):
            status = os.stat(file)
            return _Shard(file.name, status.st_size, status.st_mtime_ns)
        described = file.stat()
        return _Shard(file.name, described.length, described.mtime)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _content(shards: Sequence[_Shard], starts: Sequence[Int64[np.ndarray, "starts"]]) -> bytes:
    header = {
        "version": _VERSION,
        "shards": shards,
        "starts": [len(each) for each in starts],
    }
    arrays = [each.astype("<i8").tobytes() for each in starts]
    body = b"".join([json.dumps(header).encode(), b"\n", *arrays])
    return hashlib.sha256(body).digest() + body


def _read(
    path: epath.Path, shards: Sequence[_Shard]
) -> Sequence[Int64[np.ndarray, "starts"]] | None:
    """Returns what was kept, where it is whole and of these files as they are."""
    try:
        content = path.read_bytes()
    except Exception:  # not there, not readable; object stores have errors of their own
        return None
    digest, body = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    line, arrays = body.split(b"\n", 1)
    header = json.loads(line)
    if header["version"] != _VERSION or header["shards"] != [list(shard) for shard in shards]:
        return None
    ends = np.cumsum(header["starts"])[:-1]
    return np.split(np.frombuffer(arrays, "<i8").astype(np.int64), ends)
