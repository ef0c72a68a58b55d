"""Where a run is cut for a fork, and the events up to there: the version asked for, or where the turn that it stands in
is to be decided anew.

All of it is of one look at the run: what came in while it was read is not looked at. Knows nothing of the run's code,
so whether it can be cut there is found out by whoever replays it (`forking`, `what_if`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final

from msgspec import Struct

from engine.core.events import (
    ContinuedAsNew,
    Decision,
    Fact,
    PrefixEnded,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunReopened,
    RunStarted,
    RunTerminated,
    TaskCompleted,
    TaskFailed,
)
from engine.errors import HistoryError, RepairRefused, RunPrunedError
from engine.runtime.histories import HistoryEvent, check_remembers, head_of, read_events
from engine.runtime.streams import run_id_of
from eventstore import EventStore, StreamHead

__all__ = ["Cut", "Prefix", "cut_of", "read_prefix"]

KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of headers and payloads: a prefix that is longer is not kept in memory, but read anew whenever it is gone through."""
_ENDS: Final = (RunCompleted, RunFailed, RunCancelled, ContinuedAsNew)


class Cut(Struct):
    """Where a prefix ends: behind version `until`; `retold`: the turn of the last fact in it is decided anew."""

    started: RunStarted  # what the run began with, whatever it is of by now
    until: int
    retold: bool


class Prefix:
    """What a fork copies of its origin, up to a cut."""

    def __init__(self, store: EventStore, run_id: str, cut: Cut, kept: list[HistoryEvent] | None) -> None:
        self.cut = cut
        self.run_id = run_id
        self._store = store
        self._kept = None if kept is None else kept[: cut.until]

    async def events(self, *, after: int = 0) -> AsyncIterator[HistoryEvent]:
        """Those behind a version, in order. Raises as `read_events`, and `RunPrunedError`."""
        if self._kept is not None:
            for item in self._kept[after:]:
                yield item
            return
        async for item in read_events(self._store, self.run_id, after=after, until=self.cut.until):
            after = item.version
            yield item
        if after != self.cut.until:
            raise RunPrunedError(self.run_id)  # since we looked

    async def last(self) -> HistoryEvent:
        """The event at the cut: its digest is the chain's, and nothing before it is dated later."""
        (last,) = [item async for item in self.events(after=self.cut.until - 1)]
        return last


async def read_prefix(store: EventStore, head: StreamHead, *, at: int, substituted: Collection[str]) -> Prefix:
    """The run of that head, up to where it is cut for a fork at a version. Raises `RepairRefused`, `HistoryError`."""
    run_id = run_id_of(head.stream)
    cutting = _Cutting(run_id, at, substituted, last=head.version)
    kept: list[HistoryEvent] | None = []
    size = 0
    async for item in read_events(store, run_id, until=head.version):
        if not cutting.take(item):
            break
        size += len(item.header) + len(item.payload or b"")
        if size > KEPT_BYTES_MAX:
            kept = None
        elif kept is not None:
            kept.append(item)
    try:
        cut = cutting.cut()
    except RepairRefused:
        check_remembers(await head_of(store, run_id))  # perhaps it was pruned since we looked
        raise
    return Prefix(store, run_id, cut, kept)


def cut_of(history: list[HistoryEvent], run_id: str, *, at: int, substituted: Collection[str]) -> Cut:
    """Where a run with this history is cut for a fork at a version. Raises `RepairRefused`, `HistoryError`."""
    cutting = _Cutting(run_id, at, substituted, last=len(history))
    _ = all(cutting.take(item) for item in history)
    return cutting.cut()


class _Cutting:
    """Finds the cut in a history of `last` events, told one after the other."""

    def __init__(self, run_id: str, at: int, substituted: Collection[str], *, last: int) -> None:
        if not 1 <= at <= last:
            raise RepairRefused(f"run {run_id!r} has {last} events: it cannot be forked at version {at}")
        self._run_id = run_id
        self._at = at
        self._substituted = substituted
        self._through = False  # whether decisions of the turn that the version stands in are behind it
        # Which turn the history is in, up to that version, as far as a cut must know.
        self._started: RunStarted | None = None
        self._fact: HistoryEvent | None = None
        self._base = 0  # the version that its decisions stand behind: its fact, or what has let it be taken anew
        self._ends = False
        self._terminated = 0  # the version at which it was ended without its code, if nothing has taken that back
        self._open = False  # there may be decisions of it
        self._copied = 0  # prefixes that have not ended, each within the one before: a fork has its own history behind

    def take(self, item: HistoryEvent) -> bool:
        """The next event. Whether it is needed to know where the cut is, or those behind it may be."""
        if item.version <= self._at:
            self._follow(item)
            return True
        if not self._open or isinstance(item.event, Fact | RunReopened):
            return False
        self._through = isinstance(item.event, Decision)
        return not self._through

    def cut(self) -> Cut:
        """Where it is. Raises `RepairRefused`."""
        # A termination is no turn. It may have come into one that was not all written: that is decided anew.
        at = self._terminated - 1 if self._terminated else self._at
        run_id, started, fact = self._run_id, self._started, self._fact
        if self._copied:
            raise RepairRefused(
                f"version {at} of run {run_id!r} stands in what it has copied as a fork: fork its origin, or cut later"
            )
        if fact is None or started is None:
            raise RepairRefused(f"nothing has happened by version {at} of run {run_id!r}: run it again instead")
        told_here = self._open and self._base == fact.version
        if told_here and isinstance(fact.event, TaskCompleted | TaskFailed) and fact.event.id in self._substituted:
            return Cut(started, fact.version - 1, retold=False)  # its outcome is what is given with the fork
        if self._open and (self._ends or self._terminated or self._through or at == self._base):
            return Cut(started, self._base, retold=True)
        return Cut(started, at, retold=False)

    def _follow(self, item: HistoryEvent) -> None:
        match event := item.event:
            case Fact():
                if self._started is None:
                    self._started = _beginning(event, self._run_id)
                self._fact, self._base, self._open, self._ends = item, item.version, True, False
            case Decision():
                self._ends = self._ends or isinstance(event, _ENDS)
            case RunReopened(takes_back=taken):
                self._terminated = 0
                if taken != "end":
                    self._base, self._open, self._ends = item.version, taken == "decisions", False
            case RunTerminated():
                self._terminated = item.version
            case RunForked():
                self._copied += 1
            case PrefixEnded(retold=retold):
                self._copied -= 1
                self._base, self._open, self._ends = item.version, retold, False
            case _:
                return


def _beginning(fact: Fact, run_id: str) -> RunStarted:
    if not isinstance(fact, RunStarted):
        raise HistoryError(f"the history of run {run_id!r} does not begin with RunStarted")
    return fact
