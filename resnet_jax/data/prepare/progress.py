"""What is finished of a preparation, so that one that was killed goes on."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from resnet_jax.data.prepare.bad import Bad
from resnet_jax.data.prepare.plan import Plan, Shard
from resnet_jax.data.prepare.shards import fingerprint
from resnet_jax.data.sources.prepared import UNFINISHED
from resnet_jax.data.sources.source import Source
from resnet_jax.errors import InputError
from resnet_jax.files import is_local, write_atomically

_FOLDER, _PLAN = UNFINISHED.split("/")
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Done:
    """A file that is finished.

    Attributes:
      examples: How many examples it has.
      size: Its bytes.
      sha256: The SHA-256 of these.
      ends: The keys of the source's first and last example of it.
      bad: The images that it lacks.
    """

    examples: int
    size: int
    sha256: str
    ends: tuple[str, str]
    bad: tuple[Bad, ...]


@contextlib.contextmanager
def only_writer(folder: epath.Path) -> Iterator[None]:
    """Makes a folder, and sees to it that no other process writes to it at the same time.

    Raises:
      InputError: One does, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}") from error
    if not is_local(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is preparing {folder}") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


class Progress:
    """The record of what is finished; each entry is there as a whole or not at all."""

    def __init__(self, folder: epath.Path, plan: Plan) -> None:
        """Begins, or goes on.

        Args:
          folder: Where the data set is made.
          plan: What is made.

        Raises:
          InputError: Something else is in the folder, or the beginning of something else.
        """
        self._folder = folder
        self._notes = folder / _FOLDER
        here = dataclasses.asdict(plan)
        path = self._notes / _PLAN
        if path.exists():
            try:
                there = json.loads(path.read_bytes())
            except ValueError as error:
                raise InputError(f"{path} is damaged; delete {folder} to begin anew") from error
            refuse_difference(folder, "begun", there, here)
            return
        others = sorted(each.name for each in folder.iterdir() if each.name != _FOLDER)
        if others:
            raise InputError(
                f"{folder} has something else in it ({others[0]}); take another place or version"
            )
        write_atomically(path, _json(here))

    def finished(self, shards: tuple[Shard, ...], sources: Mapping[str, Source]) -> dict[str, Done]:
        """Returns what is finished of some files, each read and compared with what was written.

        Raises:
          InputError: The source has other examples now.
        """

        def check(shard: Shard) -> Done | None:
            try:
                noted = json.loads((self._notes / f"{shard.file}.json").read_bytes())
                done = Done(
                    examples=noted["examples"],
                    size=noted["size"],
                    sha256=noted["sha256"],
                    ends=tuple(noted["ends"]),
                    bad=tuple(Bad(**each) for each in noted["bad"]),
                )
                if fingerprint(self._folder / shard.file) != (done.size, done.sha256):
                    return None
            except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
                return None
            if done.ends != ends(shard, sources[shard.split]):
                raise InputError(
                    f"the examples of {shard.split} are others than when {self._folder} was "
                    "begun; delete that folder to begin anew"
                )
            return done

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
            found = zip(shards, pool.map(check, shards), strict=True)
            return {shard.file: done for shard, done in found if done is not None}

    def note(self, shard: Shard, done: Done) -> None:
        """Enters a file that is in its place."""
        write_atomically(self._notes / f"{shard.file}.json", _json(dataclasses.asdict(done)))


def forget(folder: epath.Path) -> None:
    """Removes the record of what was finished, if there is one."""
    if (folder / _FOLDER).exists():
        (folder / _FOLDER).rmtree()


def unfinished(folder: epath.Path) -> bool:
    """Whether a preparation was begun in a folder and has not ended."""
    return (folder / UNFINISHED).exists()


def ends(shard: Shard, source: Source) -> tuple[str, str]:
    """Returns the keys of the first and the last example of a file."""
    return _key(source, shard.start), _key(source, shard.stop - 1)


def _key(source: Source, index: int) -> str:
    try:
        return source[index].key
    except InputError:  # left out, or the end of the preparation, when its turn comes
        return ""


def refuse_difference(
    folder: epath.Path, how: str, there: Mapping[str, object], here: Mapping[str, object]
) -> None:
    """Refuses to take one plan for another.

    Args:
      folder: Where the data set is.
      how: What happened there, "begun".
      there: The plan by which it did, as JSON.
      here: The one that is wanted.

    Raises:
      InputError: Names the first value that differs.
    """
    before, now = (_flat(json.loads(json.dumps(each))) for each in (there, here))
    for key in [*now, *before]:
        if before.get(key) != now.get(key):
            raise InputError(
                f"{folder} was {how} with {key} {_short(before.get(key))} and not "
                f"{_short(now.get(key))}; take another place or version, or delete it"
            )


def _short(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _flat(plan: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in plan.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content).encode()
