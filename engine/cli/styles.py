"""Colours and marks of statuses: the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["MARKS", "STEP_MARKS", "STEP_STYLES", "STYLES"]

STYLES: Final[Mapping[str, str]] = {
    "queued": "dim",
    "running": "cyan",
    "paused": "blue",
    "suspended": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "terminated": "yellow",
    "pruned": "dim",
    "scheduled": "dim",
    "retrying": "yellow",
    "handed out": "blue",
    "conflict": "red",
}
"""rich styles by the status of a run, a task or a child."""

MARKS: Final[Mapping[str, str]] = {
    "queued": "·",
    "running": "…",
    "paused": "‖",
    "suspended": "‖",
    "completed": "✔",
    "failed": "✘",
    "cancelled": "⊘",
    "terminated": "⊘",
    "pruned": "✂",
}
"""One character by the status of a run."""

STEP_STYLES: Final[Mapping[str, str]] = {
    "waiting": "dim",
    "running": "cyan",
    "checking": "blue",
    "publishing": "blue",
    "published": "green",
    "unchanged": "dim",
    "skipped": "yellow",
    "failed": "red",
}
"""rich styles by where a step of a materializing run is."""

STEP_MARKS: Final[Mapping[str, str]] = {
    "waiting": "·",
    "running": "…",
    "checking": "?",
    "publishing": "…",
    "published": "✔",
    "unchanged": "=",
    "skipped": "⊘",
    "failed": "✘",
}
"""One character likewise."""
