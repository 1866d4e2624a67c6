"""The workdir of a run: its layout, its config and its lock."""

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Mapping
from typing import Self, TypeAlias

from etils import epath

from resnet_jax import parallel
from resnet_jax.errors import InputError
from resnet_jax.files import is_local, resolve_path, try_lock, write_atomically

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_LOCK = ".lock"
_PROOF = ".shared-"
_SHARED_AFTER = 5.0  # seconds in which a network file system shows a new file to other hosts


class BusyError(RuntimeError):
    """Another trainer works in the workdir."""

    exit_status = 75  # EX_TEMPFAIL: start me again


class Layout:
    """The paths in a workdir, absolute where it is local; nothing is made."""

    def __init__(self, path: epath.PathLike) -> None:
        path = resolve_path(path)
        self.path = path.resolve() if is_local(path) else path
        self.config_path = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.report = self.path / "report"
        self.tensorboard = self.path / "tensorboard"

    def bad_records(self, process: int) -> epath.Path:
        """Returns the path of a process's list of the examples that it could not read."""
        return self.path / "bad_records" / f"{process}.jsonl"


class Workdir(Layout):
    """A workdir that one trainer works in until it is closed or its process ends.

    Object stores and file systems without locks keep no other trainer out. Of the processes of one
    run the primary one opens this; the others know the `Layout`.
    """

    def __init__(
        self,
        path: epath.PathLike,
        config: Mapping[str, object],
        *,
        may_change: Collection[str],
        defaults: Mapping[str, object] | None = None,
        lock_timeout: float = 0,
    ) -> None:
        """Takes the workdir for a run of `config`, making it where it is missing.

        Args:
          path: The workdir.
          config: Values of JSON; tuples become lists. It is kept in `config.json`.
          may_change: Dotted names of keys that do not belong to the run's identity, such as
            `data.path`; a name covers the keys below it. Where only they differ from the
            `config.json` that is there, it is replaced.
          defaults: Values of keys that a `config.json` lacks because they are newer than the run.
          lock_timeout: Seconds to wait for another trainer to end.

        Raises:
          BusyError: Another trainer still works there.
          InputError: The path is a file, a folder with other things in it or cannot be made; its
            `config.json` is damaged or of another run.
          OSError: Its `config.json` cannot be read.
        """
        super().__init__(path)
        here = json.loads(json.dumps(config, allow_nan=False))
        self._make()
        self._lock = lock(self.path, lock_timeout) if is_local(self.path) else None
        try:
            there = _read(self.config_path)
            filled = {**_flatten(json.loads(json.dumps(defaults or {}))), **_flatten(there or {})}
            if there is not None:
                self._compare(filled, _flatten(here), may_change)
            if there is None or filled != _flatten(here):
                text = json.dumps(here, indent=2, sort_keys=True, ensure_ascii=False)
                write_atomically(self.config_path, (text + "\n").encode())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.path.is_dir():  # an object store makes folders of anything
                raise NotADirectoryError
            names = {entry.name for entry in self.path.iterdir()}
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{self.path} cannot be a workdir, a file is in its place; "
                "give a folder that is new or empty"
            ) from error
        except OSError as error:
            raise InputError(
                f"the workdir {self.path} cannot be made ({error.strerror}); give another"
            ) from error
        # Left by a run that was killed while it made its workdir, or could not read its data.
        partial, bad_records = self.config_path.name + ".partial", self.bad_records(0).parent.name
        others = names - {_LOCK, partial, bad_records}
        if others and self.config_path.name not in others:
            raise InputError(
                f"{self.path} is no workdir: it has no config.json but holds {sorted(others)[0]}; "
                "give a folder that is new or empty"
            )

    def _compare(
        self, there: Mapping[str, Json], here: Mapping[str, Json], may_change: Collection[str]
    ) -> None:
        def value(config: Mapping[str, Json], name: str) -> str:
            return repr(config[name]) if name in config else "absent"  # `repr` tells 1 from True

        differences = [
            f"{name}: {value(there, name)} there, {value(here, name)} here"
            for name in sorted(there.keys() | here.keys())
            if value(there, name) != value(here, name)
            and not any(f"{name}.".startswith(f"{key}.") for key in may_change)
        ]
        if differences:
            raise InputError(
                f"{self.path} is the workdir of another config ({'; '.join(differences)}); "
                "give another workdir, or the config that this one was started with"
            )


def read_config(workdir: epath.PathLike) -> dict[str, Json]:
    """Returns the config of the run in a workdir.

    Raises:
      InputError: It is not a workdir, or its `config.json` is damaged.
      OSError: Its `config.json` cannot be read.
    """
    layout = Layout(workdir)
    config = _read(layout.config_path)
    if config is None and not layout.path.exists():
        raise InputError(f"there is no workdir {layout.path}; train.py makes one")
    if config is None:
        raise InputError(
            f"{layout.path} is no workdir: it has no config.json; give the workdir of a run"
        )
    return config


def _read(path: epath.Path) -> dict[str, Json] | None:
    """Returns a config, None where it is missing."""
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); put back the config that the run was started with, "
            "or give another workdir"
        ) from error
    return config


def lock(path: epath.Path, timeout: float = 0) -> int:
    """Locks a local workdir, and returns the file that holds the lock until it is closed.

    Raises:
      BusyError: Another process has had it for `timeout` seconds.
      InputError: The workdir cannot be written to.
    """
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(
            f"the workdir {path} cannot be written to ({error.strerror}); give another"
        ) from error
    begin, said = time.monotonic(), False
    while not try_lock(descriptor):
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        busy = f"another trainer is at work in {path} ({holder or 'its process is not known'})"
        if time.monotonic() - begin >= timeout:
            os.close(descriptor)
            raise BusyError(f"{busy}; start again when it has ended, or give another workdir")
        if not said:
            print(f"{busy}; waiting up to {timeout:g} s until it has ended", file=sys.stderr)
        said = True
        time.sleep(0.1)
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def refuse_unshared(path: epath.Path) -> None:
    """Refuses, on all processes, a workdir that not all see; each has to call it.

    The primary one, which has taken the workdir, writes a file with a new name: a folder of the
    same path and contents on another disk does not pass.

    Raises:
      InputError: Of the first process that does not see the file.
    """
    if parallel.is_alone() or not is_local(path):
        return

    def write() -> str:
        for old in path.glob(f"{_PROOF}*"):
            old.unlink()
        proof = path / f"{_PROOF}{secrets.token_hex(8)}"
        proof.touch()
        return proof.name

    proof = path / parallel.once(write)
    try:
        with parallel.agree_on_input():
            end = time.monotonic() + _SHARED_AFTER
            while not proof.exists():
                if time.monotonic() > end:
                    raise InputError(
                        f"the workdir {path} is not shared: {parallel.process_name()} on "
                        f"{socket.gethostname()} does not see what process 0 has written there; "
                        "give one in a folder that all hosts share"
                    )
                time.sleep(0.1)
    finally:
        if parallel.is_primary():
            proof.unlink(missing_ok=True)


def _flatten(config: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Returns the values of nested keys by their dotted names."""
    flat: dict[str, Json] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
