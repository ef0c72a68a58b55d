"""Runs that people have repaired, held against what is on record: who is reopened had ended, and not well.

It knows nothing of the engine but its events, and the words in which it refuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, field

from engine.core.calls import CANCELLED
from engine.core.event_kinds import Decision, Fact
from engine.core.events import (
    CancelRequested,
    ChildFailed,
    ChildStarted,
    MessageSent,
    PayloadsDestroyed,
    PrefixEnded,
    RequestAnswered,
    RequestFailed,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunReopened,
    RunStarted,
    RunTerminated,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from tests.simulation.books import ENDS
from tests.simulation.outside import OUTSIDE

__all__ = ["Asked", "Copy", "Repaired"]

SAID = (ChildStarted, MessageSent, RequestAnswered, RequestFailed)
"""Of which others have heard."""


class _Life(Struct):
    """What a repair depends on, of one run."""

    workflow: str = ""
    fact: Any = None  # the last one
    decisions: list[Any] = field(default_factory=list)  # behind it
    begun: bool = False  # an attempt of one of them: then all of them are on record
    end: Any = None
    reopened: int = 0
    children: dict[str, str] = field(default_factory=dict)  # their runs, by the call
    once: bool = False
    key: bool = False
    sends: bool = False
    waits: bool = False
    carried: bool = False
    forgotten: bool = False
    copied: bool = False  # some of it: it is a fork

    def was_terminated(self) -> bool:
        """Whether it ended without its code, perhaps in the middle of a turn."""
        return isinstance(self.end, RunTerminated)

    def was_called_back(self) -> bool:
        """Whether it ended for what counts as never having arrived."""
        if isinstance(self.end, RunCancelled):
            return isinstance(self.fact, CancelRequested)
        return isinstance(self.end, RunFailed) and isinstance(self.fact, TaskFailed) and self.fact.error != CANCELLED


class Asked(Struct, frozen=True):
    """How a run was when somebody asked for it to be reopened."""

    run_id: str
    reopened: int
    ended: bool


_REFUSALS: dict[str, Callable[[_Life], bool]] = {
    "attempts of it are still under way": lambda _: True,
    "there is nothing to go on with": lambda life: isinstance(life.end, RunCompleted),
    "has its singleton key": lambda life: life.key,
    "has not ended, and run": lambda life: bool(life.children),
    "it has said something to others": lambda life: any(isinstance(each, SAID) for each in life.decisions),
    "says that it is never tried again": lambda life: life.once,
    "were destroyed": lambda life: life.forgotten,
    "was pruned": lambda life: bool(life.children),  # one of them
    "was made to forget": lambda life: bool(life.children),
    "its code ends it again": lambda life: not (life.begun if life.was_terminated() else life.was_called_back()),
}
"""Why a run that has ended may be refused, by what is said, and when that is so."""


_UNCUTTABLE: dict[str, Callable[[_Life], bool]] = {
    "has not ended, and run": lambda life: bool(life.children),
    "is under way": lambda life: life.sends,
    "stands before it had begun": lambda life: life.waits,
    "stands before all that it began with": lambda life: life.carried,
    "stands in what it has copied": lambda life: life.copied,
    "were destroyed": lambda life: life.forgotten,
    "was pruned": lambda life: bool(life.children),  # one of them
    "was made to forget": lambda life: bool(life.children),
}
"""Likewise: why it may not be forked."""


class Copy(Struct, frozen=True):
    """A rerun or a fork that somebody has asked for."""

    kind: str
    origin: str


class Repaired:
    """All that can be repaired."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.lives: dict[str, _Life] = {}
        self.copies: dict[str, Copy] = {}  # those that were made
        self.forked: Callable[[str], object] = lambda _: None  # somebody makes a fork of it
        self.depths: dict[str, int] = {}  # of forks that are being made: a fork may have copied another's beginning

    def count_copied(self, run_id: str, events: Iterable[Any]) -> int:
        """How many of a commit's events are not the run's own: it is a fork, and has them of its origin."""
        copied = 0
        for number, event in enumerate(events, 1):
            if isinstance(event, RunForked):
                self.forked(event.origin)
                self.lives.setdefault(run_id, _Life()).copied = True
                self.depths[run_id] = self.depths.get(run_id, 0) + 1
            if self.depths.get(run_id):
                copied = number
            if isinstance(event, PrefixEnded):
                self.depths[run_id] -= 1
        return copied

    def noted(self, run_id: str, events: list[Any], copied: int) -> None:
        """A commit was accepted, the first events of which are not the run's own."""
        life = self.lives.setdefault(run_id, _Life())
        for number, event in enumerate(events):
            match event:
                case RunReopened() if number >= copied:
                    self._reopened(run_id, life, event)
                case RunReopened():
                    life.end = None
                    life.decisions = life.decisions if event.takes_back == "end" else []
                case PrefixEnded(retold=retold):
                    life.end, life.begun = None, False  # what was begun is its origin's
                    life.decisions = [] if retold else life.decisions
                case _ if isinstance(event, ENDS):
                    life.end = event
                case Fact():
                    life.fact, life.decisions, life.begun = event, [], False
                case Decision():
                    life.decisions.append(event)
                case TaskStarted():
                    life.begun = life.begun or any(each.id == event.id for each in life.decisions)
            match event:
                case RunStarted(singleton=key, waits=waits, carried=carried):
                    life.workflow = event.workflow
                    life.key, life.waits = life.key or bool(key), life.waits or waits
                    life.carried = life.carried or bool(carried)
                case ChildStarted(id=id_, run=child):
                    life.children[id_] = child
                case PayloadsDestroyed():
                    life.forgotten = True
                case MessageSent():
                    life.sends = True
                case TaskScheduled(task="once"):
                    life.once = True

    def _reopened(self, run_id: str, life: _Life, event: RunReopened) -> None:
        self.checks["who is reopened had ended, and not well"] += 1
        if life.end is None or isinstance(life.end, RunCompleted):
            OUTSIDE.broke("reopened", f"{run_id} had ended with {life.end}")
        half_written = life.was_terminated() and not life.begun and event.takes_back == "decisions"
        if life.was_terminated() != (event.takes_back == "end") and not half_written:
            OUTSIDE.broke("reopened", f"{run_id} had ended with {life.end}, and {event} is taken back")
        if life.was_called_back() and event.takes_back != "turn":
            OUTSIDE.broke("reopened", f"{life.fact} has ended {run_id}, and still counts: {event}")
        if isinstance(life.fact, ChildFailed) and event.takes_back == "turn":
            child = self.lives[life.children[life.fact.id]]
            if not child.reopened or not isinstance(child.end, RunCompleted):
                OUTSIDE.broke("reopened", f"{run_id} is not told of {life.fact}, and that has ended with {child.end}")
        life.end, life.reopened = None, life.reopened + 1
        if event.takes_back != "end":
            life.decisions = []

    def asked(self, run_id: str) -> Asked:
        """Somebody asks for it to be reopened."""
        life = self.lives[run_id]
        return Asked(run_id, life.reopened, life.end is not None)

    def acknowledged(self, asked: Asked) -> None:
        """It was, says the engine."""
        self.checks["who is reopened goes on"] += 1
        if self.lives[asked.run_id].reopened <= asked.reopened:
            OUTSIDE.broke("reopened", f"{asked.run_id} was not, and whoever asked for it heard that it was")

    def made(self, new_id: str, copy: Copy) -> None:
        """There is a rerun, or a fork, says the engine."""
        self.copies[new_id] = copy
        self.checks["who is copied is on record"] += 1
        if new_id not in self.lives or self.depths.get(new_id):
            OUTSIDE.broke("copies", f"{new_id}, {copy}, is not on record, or not whole")

    def not_made(self, copy: Copy, text: str) -> None:
        """There is none, and this is why."""
        self.checks["who is refused is told why"] += 1
        life = self.lives[copy.origin]
        if copy.kind != "fork" and life.forgotten and "were destroyed" in text:
            return
        if copy.kind != "fork" or not any(said in text and holds(life) for said, holds in _UNCUTTABLE.items()):
            OUTSIDE.broke("refused", f"{copy}: {text}")

    def not_supposed(self, run_id: str, text: str) -> None:
        """It is not said what would have come of it, and this is why."""
        self.checks["who is refused is told why"] += 1
        life = self.lives[run_id]
        if not any(said in text and holds(life) for said, holds in _UNCUTTABLE.items()):
            OUTSIDE.broke("refused", f"what-if of {run_id}: {text}")

    def refused(self, asked: Asked, text: str) -> None:
        """It was not, and this is why."""
        life = self.lives[asked.run_id]
        if not asked.ended or life.reopened != asked.reopened:
            return  # an earlier life of whoever asks has had it reopened
        self.checks["who is refused is told why"] += 1
        if not any(said in text and holds(life) for said, holds in _REFUSALS.items()):
            OUTSIDE.broke("refused", f"{asked.run_id}, which had ended with {life.end} behind {life.fact}: {text}")
