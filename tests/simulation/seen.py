"""What anybody may see of a run, held against what is on record: states, feeds, attributes, and results used again.

It knows nothing of the engine but its events. A reader sees what was on record at some moment between its question
and the answer: nothing that never was, nothing older, and no feed with a gap.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from engine.core.event_kinds import Fact
from engine.core.events import AttributesSet, FeedPublished, RunReopened, StatePublished, TaskCompleted
from tests.simulation.outside import OUTSIDE

__all__ = ["Seen"]


class Seen:
    """All that was published, by run, in the order of the record."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.states: dict[str, list[Any]] = {}
        self.feeds: dict[str, list[Any]] = {}
        self.attributes: dict[str, list[dict[str, Any]]] = {}  # as they are since then
        self.before: dict[str, dict[str, Any]] = {}  # as they were before the last turn
        self.results: dict[tuple[str, str], list[bytes | None]] = {}  # by run and task; of several epochs

    def noted(self, run_id: str, events: Iterable[Any], payloads: Iterable[bytes | None]) -> None:
        """A commit was accepted."""
        for event, payload in zip(events, payloads, strict=True):
            if isinstance(event, Fact):
                self.before[run_id] = self.attributes.get(run_id, [{}])[-1]
            match event:
                case StatePublished():
                    self.states.setdefault(run_id, []).append(json.loads(payload or b""))
                case FeedPublished():
                    self.feeds.setdefault(run_id, []).append(json.loads(payload or b""))
                case AttributesSet():
                    given = self.attributes.setdefault(run_id, [{}])
                    changed = given[-1] | json.loads(payload or b"")
                    given.append({name: value for name, value in changed.items() if value is not None})
                case RunReopened(takes_back="turn" | "decisions") if run_id in self.attributes:
                    self.attributes[run_id].append(dict(self.before[run_id]))
                case TaskCompleted(id=id_, reused_run=""):
                    self.results.setdefault((run_id, id_), []).append(payload)
                case TaskCompleted(id=id_):
                    self.checks["a result used again is on record"] += 1
                    if payload not in self.results.get((event.reused_run, event.reused_id), ()):
                        OUTSIDE.broke("memos", f"{id_} of {run_id} has {payload!r}: {event}")

    def count(self, run_id: str) -> int:
        """How many states were published."""
        return len(self.states.get(run_id, ()))

    def was_read(self, run_id: str, since: int, value: int, initial: int) -> None:
        """A state was read, when so many were published as the question was asked."""
        self.checks["readers see what is on record"] += 1
        values = [initial, *self.states.get(run_id, ())]
        if value not in values[since:]:
            OUTSIDE.broke("states", f"{run_id}: {value} was read behind number {since} of {values}")

    def was_followed(self, run_id: str, since: int, values: list[int]) -> None:
        """All that there was of a feed was read, likewise."""
        self.checks["readers see what is on record"] += 1
        recorded = self.feeds.get(run_id, [])
        if len(values) < since or values != recorded[: len(values)]:
            OUTSIDE.broke("feeds", f"{run_id}: {values} was read behind number {since} of {recorded}")

    def was_found(self, run_id: str, wanted: dict[str, Any], found: bool) -> None:
        """It was looked for by attributes that it had all the while, as the last it was given say."""
        if self.attributes[run_id][-1] is wanted:
            self.checks["runs are found by their attributes"] += 1
            if not found:
                OUTSIDE.broke("attributes", f"{run_id} was not found by {wanted}")
