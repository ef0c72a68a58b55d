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
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct, field

from engine.runtime.permits import Asked, Claim, Line
from engine.runtime.queues import FairQueue
from engine.runtime.shared_limits import SharedLimits
from engine.runtime.steps import Step
from engine.tasks import Named
from eventstore import LimitReached, NewEvent, Permit

__all__ = ["TRIED_MAX", "WAITING_MAX", "Flow"]

WAITING_MAX: Final = 100
"""Tasks of one run that stand in the store's queue of one limit."""
TRIED_MAX: Final = 32
"""Of those that wait for a rate, how many try to start when it should have room."""


class Queues(Struct, eq=False):
    """Who waits for one limit: in the store's queue, and behind that here."""

    waiting: dict[str, Line] = field(default_factory=dict)  # by holder, in order
    lined_up: FairQueue[Line] = field(default_factory=FairQueue)
    contended: bool = False  # others took what was given back here, when that was last tried

    def next(self) -> Line | None:
        """Who is the next to join the store's queue; who has left the line-up since is passed over."""
        while self.lined_up:
            line = self.lined_up.pop()
            if line.state == "lined up":
                return line
        return None


class Flow:
    """See the module. One for each run that is in memory; it knows tasks by the name under which they hold slots."""

    def __init__(self, shared: SharedLimits) -> None:
        self._shared = shared
        self._lines: dict[str, Line] = {}  # by holder
        self._queues: dict[str, Queues] = {}  # by limit
        self._leaving: dict[tuple[str, str], Permit] = {}  # to be returned

    @property
    def in_use(self) -> bool:
        """Whether any task here needs permits."""
        return bool(self._lines)

    @property
    def has_returns(self) -> bool:
        """Whether something is to be given back."""
        return bool(self._leaving)

    @property
    def may_rest(self) -> bool:
        """Whether nothing is on its way to start, or holds a slot: whoever is granted a permit is claimed for that."""
        return not self._leaving and all(
            line.state == "waiting" and (not line.at or line.needs[line.at].is_rate) for line in self._lines.values()
        )

    def needs_of(self, definition: Any) -> tuple[Named, ...]:
        """The limits that attempts of a task are under here."""
        limits: tuple[Named, ...] = definition.limits
        return self._shared.with_every(limits)

    def line_of(self, holder: str, attempt: int) -> Line | None:
        """Who goes by that name and needs permits for this attempt, if anybody does."""
        line = self._lines.get(holder)
        if line is None or line.state == "started":
            return None
        line.attempt = attempt
        return line

    def knows(self, holder: str) -> bool:
        """Whether there is anybody by that name, with or without permits."""
        return holder in self._lines

    def add(self, line: Line) -> None:
        """A task needs permits."""
        self._lines[line.holder] = line

    def must_wait(self, line: Line) -> bool:
        """Whether one of its limits was found to be full just now. Who was called may try."""
        return line.state != "called" and any(self._shared.is_full(need.name) for need in line.needs)

    def line_up(self, line: Line) -> None:
        """Let it wait for the first of its limits that is known to be full."""
        self._out_of_queue(line)
        full = (index for index, need in enumerate(line.needs) if self._shared.is_full(need.name))
        line.at = next(full, 0)
        self._push(line)

    def call(self, line: Line) -> None:
        """There may be room for it."""
        self._out_of_queue(line)
        line.state = "called"

    # -- steps --------------------------------------------------------------------------------------------------------

    def has_room(self, step: Step, line: Line) -> bool:
        """Whether the step has room for its permits."""
        return step.asked is None or step.asked.has_room(len(line.needs))

    def claim(self, step: Step, line: Line, event: NewEvent) -> None:
        """Let it start with this step, of which `event` is its `TaskStarted`."""
        self._out_of_queue(line)
        line.state = "started"
        _asked(step).add(Claim(line, event))

    def fill(self, step: Step) -> list[Line]:
        """Let those who are lined up join the store's queues, as far as there is room, and give back what is to be.

        Returns who may try to start: nothing says that there is no room for them, or what this step gives back may be
        theirs.
        """
        hopeful: list[Line] = []
        if self._leaving:
            self.settle(step)
            hopeful = self._next_in_line(_asked(step))
        for name, queues in self._queues.items():
            room = WAITING_MAX - len(queues.waiting)
            while room > 0 and (line := queues.next()) is not None:
                room -= 1
                if not self._shared.is_full(name):
                    line.state = "called"
                    hopeful.append(line)
                elif self.has_room(step, line):
                    self._join(line)
                    _asked(step).add(Claim(line))
                else:
                    self._push(line)
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
            queues = self._queues.get(name)
            if queues is not None and not queues.contended:
                found += list(queues.waiting.values())[:count]
        for line in found:
            self.call(line)
        return found

    def refused(self, step: Step, error: LimitReached) -> list[Claim]:
        """A limit is reached: who needs it waits. Returns the starts that are to be taken out of the step."""
        self._shared.found_full(error.pool, error.retry_at)
        asked = _asked(step)
        undone: list[Claim] = []
        kept: list[Claim] = []
        reached = False  # all permits before the one that was refused were to be had
        for claim in asked.claims:
            line = claim.line
            index = next((index for index, need in enumerate(line.needs) if need.name == error.pool), -1)
            is_named = index >= 0 and line.holder_of(line.needs[index]) == error.holder
            reached = reached or is_named
            if index < 0 or not (is_named or (reached and claim.event is not None and not line.granted)):
                kept.append(claim)
                continue
            if claim.event is not None:
                undone.append(claim)
            self._out_of_queue(line)
            line.at = index
            queues = self._queues_of(line)
            queues.contended = True
            if len(queues.waiting) < WAITING_MAX:
                self._join(line)
                kept.append(Claim(line))
            else:
                self._push(line)
        asked.keep(kept)
        return undone

    def without(self, step: Step, pool: str) -> list[Claim]:
        """There is no such limit: what the step asks of it is taken out. Returns what that was."""
        asked = _asked(step)
        gone = [claim for claim in asked.claims if any(need.name == pool for need in claim.line.needs)]
        asked.keep(claim for claim in asked.claims if claim not in gone)
        asked.returns = [permit for permit in asked.returns if permit.pool != pool]
        for claim in gone:
            self._drop(claim.line)
        return gone

    def written(self, step: Step) -> None:
        """The step is durable."""
        for claim in _asked(step).claims:
            if claim.event is not None:
                for need in claim.line.needs:
                    if (queues := self._queues.get(need.name)) is not None:
                        queues.contended = False

    def not_written(self, step: Step) -> None:
        """The step is decided anew: what it was to give back still is."""
        if step.asked is not None:
            self._leave(step.asked.returns)

    # -- what becomes of them -----------------------------------------------------------------------------------------

    def granted(self, pool: str, holder: str) -> Line | None:
        """A permit was granted: who may try to start now. None: nobody does, and what nobody wants is given back."""
        line = self._lines.get(holder) or self._lines.get(holder.rpartition("@")[0])
        if line is not None and line.state != "started":
            self._shared.has_room(pool)
            line.granted = line.has_queued = True
            return line
        if line is None or line.holder_of(_need(line, pool)) != holder:
            self._leave([Permit(pool=pool, holder=holder, action="return")])
        return None

    def ended(self, holder: str) -> bool:
        """Its attempt has ended, or it is wanted no more: what it has is given back. Whether it had anything."""
        line = self._lines.get(holder)
        if line is None:
            return False
        if line.state == "started" or line.has_queued:
            self._leave(line.returns(started=line.state == "started"))
        self._drop(line)
        return True

    def stand_down(self) -> None:
        """Nothing begins for now: who waits gives up its place."""
        for line in list(self._lines.values()):
            if line.state != "started":
                self.ended(line.holder)

    def due(self, now: int) -> list[Line]:
        """Who waits for a rate that should have room by now."""
        found: list[Line] = []
        for name, queues in self._queues.items():
            until = self._shared.retry_at(name)
            if until is not None and until <= now:
                found += list(queues.waiting.values())[:TRIED_MAX]
        return found

    def next_due(self) -> int | None:
        """Microseconds at which a rate that somebody waits for should have room."""
        dues = (self._shared.retry_at(name) for name, queues in self._queues.items() if queues.waiting)
        return min((due for due in dues if due is not None), default=None)

    def _leave(self, permits: Iterable[Permit]) -> None:
        for permit in permits:
            self._leaving[permit.pool, permit.holder] = permit

    def _drop(self, line: Line) -> None:
        self._out_of_queue(line)
        line.state = "started"  # whoever comes upon it in a line-up passes it over
        self._lines.pop(line.holder, None)

    def _join(self, line: Line) -> None:
        line.state, line.has_queued, line.granted = "waiting", True, False
        self._queues_of(line).waiting[line.holder] = line

    def _push(self, line: Line) -> None:
        line.state = "lined up"
        self._queues_of(line).lined_up.push(line, priority=line.priority, key=line.key)

    def _out_of_queue(self, line: Line) -> None:
        if line.state == "waiting":
            self._queues_of(line).waiting.pop(line.holder, None)

    def _queues_of(self, line: Line) -> Queues:
        name = line.needs[line.at].name
        queues = self._queues.get(name)
        if queues is None:
            queues = self._queues[name] = Queues()
        return queues


def _asked(step: Step) -> Asked:
    if step.asked is None:
        step.asked = Asked()
    return step.asked


def _need(line: Line, pool: str) -> Named:
    return next((need for need in line.needs if need.name == pool), line.needs[0])
