"""The frame of all programs: it runs a command and ends the process with its exit status."""

import argparse
import ast
import functools
import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from logging import getLogger
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from absl import flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from resnet_jax import parallel
from resnet_jax.cli import COMMANDS
from resnet_jax.errors import InputError, asks_for_package, unknown
from resnet_jax.files import check_writable

if TYPE_CHECKING:
    from resnet_jax.analysis import Summary

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_LOST = 75  # EX_TEMPFAIL: start me again
EXIT_STOPPED = 130  # as shells report SIGINT

_TIMEOUTS = {
    "heartbeat_timeout": (10, "Seconds after which a silent process counts as dead."),
    "join_timeout": (300, "Seconds that a process waits for the others to start."),
    "shutdown_timeout": (60, "Seconds that a process waits for the others at the end."),
}


def run(command: str, arguments: Sequence[str], *, name: str | None = None) -> None:
    """Runs a command; if it fails, prints one sentence and exits with a status.

    The status is 2 for wrong input and for a package that has to be installed, 130 for Ctrl-C, 75
    if another process of the run has ended or has not come, 1 for an error of the operating system
    such as a full disk, and an exception's `exit_status`. Other exceptions are programming errors:
    they keep their traceback, and the status is 1. One of several processes ends without waiting
    for the others, unless the exception is raised `on_all_processes`.

    Args:
      command: One of `COMMANDS`.
      arguments: The command line after the command.
      name: The beginning of messages; by default `resnet_jax COMMAND`.
    """
    name = name or f"resnet_jax {command}"
    resume = ""
    try:
        if command not in COMMANDS:
            name = "resnet_jax"
            raise unknown("command", command, COMMANDS)
        module = importlib.import_module(f"resnet_jax.cli.{command}")
        resume = getattr(module, "RESUME", "")
        module.main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # a reader such as `head` has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        _end(name, f"stopped{resume}", EXIT_STOPPED)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is not None:
            _end(name, error, status, on_all=getattr(error, "on_all_processes", False))
        if isinstance(error, ImportError) and asks_for_package(error):
            _end(name, error, EXIT_INPUT)
        if isinstance(error, OSError) and error.errno is not None:
            notes = getattr(error, "__notes__", ())
            _end(name, f"{_who()}{'; '.join([str(error), *notes])}{resume}", EXIT_FAILED)
        if parallel.lost_process(error):
            first = str(error).partition("\n")[0]
            _end(name, f"another process has ended{resume} ({first})", EXIT_LOST)
        if not parallel.is_joined():
            raise
        traceback.print_exc()
        _end(name, f"{_who()}{type(error).__name__}, see above{resume}", EXIT_FAILED)


def _who() -> str:
    """Returns the beginning of a message that is of one of several processes."""
    return f"{parallel.process_name()}: " if parallel.is_joined() else ""


def _end(name: str, message: object, status: int, *, on_all: bool = False) -> NoReturn:
    print(f"{name}: {message}", file=sys.stderr)
    parallel.leave(status, on_all=on_all)


def _print_unraisable(
    hook: Callable[["sys.UnraisableHookArgs"], object], unraisable: "sys.UnraisableHookArgs"
) -> None:
    # Of event loops that were closed under TensorStore's threads, or had no file left to open.
    if not re.search("Event loop is closed|_ssock", str(unraisable.exc_value)):
        hook(unraisable)


class Parser(argparse.ArgumentParser):
    """A parser of arguments that raises InputError instead of printing its usage and exiting."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"python -m resnet_jax {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(message)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that choose a checkpoint where the source is a run."""
    parser.add_argument("--step", type=int, help="of a run: step of the checkpoint, or the newest")
    parser.add_argument("--best", action="store_true", help="of a run: the one with least error")


def choose_checkpoint(step: int | None, *, best: bool) -> int | Literal["newest", "best"]:
    """Returns the checkpoint that `--step` and `--best` name.

    Raises:
      InputError: They name two.
    """
    if best and step is not None:
        raise InputError("--step and --best each name a checkpoint; give one of them")
    return "best" if best else "newest" if step is None else step


def checkpoint_of_source(given: argparse.Namespace) -> int | Literal["newest", "best"] | None:
    """Returns the checkpoint that the arguments choose; None where the source is not a run.

    Raises:
      InputError: They name two, or one of a source that is not a run.
    """
    from resnet_jax.evaluation import is_run  # here, for other commands start without it

    which = choose_checkpoint(given.step, best=given.best)
    if is_run(given.source):
        return which
    if which != "newest":
        raise InputError(f"{given.source} is not a run, so it has no checkpoints to choose from")
    return None


def add_network(parser: argparse.ArgumentParser, *, batch: int) -> None:
    """Adds the arguments of a network and its batch, with the number of images by default."""
    parser.add_argument("name", help="one of resnet_jax.list_models()")
    parser.add_argument("--image_size", type=int, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=batch, metavar="IMAGES")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")


