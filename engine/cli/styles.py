"""Colours and marks of statuses: the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["MARKS", "STYLES"]

STYLES: Final[Mapping[str, str]] = {
    "running": "cyan",
    "suspended": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "terminated": "yellow",
    "scheduled": "dim",
    "retrying": "yellow",
}
"""rich styles by the status of a run or a task."""

MARKS: Final[Mapping[str, str]] = {
    "running": "…",
    "suspended": "‖",
    "completed": "✔",
    "failed": "✘",
    "cancelled": "⊘",
    "terminated": "⊘",
}
"""One character by the status of a run."""
