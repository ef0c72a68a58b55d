"""The command `holdfast`. Its packages, typer and rich, are the extra `cli`, imported in this room and nowhere else."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

__all__ = ["main"]

_NEEDED: Final = ("typer", "rich")


def main() -> None:
    """The entry point: runs the command line in `sys.argv` and ends the process with its exit code."""
    missing = [name for name in _NEEDED if not _installed(name)]
    if missing:
        sys.stderr.write(f'error: the command holdfast needs {" and ".join(missing)}: pip install "holdfast[cli]"\n')
        sys.exit(3)
    from engine.cli.app import entry  # noqa: PLC0415 - not before it is known that it can be imported

    entry()


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False
