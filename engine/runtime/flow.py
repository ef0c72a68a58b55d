"""Flow control of one run: permits that its attempts need, hold and wait for, of limits that the whole store shares.

A permit is taken in the commit that writes the attempt's `TaskStarted`, so that no attempt begins without one, and
returned in the one that writes how it ended. A commit whose limit is reached is refused by the store; the starts that
needed it are then taken out of the step, their tasks join the limit's queue in the store, and the step is written
without them. Who is granted a permit is told by control mail, and tries to start again.

What is asked in which order: slots first, then the start of a rate, so that none is spent on waiting. Who waits for a
slot keeps the slots that it has; all runs take them in one order, so none wait for each other. Who waits for a rate
keeps nothing.

Only `WAITING_MAX` of a run's tasks stand in the store's queue of one limit; the others line up here. A fan-out of
100,000 costs the store no more than a few rows at a time.

This module decides nothing about the workflow, and writes nothing: it fills what a step asks (`permits.Asked`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from engine.runtime.lines import Lines
from engine.runtime.permits import Asked, Claim, Line
from engine.runtime.shared_limits import SharedLimits
from engine.runtime.steps import Step
from engine.tasks import Named
from eventstore import LimitReached, NewEvent, Permit

__all__ = ["TRIED_MAX", "Flow"]

TRIED_MAX: Final = 32
"""Of those that wait for a rate, how many try to start when it should have room."""


class Flow:
    """See the module. One for each run that is in memory, whatever epoch it is in."""

    def __init__(self, shared: SharedLimits, kick: Callable[[], None]) -> None:
        self._kick = kick  # its driver
        self.lines = Lines()
        self._shared = shared
        self._leaving: dict[tuple[str, str], Permit] = {}  # to be returned

    @property
    def has_work(self) -> bool:
        """Whether something is to be given back, or somebody who is lined up may try, or wait in the store."""
        if not self.lines.queues:  # nearly all runs, and asked at each of their steps
            return bool(self._leaving)
        return bool(self._leaving) or any(queue.may_join for queue in self.lines.queues.values())

    @property
    def may_rest(self) -> bool:
        """Whether nothing is on its way to start, or holds a slot: whoever is granted a permit is claimed for that."""
        return not self._leaving and self.lines.rest

    def needs_of(self, definition: Any) -> tuple[Named, ...]:
        """The limits that attempts of a task are under here."""
        limits: tuple[Named, ...] = definition.limits
        return self._shared.with_every(limits)

    def must_wait(self, line: Line) -> bool:
        """Whether one of its limits was found to be full just now. Who was called may try."""
        return line.state != "called" and any(self._shared.is_full(need.name) for need in line.needs)

    def line_up(self, line: Line) -> None:
        """Let it wait for the first of its limits that is known to be full."""
        full = (index for index, need in enumerate(line.needs) if self._shared.is_full(need.name))
        self.lines.line_up(line, next(full, 0))

    # -- steps --------------------------------------------------------------------------------------------------------

    def has_room(self, step: Step, line: Line) -> bool:
        """Whether the step has room for its permits."""
        return step.asked is None or step.asked.has_room(len(line.needs))

    def claim(self, step: Step, line: Line, event: NewEvent) -> None:
        """Let it start with this step, of which `event` is its `TaskStarted`."""
        _asked(step).add(Claim(line, event))
        self.lines.start(line)

    def fill(self, step: Step) -> list[Line]:
        """Let those who are lined up join the store's queues, as far as there is room, and give back what is to be.

        Returns who may try to start: nothing says that there is no room for them, or what this step gives back may be
        theirs.
        """
        hopeful: list[Line] = []
        if self._leaving:
            self.settle(step)
            hopeful = self._next_in_line(_asked(step))
        for name, queue in self.lines.queues.items():
            hoping = 0
            while queue.room > hoping and (line := queue.next()) is not None:
                if not self._shared.is_full(name):
                    self.lines.call(line)
                    hopeful.append(line)
                    hoping += 1
                elif self.has_room(step, line):
                    self.lines.join(line, line.at)
                    _asked(step).add(Claim(line))
                else:
                    self.lines.line_up(line, line.at)
                    break
        return hopeful

    def settle(self, step: Step) -> None:
        """Let the step give back what is to be given back."""
        if not self._leaving:
            return
        asked = _asked(step)
        for key in list(self._leaving):
            if not asked.has_room(1):
                return
            asked.returns.append(self._leaving.pop(key))

    def _next_in_line(self, asked: Asked) -> list[Line]:
        """Who may have what is given back here, unless others come first."""
        found: list[Line] = []
        for name, count in Counter(permit.pool for permit in asked.returns).items():
            queue = self.lines.queue_of(name)
            if not queue.contended:
                found += list(queue.waiting.values())[:count]
        for line in found:
            self.lines.call(line)
        return found

    def refused(self, step: Step, error: LimitReached) -> list[Claim]:
        """A limit is reached: who needs it waits. Returns the starts that are to be taken out of the step."""
        self._shared.found_full(error.pool, error.retry_at)
        asked = _asked(step)
        queue = self.lines.queue_of(error.pool)
        queue.contended = True
        undone: list[Claim] = []
        kept: list[Claim] = []
        reached = False  # all permits before the one that was refused were to be had
        for claim in asked.claims:
            line = claim.line
            index = line.index_of(error.pool)
            is_named = index is not None and line.holder_of(line.needs[index]) == error.holder
            reached = reached or is_named
            is_start = claim.event is not None
            if index is None or not (is_named or (reached and is_start and not line.granted)):
                kept.append(claim)
                continue
            if is_start:
                undone.append(claim)
            if queue.room:
                self.lines.join(line, index)
                kept.append(Claim(line))
            else:
                self.lines.line_up(line, index)
        asked.keep(kept)
        return undone

    def without(self, step: Step, limit: str, *, is_rate: bool) -> list[Claim]:
        """There is no such pool, or rate: what the step asks of it is taken out. Returns what that was."""
        asked = _asked(step)
        gone = [
            claim
            for claim in asked.claims
            if any(need.name == limit and need.is_rate == is_rate for need in claim.line.needs)
        ]
        asked.keep(claim for claim in asked.claims if claim not in gone)
        for claim in gone:
            self.lines.drop(claim.line)
        return gone

    def written(self, step: Step) -> None:
        """The step is durable: who has begun has found room."""
        for claim in _asked(step).claims:
            if claim.event is not None:
                for need in claim.line.needs:
                    self.lines.queue_of(need.name).contended = False

    def not_written(self, step: Step) -> None:
        """The step is decided anew: what it was to give back still is."""
        if step.asked is not None:
            self._leave(step.asked.returns)

    # -- what becomes of them -----------------------------------------------------------------------------------------

    def granted(self, pool: str, holder: str) -> Line | None:
        """A permit was granted: who may try to start now. None: nobody does, and what nobody wants is given back."""
        line = self.lines.get(holder)
        if line is not None and line.state != "started":
            self._shared.has_room(pool)
            line.granted = line.has_queued = True
            return line
        index = None if line is None else line.index_of(pool)
        if line is None or index is None or line.holder_of(line.needs[index]) != holder:
            self._leave([Permit(pool=pool, holder=holder, action="return")])
        return None

    def ended(self, holder: str) -> None:
        """Its attempt has ended, or it is wanted no more: what it has is given back."""
        line = self.lines.get(holder)
        if line is None:
            return
        started = line.state == "started"
        if started or line.has_queued:
            self._leave(line.returns(started=started))
            self._kick()
        self.lines.drop(line)

    def stand_down(self) -> None:
        """Nothing begins for now: who waits gives up its place."""
        for line in self.lines:
            if line.state != "started":
                self.ended(line.holder)

    def due(self, now: int) -> list[Line]:
        """Who waits for a rate that should have room by now (microseconds)."""
        found: list[Line] = []
        for name, queue in self.lines.queues.items():
            until = self._shared.retry_at(name)
            if until is not None and until <= now:
                found += list(queue.waiting.values())[:TRIED_MAX]
        return found

    def next_due(self) -> int | None:
        """Microseconds at which a rate that somebody waits for should have room."""
        dues = (self._shared.retry_at(name) for name, queue in self.lines.queues.items() if queue.waiting)
        return min((due for due in dues if due is not None), default=None)

    def _leave(self, permits: Iterable[Permit]) -> None:
        for permit in permits:
            self._leaving[permit.pool, permit.holder] = permit


def _asked(step: Step) -> Asked:
    if step.asked is None:
        step.asked = Asked()
    return step.asked
