"""What programs that take a config share: how they start, and how they end."""

import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from resnet_jax import parallel
from resnet_jax.errors import InputError, ProcessError, asks_for_package
from resnet_jax.training import DivergedError
from resnet_jax.training.interruption import EXIT_INTERRUPTED, Interrupted

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_STOPPED = 130  # as shells report SIGINT

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes: jax finds the others by itself on Cloud TPU, SLURM, Open MPI and "
    "Kubernetes; elsewhere, give the three flags below to each.",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Host and port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process.")


def define_config(default: pathlib.Path | None = None) -> flags.FlagHolder[ConfigDict]:
    """Defines `--config=FILE` and `--config.KEY=VALUE`.

    A key that the config does not have ends the program with one sentence.

    Args:
      default: The file, where none is given; without it, one has to be.
    """
    try:
        return config_flags.DEFINE_config_file(
            "config",
            None if default is None else str(default),
            "The run: a file of configs/, each key open to change.",
        )
    except (AttributeError, KeyError) as error:
        # ml_collections looks the keys up at this point, and raises one error inside another.
        missing = error.args[0].args[0] if isinstance(error.args[0], Exception) else error.args[0]
        _end(InputError(f"the config has no key {', '.join(missing.splitlines())}"))
    except (TypeError, ValueError, OSError) as error:
        _end(InputError(f"the config cannot be read: {error}"))


def config_given() -> bool:
    """Whether the command line says anything of a config."""
    names = [name for name in flags.FLAGS if name == "config" or name.startswith("config.")]
    return any(flags.FLAGS[name].present for name in names)


def run(main: Callable[[], object], stopped: str = "stopped") -> None:
    """Runs a program: parses the flags, joins the other processes, ends with a status of its own.

    The status is 0 when the work is done, 2 when the input was wrong, 75 when a signal ended the
    run after it was saved (the same command goes on), 130 when a Ctrl-C ended it at once, 1 for
    everything else.

    Args:
      main: The program.
      stopped: What it says when a Ctrl-C ended it at once.
    """

    def start(arguments: list[str]) -> None:
        try:
            if arguments[1:]:
                raise InputError(f"{arguments[1]!r} is no flag; flags start with --")
            logging.set_verbosity(logging.WARNING)  # jax tells every backend that it has not found
            if _DISTRIBUTED.value or _COORDINATOR.value:
                parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
            if "config" in flags.FLAGS and flags.FLAGS["config"].value is None:
                raise InputError("--config is not given; it is a file of configs/")
            main()
        except InputError as error:
            _end(error)
        except ImportError as error:
            if not asks_for_package(error):
                raise
            _end(error)
        except Interrupted as error:
            _end(error, EXIT_INTERRUPTED)
        except (DivergedError, ProcessError) as error:
            _end(error, EXIT_FAILED)
        except KeyboardInterrupt:
            _end(stopped, EXIT_STOPPED)

    app.run(start, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(arguments)
        if "config" in flags.FLAGS:
            list(flags.FLAGS["config"].value or ())  # of a file that was not found, this says so
    except flags.UnrecognizedFlagError as error:
        _end(error)
    except Exception as error:  # a config file is a program, and can raise anything
        *before, last = str(error).strip().splitlines()
        last = last.strip().removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
        _end(InputError(f"the config cannot be read: {last}" if before else last))
    return rest


def _end(error: Exception | str, status: int = EXIT_INPUT) -> NoReturn:
    path = pathlib.Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name  # of `python -m`
    print(f"{name}: {error}", file=sys.stderr)
    sys.exit(status)
