"""The durable timers of a run: which are running, and which is due next. Of one that waits to begin: that time."""

from __future__ import annotations

import heapq
from typing import Protocol

from engine.core.events import Decision, RunBegun, TimerCancelled, TimerFired, TimerStarted
from engine.core.loop import DeterministicLoop, WorkflowTimer
from engine.core.pending import PendingTimer
from engine.core.sites import site
from engine.errors import HistoryError

__all__ = ["TimerHost", "Timers"]


class TimerHost(Protocol):
    """What timers need of their instance."""

    @property
    def loop(self) -> DeterministicLoop: ...
    @property
    def now(self) -> int: ...
    def check_open(self, what: object) -> None: ...
    def decide(self, event: Decision) -> None: ...
    def undecide(self, id_: str) -> bool: ...


class Timers:
    """See the module. `running` is by id."""

    def __init__(self, host: TimerHost) -> None:
        self.running: dict[str, PendingTimer] = {}
        self.begins_at: int | None = None  # of a run that has not begun: microseconds since the epoch
        self._host = host
        self._deadlines: list[tuple[int, int, str]] = []  # a heap; timers that are gone leave it when they come up
        self._serial = 0

    def start(self, timer: WorkflowTimer) -> None:
        """A durable timer is wanted."""
        host = self._host
        host.check_open("a timer")
        timer.id = host.loop.current_branch().next_id("timer")
        deadline = host.loop.deadline_of(timer.when())
        self.running[timer.id] = PendingTimer(deadline, timer)
        heapq.heappush(self._deadlines, (deadline, self._serial, timer.id))
        self._serial += 1
        host.decide(TimerStarted(at=host.now, id=timer.id, site=site(), deadline=deadline))

    def cancel(self, timer: WorkflowTimer) -> None:
        """A durable timer is no longer wanted."""
        host = self._host
        if host.loop.poisoned or self.running.pop(timer.id, None) is None:
            return
        if not host.undecide(timer.id):
            host.decide(TimerCancelled(at=host.now, id=timer.id))

    def cancel_all(self) -> None:
        """None is wanted any more."""
        for pending in list(self.running.values()):
            pending.timer.cancel()

    def fired(self, fact: TimerFired) -> None:
        """Its deadline has passed. Raises `HistoryError` when no such timer is running."""
        found = self.running.pop(fact.id, None)
        if found is None:
            raise HistoryError(f"{fact!r}: no such timer is running")
        self._host.loop.fire(found.timer)

    def postpone(self, by: int) -> None:
        """Let all of them fire that many microseconds later."""
        for id_, pending in self.running.items():
            self.running[id_] = pending._replace(deadline=pending.deadline + by)
        self._deadlines = [(deadline + by, serial, id_) for deadline, serial, id_ in self._deadlines]

    def next_deadline(self) -> int | None:
        """Microseconds since the epoch at which the earliest running timer is due, or the run is to begin."""
        if self.begins_at is not None:
            return self.begins_at
        heap = self._deadlines
        while heap and heap[0][2] not in self.running:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: int) -> list[TimerFired | RunBegun]:
        """The facts of all timers due at `now`, earliest first, each handed out once; or that the run begins."""
        due: list[TimerFired | RunBegun] = []
        if self.begins_at is not None:
            return [RunBegun(at=self.begins_at)] if self.begins_at <= now else due
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            due.append(TimerFired(at=deadline, id=heapq.heappop(self._deadlines)[2]))
        return due
