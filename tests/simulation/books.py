"""What people were promised, held against every commit as it is accepted, by models that know nothing of the engine.

`Wishes`: a run that was told to end without its code ends so, and so do its children, as their calls said.
`Answers`: a request is answered once, and whoever asked hears what is on record.
`Keys`: nobody begins before its time, and of those with one key one at a time, in the order of their starts.

What the whole store shares is in `limits`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.core.events import (
    ChildCancelled,
    ChildStarted,
    ContinuedAsNew,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunBegun,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunReopened,
    RunStarted,
    RunTerminated,
)
from tests.simulation.outside import OUTSIDE

__all__ = ["ENDS", "Answers", "End", "Keys", "Wishes"]

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
        self.ended: dict[str, End] = {}  # but those that were reopened since
        self.ever: dict[str, set[type]] = {}  # how a run has ended, each time
        self.children: dict[str, dict[str, ChildStarted]] = {}  # by run and their own id: of its epoch
        self.told: dict[str, set[str]] = {}  # runs, by what mail they have taken
        self.reopened: set[str] = set()
        self.cancelled: set[str] = set()  # children whose await was cancelled while their parent ran

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
                case ChildCancelled(run=run):
                    self.cancelled.add(run)
                case ContinuedAsNew():
                    self.children.pop(run_id, None)
                case _ if isinstance(event, ENDS):
                    self.ended[run_id] = End(event, now)
                    self.ever.setdefault(run_id, set()).add(type(event))
                    terminated = isinstance(event, RunTerminated)
                case RunReopened():
                    self.ended.pop(run_id, None)
                    self.reopened.add(run_id)
                    self.terminated.pop(run_id, None)  # whoever wanted that has had it
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
        if end.at <= parent.at or child.run in self.reopened:
            return
        self.checks["children end as their calls said"] += 1
        late = end.at > parent.at + LATE_SECONDS
        match child.parent_close:
            case "terminate" if late and not isinstance(end.event, RunTerminated):
                OUTSIDE.broke("children", f"{child.run} outlived {run_id} ({parent}), and ended with {end}")
            case "cancel" if late and "cancel" not in told:
                OUTSIDE.broke("children", f"{child.run} outlived {run_id} ({parent}), and was not asked to end: {end}")
            case "abandon" if isinstance(parent.event, RunTerminated) and "cancel" in told:
                if child.run not in self.cancelled:
                    OUTSIDE.broke("children", f"{child.run} was abandoned by {run_id}, and asked to end")


class Answers:
    """What was asked, by run and id."""

    def __init__(self, checks: Counter[str], ever: Mapping[str, Collection[type]]) -> None:
        self.checks = checks
        self.ever = ever  # who has ended once, and may have been reopened since
        self.taken: dict[tuple[str, str], str] = {}  # names of those on record
        self.given: dict[tuple[str, str], Any] = {}  # answers; None: it failed
        self.asked: dict[tuple[str, str], int] = {}

    def noted(self, run_id: str, events: Iterable[Any], payloads: Iterable[bytes | None]) -> None:
        """A commit was accepted."""
        for event, payload in zip(events, payloads, strict=True):
            match event:
                case RequestReceived(id=id_, name=name):
                    self.taken[run_id, id_] = name
                case RequestAnswered(request=id_):
                    assert payload is not None
                    self._given((run_id, id_), msgspec.json.decode(payload))
                case RequestFailed(request=id_):
                    self._given((run_id, id_), None)

    def _given(self, one: tuple[str, str], answer: Any) -> None:
        self.checks["requests are answered once"] += 1
        if one not in self.taken or one in self.given:
            OUTSIDE.broke("requests", f"{one} is answered {answer}: taken {one in self.taken}, had {self.given}")
        self.given[one] = answer

    def heard(self, run_id: str, id_: str, value: int, outcome: Any) -> None:
        """Whoever asked has heard: an answer, or "refused", "failed", or "ended"."""
        one = run_id, id_
        self.checks["who asked hears what is on record"] += 1
        self.asked[one] = value
        match outcome:
            case "refused":
                right = value < 0 and one not in self.taken
            case "failed":
                right = one in self.given and self.given[one] is None
            case "ended":
                right = run_id in self.ever and one not in self.given
            case _:
                right = value >= 0 and outcome[0] == value and outcome == self.given.get(one)
        if not right:
            what = f"taken {one in self.taken}, answers {self.given}, ended {self.ever.get(run_id)}"
            OUTSIDE.broke("requests", f"{one}, {value}, heard {outcome}: {what}")

    def judge_calm(self, run_id: str, name: str, fails: Callable[[int], bool]) -> None:
        """Of a run whose code has left all that it served, and not by an error: none is left, and none failed of itself."""
        for one, value in self.asked.items():
            if one[0] != run_id or self.taken.get(one) != name:
                continue
            self.checks["what was taken is answered"] += 1
            if one not in self.given or (self.given[one] is None) != fails(value):
                OUTSIDE.broke("requests", f"{one}, {value}, was taken, and has {self.given.get(one, 'no answer')}")


class Keys:
    """Who has begun and not ended, by the keys that their clients said."""

    def __init__(self, checks: Counter[str], ended: Mapping[str, End]) -> None:
        self.checks = checks
        self.ended = ended
        self.key_of: dict[str, str] = {}
        self.slack = 1e-5  # seconds by which clocks are apart, or are set; they count microseconds
        self.time: Callable[[], float] = float
        self.not_before: dict[str, float] = {}
        self.waiting: dict[str, list[str]] = {}  # by key: as their starts were accepted
        self.inside: dict[str, str] = {}
        self.unbegun: set[str] = set()  # who has ended before it began
        self.replacing: set[str] = set()  # whose clients want nobody ahead of them
        self.order: list[str] = []

    def is_replaced(self, run_id: str) -> bool:
        """Whether somebody behind it wants it ended."""
        if run_id not in self.key_of:
            return False  # a copy
        key, behind = self.key_of[run_id], self.order[self.order.index(run_id) + 1 :]
        return bool(key) and any(self.key_of.get(other) == key for other in self.replacing.intersection(behind))

    def asked(self, run_id: str, delay: float | None) -> None:
        """A client starts a run, maybe again."""
        if delay is not None:
            self.not_before.setdefault(run_id, self.time() + delay)

    def noted(self, run_id: str, events: Iterable[Any]) -> None:
        """A commit was accepted."""
        key = self.key_of.get(run_id, "")
        for event in events:
            match event:
                case RunStarted(epoch=0):
                    self.order.append(run_id)
                    self.waiting.setdefault(key, []).append(run_id)
                    if not event.waits:
                        self._begins(run_id, key)
                case RunBegun():
                    self._begins(run_id, key)
                case RunReopened():
                    self._goes_on(run_id, key)
                case _ if isinstance(event, ENDS):
                    if run_id in self.waiting.get(key, ()):
                        self.waiting[key].remove(run_id)
                        self.unbegun.add(run_id)
                    if self.inside.get(key) == run_id:
                        del self.inside[key]

    def _goes_on(self, run_id: str, key: str) -> None:
        """It is reopened, and has the key at once, whether or not it has begun."""
        if run_id in self.unbegun:
            self.unbegun.discard(run_id)
            self.waiting[key].insert(0, run_id)
        if key:
            self.checks["one at a time has a key, and in turn"] += 1
            if key in self.inside:
                OUTSIDE.broke("keys", f"{run_id} is reopened, while {self.inside[key]} is inside")
            self.inside[key] = run_id

    def _begins(self, run_id: str, key: str) -> None:
        if (time := self.not_before.get(run_id)) is not None:
            self.checks["nobody begins before its time"] += 1
            if self.time() < time - self.slack:
                OUTSIDE.broke("too early", f"{run_id} begins at {self.time():.3f}, and may at {time:.3f}")
        waiting = self.waiting[key]
        if not key:
            waiting.remove(run_id)
            return
        self.checks["one at a time has a key, and in turn"] += 1
        if self.inside.get(key, run_id) != run_id or waiting[0] != run_id:
            OUTSIDE.broke("keys", f"{run_id} begins, while {self.inside.get(key)} is inside and {waiting} wait")
        waiting.remove(run_id)
        self.inside[key] = run_id

    def heard(self, run_id: str, other: str) -> None:
        """Whoever wanted to start a run has heard that another has the key."""
        self.checks["who has the key is said"] += 1
        key = self.key_of[run_id]
        known = other in self.ended or other in self.waiting.get(key, ()) or self.inside.get(key) == other
        own = run_id in self.ended or run_id in self.waiting.get(key, ()) or self.inside.get(key) == run_id
        if not known or own or self.key_of.get(other) != key:
            OUTSIDE.broke("keys", f"{run_id} heard of {other}: it is on record {known}, and itself {own}")