def summarize_network(given: argparse.Namespace) -> "Summary":
    """Returns the layers of the network that the arguments of `add_network` name.

    Raises:
      InputError: There is no such network or option, or a number is out of range.
    """
    from resnet_jax.analysis import summarize  # here, for other commands start without it
    from resnet_jax.models import create_model, image_shape

    options: dict[str, Any] = {}
    for option in given.option:
        key, equals, text = option.partition("=")
        if not equals:
            raise InputError(f"{option!r} is not an option; options are KEY=VALUE")
        options[key] = parse_value(text)
    try:
        model = create_model(given.name, **options)
    except TypeError as error:
        raise InputError(f"{given.name} cannot be made with {options}: {error}") from error
    height, width, channels = image_shape(given.name)
    if given.image_size is not None:
        height = width = given.image_size
    if given.batch < 1:
        raise InputError(f"--batch is {given.batch}; it must be at least 1")
    return summarize(model, (height, width, channels))


def parse_value(text: str) -> object:
    """Returns the number, tuple, True, False or None that a text writes, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def plot_path(out: str) -> epath.Path:
    """Returns the path of `--out`.

    Raises:
      InputError: It is not a PNG, or cannot be written.
    """
    path = epath.Path(out).expanduser()
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"--out is {path}; it must be a file whose name ends in .png")
    check_writable(path)
    return path


class Flags:
    """The absl flags of one call of a command that takes a config.

    They are not absl's global ones, so that one process can call several commands.

    Attributes:
      values: The values by name, once they are parsed.
    """

    def __init__(self, description: str, arguments: Sequence[str]) -> None:
        """Defines `--help`, which begins with the description, and the flags of processes."""
        self.values = flags.FlagValues()
        self._description = description
        self._arguments = list(arguments)
        self.add(flags.DEFINE_bool, "help", False, "Show this help.")
        self.add(
            flags.DEFINE_bool,
            "distributed",
            False,
            "One of several processes: jax finds the others by itself on Cloud TPU, SLURM, "
            "Open MPI and Kubernetes; elsewhere, give the three flags below to each.",
        )
        self.add(flags.DEFINE_string, "coordinator", None, "Host and port of process 0.")
        self.add(flags.DEFINE_integer, "num_processes", None, "Number of processes.")
        self.add(flags.DEFINE_integer, "process_id", None, "Number of this process.")
        for name, (default, text) in _TIMEOUTS.items():
            self.add(flags.DEFINE_integer, name, default, text, lower_bound=1)

    def add(self, define: Callable[..., flags.FlagHolder], *args, **options) -> flags.FlagHolder:
        """Defines a flag by one of absl's functions, such as `flags.DEFINE_string`."""
        return define(*args, flag_values=self.values, **options)

    def define_config(self, default: str | None = None) -> flags.FlagHolder[ConfigDict]:
        """Defines `--config=FILE`, by default one of `configs/` or none, and `--config.KEY=VALUE`.

        Raises:
          InputError: The config does not have a key that is given, or cannot be read.
        """
        from resnet_jax.config import CONFIGS  # here, for other commands start without it

        try:
            return config_flags.DEFINE_config_file(
                "config",
                None if default is None else str(CONFIGS / default),
                "The run: a file of configs/, each key open to change.",
                flag_values=self.values,
                sys_argv=["", *self._arguments],
            )
        except (AttributeError, KeyError) as error:
            # ml_collections looks the keys up here, and raises one error inside another.
            cause = error.args[0]
            missing = cause.args[0] if isinstance(cause, Exception) else cause
            raise InputError(f"the config has no key {', '.join(missing.splitlines())}") from error
        except (TypeError, ValueError, OSError) as error:
            raise InputError(f"the config cannot be read: {error}") from error

    @property
    def config_given(self) -> bool:
        """Whether the command line says anything of a config."""
        names = [name for name in self.values if name.partition(".")[0] == "config"]
        return any(self.values[name].present for name in names)

    def parse(self) -> None:
        """Reads the command line, and joins the other processes of the run.

        Raises:
          InputError: A flag is unknown, missing or has a wrong value.
          SystemExit: `--help` was given, and has been printed.
        """
        if {"--help", "-h"} & set(self._arguments):
            print(self._description, self.values.get_help(), sep="\n\n")
            sys.exit()
        try:
            _, *stray = self.values(["", *self._arguments])
            if "config" in self.values:
                list(self.values["config"].value or ())  # if the file was not found, this says so
        except flags.UnrecognizedFlagError as error:
            raise InputError(str(error)) from error
        except Exception as error:  # a config file is a program, and can raise anything
            *before, last = str(error).strip().splitlines()
            last = last.strip().removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
            message = f"the config cannot be read: {last}" if before else last
            raise InputError(message) from error
        if stray:
            raise InputError(f"{stray[0]!r} is not a flag; flags start with --")
        logging.set_verbosity(logging.WARNING)  # jax lists every backend that it has not found
        # After a failed save these repeat what orbax raises.
        getLogger("asyncio").setLevel("CRITICAL")
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        sys.unraisablehook = functools.partial(_print_unraisable, sys.unraisablehook)
        given = self.values
        if given.distributed or given.coordinator:
            parallel.initialize(
                given.coordinator,
                given.num_processes,
                given.process_id,
                **{name: getattr(given, name) for name in _TIMEOUTS},
            )
        if "config" in self.values and self.values["config"].value is None:
            raise InputError("--config is not given; it is a file of configs/")
