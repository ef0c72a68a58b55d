"""Debounced calls, held against what is on record: a burst of them begins one run, with the arguments of the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from engine.core.events import CallDebounced, RunBegun, RunStarted
from tests.simulation.outside import OUTSIDE

__all__ = ["Bursts"]

VERY_MOMENT_SECONDS = 8.0
"""How long a worker may take from looking at a run until it begins: a call that comes in between is the first of another."""


class _Call(Struct):
    event: CallDebounced
    time: float  # at which it was recorded, whatever any clock says
    superseded: float | None = None  # likewise, the one behind it


class Bursts:
    """The calls with one key, as they were recorded."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.seconds = 0.0
        self.longest: float | None = None
        self.slack = 0.0  # seconds by which clocks are apart, or are set
        self.calls: dict[str, _Call] = {}  # by run
        self.wanted: dict[str, int] = {}  # what each was called with
        self.given: dict[str, int] = {}  # what each run has begun with
        self.begun: set[str] = set()
        self.last: CallDebounced | None = None

    def called(self, event: CallDebounced, n: int, time: float) -> None:
        """A call with that number is recorded, whether or not its caller hears of it."""
        self.wanted[event.run] = n
        before, since = self.last, event.at
        if before is not None and before.begins_at > event.at:
            since = before.since
            self.calls[before.run].superseded = time
            if event.instead_of != before.run:
                OUTSIDE.broke("debounced", f"{event} is not instead of {before}")
        elif event.instead_of:
            OUTSIDE.broke("debounced", f"{event} is instead of a run that was to begin long before: {before}")
        begins_at = event.at + self.seconds * 1_000_000
        if self.longest is not None:
            begins_at = min(begins_at, since + self.longest * 1_000_000)
        if (event.since, event.begins_at) != (since, round(begins_at)):
            OUTSIDE.broke("debounced", f"{event} behind {before} is to begin at {begins_at}, and counts since {since}")
        self.calls[event.run], self.last = _Call(event, time), event

    def acknowledged(self, run_id: str, n: int) -> None:
        """The caller has heard that its call is on record."""
        self.checks["a call that was acknowledged is on record"] += 1
        if self.wanted.get(run_id) != n:
            OUTSIDE.broke("debounced", f"{run_id} was called with {n}, and on record is {self.wanted.get(run_id)}")

    def noted(self, run_id: str, events: Iterable[Any], payloads: Iterable[bytes | None], time: float) -> None:
        """A commit was accepted."""
        if (call := self.calls.get(run_id)) is None:
            return
        for event, payload in zip(events, payloads, strict=True):
            match event:
                case RunStarted(epoch=0):
                    self.given[run_id] = msgspec.json.decode(payload or b"")["epochs"][0][1]
                case RunBegun():
                    self._begins(run_id, call, event, time)

    def _begins(self, run_id: str, call: _Call, event: RunBegun, time: float) -> None:
        self.checks["a burst begins one run, in its time"] += 1
        self.begun.add(run_id)
        if event.at < call.event.begins_at:
            OUTSIDE.broke("debounced", f"{run_id} begins at {event.at}, and was to at {call.event.begins_at}")
        if call.superseded is not None and time > call.superseded + VERY_MOMENT_SECONDS + self.slack:
            OUTSIDE.broke("debounced", f"{run_id} begins at {time:.3f}, and was superseded at {call.superseded:.3f}")

    def judge(self) -> None:
        """At the end: whoever was not superseded has begun, and with what it was called with."""
        for run_id, call in self.calls.items():
            self.checks["a burst begins one run, in its time"] += 1
            if call.superseded is None and run_id not in self.begun:
                OUTSIDE.broke("debounced", f"{run_id} has not begun: {call.event}")
        for run_id, n in self.wanted.items():
            if run_id not in self.calls or self.given.get(run_id, n) != n:
                OUTSIDE.broke("debounced", f"{run_id} was called with {n}, and has {self.given.get(run_id)}")
