"""Results that are kept for a while, held against what is on record: none is used again when its time is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from engine.core.events import ResultMemoised, TaskCompleted
from tests.simulation.outside import OUTSIDE
from tests.simulation.tasks import FRESH_SECONDS

__all__ = ["Kept"]


class Kept:
    """All results of `fresh`, by the run and the call that they are of."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.slack = 0.0  # seconds by which clocks may be apart, or from a look at a memo until it is on record
        self.made: dict[tuple[str, str], ResultMemoised] = {}

    def memoised(self, event: Any) -> None:
        """A result is kept."""
        if isinstance(event, ResultMemoised) and event.task == "fresh":
            self.made[event.run, event.id] = event
            if event.expires_at != event.at + FRESH_SECONDS * 1_000_000:
                OUTSIDE.broke("memos", f"{event} is kept for another time than {FRESH_SECONDS} s")

    def noted(self, run_id: str, events: Iterable[Any]) -> None:
        """A commit was accepted."""
        for event in events:
            if not isinstance(event, TaskCompleted) or not event.reused_run:
                continue
            memo = self.made.get((event.reused_run, event.reused_id))
            if memo is None:
                continue  # one of those that are kept for ever
            self.checks["no memo is used beyond its time"] += 1
            if event.at >= memo.at + (FRESH_SECONDS + self.slack) * 1_000_000:
                OUTSIDE.broke("memos", f"{event.id} of {run_id} has at {event.at} what is of {memo.at}: {event}")
