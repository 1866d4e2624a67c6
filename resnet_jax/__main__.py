"""Runs a command: `python -m resnet_jax COMMAND ...`; `--help` lists the commands."""

import sys

from resnet_jax.cli import COMMANDS, frame


def main() -> None:
    """Runs the command that the command line names, and ends the process with its status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        lines = [f"  {command:<11} {text}" for command, text in COMMANDS.items()]
        print("usage: python -m resnet_jax COMMAND [--help] ...", "", *lines, sep="\n")
        return
    frame.run(name, arguments)


if __name__ == "__main__":
    main()
