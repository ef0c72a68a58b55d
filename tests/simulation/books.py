"""What people were promised, held against every commit as it is accepted, by models that know nothing of the engine.

`Wishes`: a run that was told to end without its code ends so, and so do its children, as their calls said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from engine.core.events import (
    ChildStarted,
    ContinuedAsNew,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunTerminated,
)
from tests.simulation.outside import OUTSIDE

__all__ = ["ENDS", "End", "Wishes"]

ENDS = (RunCompleted, RunFailed, RunCancelled, RunTerminated)
LATE_SECONDS = 40.0
"""After which nobody writes any more what it decided before it was told: freezes are shorter, and so are all delays."""


class _Mail(Struct):
    """What of any mail is looked at."""

    type: str


_mail = msgspec.json.Decoder(_Mail)


def kind_of(header: bytes) -> str:
    """What a message asks for."""
    return _mail.decode(header).type


class End(Struct):
    """How and when a run ended."""

    event: Any
    at: float


class Wishes:
    """Who is to end, and who has ended."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.terminated: dict[str, float] = {}  # runs, by when whoever wanted that heard that it is on record
        self.ended: dict[str, End] = {}
        self.children: dict[str, dict[str, ChildStarted]] = {}  # by run and their own id: of its epoch
        self.told: dict[str, set[str]] = {}  # runs, by what mail they have taken

    def noted(self, run_id: str, events: Iterable[Any], mail: Collection[bytes], now: float) -> None:
        """A commit was accepted, which takes this mail."""
        kinds = {kind_of(header) for header in mail}
        if kinds:
            self.told.setdefault(run_id, set()).update(kinds)
        was_over = run_id in self.ended
        terminated = False
        for event in events:
            match event:
                case ChildStarted(run=run):
                    self.children.setdefault(run_id, {})[run] = event
                case ContinuedAsNew():
                    self.children.pop(run_id, None)
                case _ if isinstance(event, ENDS):
                    self.ended[run_id] = End(event, now)
                    terminated = isinstance(event, RunTerminated)
        if "terminate" in kinds and not was_over:
            self.checks["who is terminated ends so"] += 1
            if run_id not in self.ended:
                OUTSIDE.broke("not terminated", f"{run_id} took the mail that terminates it, and goes on")
        if terminated and not kinds & {"terminate", "cancel"}:
            OUTSIDE.broke("not terminated", f"{run_id} was terminated by nobody")

    def judge(self) -> None:
        """At the end: everybody has ended."""
        for run_id, at in self.terminated.items():
            end = self.ended[run_id]
            self.checks["who is terminated ends so"] += 1
            if not isinstance(end.event, RunTerminated) and end.at > at + LATE_SECONDS:
                OUTSIDE.broke("not terminated", f"{run_id} was to at {at:.3f}, and ended with {end}")
        for run_id, children in self.children.items():
            for child in children.values():
                self._closed(run_id, child)

    def _closed(self, run_id: str, child: ChildStarted) -> None:
        """What its parent's end meant to a child."""
        parent, end = self.ended[run_id], self.ended.get(child.run)
        if end is None:
            if not isinstance(parent.event, RunTerminated):
                OUTSIDE.broke("children", f"{child.run} of {run_id} has not ended, or never was")
            return
        told = self.told.get(child.run, set())
        if child.parent_close == "abandon" and "terminate" in told:
            OUTSIDE.broke("children", f"{child.run} was abandoned by {run_id}, and terminated")
        if end.at <= parent.at:
            return
        self.checks["children end as their calls said"] += 1
        late = end.at > parent.at + LATE_SECONDS
        match child.parent_close:
            case "terminate" if late and not isinstance(end.event, RunTerminated):
                OUTSIDE.broke("children", f"{child.run} outlived {run_id} ({parent}), and ended with {end}")
            case "cancel" if late and "cancel" not in told:
                OUTSIDE.broke("children", f"{child.run} outlived {run_id} ({parent}), and was not asked to end: {end}")
            case "abandon" if isinstance(parent.event, RunTerminated) and told & {"cancel", "terminate"}:
                OUTSIDE.broke("children", f"{child.run} was abandoned by {run_id}, and asked to end")
