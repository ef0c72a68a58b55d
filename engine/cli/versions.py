"""`holdfast --version`: what is installed, and whether its SQLite is one to be careful with."""

from __future__ import annotations

import platform
from importlib import metadata

from rich.text import Text

from engine.cli.output import Output
from eventstore.sqlite import sqlite_version

__all__ = ["show_versions"]


def show_versions() -> None:
    """Print them."""
    output = Output(json=False)
    sqlite = sqlite_version()
    output.line(f"holdfast {_installed()}")
    output.line(f"Python {platform.python_version()} ({platform.python_implementation()})")
    output.line(f"SQLite {sqlite.text}")
    if sqlite.in_wal_bug_range:
        output.show(
            Text(
                "warning: SQLite 3.7.0 to 3.51.2 can damage a database in WAL mode when a checkpoint overlaps a commit"
                " of another connection. Holdfast keeps the two apart; other programs that write to a store do not:"
                " only read it with them (sqlite3 -readonly), or use a newer SQLite.",
                style="yellow",
            )
        )


def _installed() -> str:
    try:
        return metadata.version("holdfast")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its source)"
