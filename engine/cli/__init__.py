"""The command `holdfast`. Its packages, typer and rich, are the extra `cli`, imported in this room and nowhere else."""

from __future__ import annotations

import sys

__all__ = ["main"]

_NEEDED = frozenset({"typer", "rich", "click"})


def main() -> None:
    """The entry point: runs the command line in `sys.argv` and ends the process with its exit code."""
    try:
        from engine.cli.app import entry  # noqa: PLC0415 - only here is it known whether the extra is installed
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(f'error: the command holdfast needs {error.name}: pip install "holdfast[cli]"\n')
        sys.exit(3)
    entry()
