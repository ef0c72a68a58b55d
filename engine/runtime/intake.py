"""What has arrived at one run and was not taken yet: facts and notes of its own making, and mail.

Mail is in the store's mailbox until the step that takes it is written; what stands here is its meaning. Requests that
the workflow does not serve yet are set aside, unrecorded, and stay in the mailbox meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from engine.core.events import (
    AttemptOutcomeIgnored,
    CancelRequested,
    ChildOutcomeIgnored,
    ContinuedAsNew,
    RunPaused,
    RunStarted,
    RunUnpaused,
    SignalReceived,
    TimerFired,
)
from engine.core.instance import Instance
from engine.runtime.epochs import beginning_of_next, carried_over
from engine.runtime.mail import TerminateMail
from engine.runtime.post import arrival_of
from engine.runtime.steps import Arrival, Step
from engine.runtime.turns import Turns
from eventstore import StreamHead

__all__ = ["STEP_FACTS_MAX", "Intake"]

STEP_FACTS_MAX: Final = 500
"""Facts that one step delivers before it commits: bounds the size of a commit and the wait of the first fact in it."""
UNREADABLE_SECONDS: Final = 0.1
"""How often a run with mail of a newer version is looked at for other mail."""

REFUSALS_MAX: Final = 3
"""How often an end that came by mail is decided anew for the mail behind it."""


class Intake:
    """See the module. True while something waits to be taken."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._later: list[Arrival] = []  # requests that the workflow does not serve yet
        self._postponed: set[str] = set()  # mail that would end the run, and is to be told after the rest
        self._paused: bool | None = None  # how the run stands once all that was received is taken; None: as in the store
        self._mail_first = 0  # arrivals that the next step is to take without those behind them; 0: no matter
        self._refusals = 0  # of ends, one after the other, for mail that they had not seen
        self._consuming: set[str] = set()  # messages that stand here, or were taken by a step that is being written
        self._unreadable: set[str] = set()  # of a newer version: they stay in the box, and are left there
        self._received_at = 0.0  # on the loop's clock, in seconds

    def __bool__(self) -> bool:
        return bool(self._arrivals)

    def is_busy(self, now: float) -> bool:
        """Whether the run would only be claimed again for mail that is here: it is being answered, or cannot be read.

        Of a run with mail of the second kind there may be other mail too: that is looked for, now and then.
        """
        return bool(self._consuming) or (bool(self._unreadable) and now - self._received_at < UNREADABLE_SECONDS)

    @property
    def keeps_mail(self) -> bool:
        """Whether mail stays in the box: requests that are not served yet, or what this version cannot read.

        A run that was given up would be claimed for it at once, again and again.
        """
        return bool(self._later or self._unreadable)

    def add(self, *arrivals: Arrival) -> None:
        """More has arrived."""
        self._arrivals.extend(arrivals)
        self._consuming.update(arrival.message for arrival in arrivals if arrival.message is not None)

    def receive(self, head: StreamHead, instance: Instance, *, paused: bool) -> bool:
        """Take in what waits in the mailbox, each message once. Whether the run is to be ended without its code."""
        terminate = False
        if self._paused is None:
            self._paused = paused
        self._received_at = asyncio.get_running_loop().time()
        for message in head.messages:
            if message.id in self._consuming:
                continue
            arrival = arrival_of(message, instance, paused=self._paused)
            if isinstance(arrival, TerminateMail):
                terminate = True
            elif arrival is not None:
                if self._paused and isinstance(arrival.event, CancelRequested):
                    self.add(Arrival(RunUnpaused(at=0, by=arrival.event.by)))  # cancel always works
                self.add(arrival)
                if isinstance(arrival.event, RunPaused | RunUnpaused | CancelRequested):
                    self._paused = isinstance(arrival.event, RunPaused)
            elif message.control:
                self._unreadable.add(message.id)
        return terminate

    def can_be_served(self, instance: Instance) -> bool:
        """Whether a request that was set aside is served by now."""
        return any(_serves(instance, arrival) for arrival in self._later)

    def take(self, step: Step, turns: Turns, instance: Instance) -> list[Arrival]:
        """The turns of a step; returns what was taken. What is left waits for the next."""
        self._arrivals.extend(arrival for arrival in self._later if _serves(instance, arrival))
        self._later = [arrival for arrival in self._later if not _serves(instance, arrival)]
        tried: list[Arrival] = []
        left: list[Arrival] = []
        ending: Arrival | None = None
        most, self._mail_first = self._mail_first or STEP_FACTS_MAX, 0
        while self._arrivals and (len(tried) < most or step.ended is not None):  # an end has to see them all
            if step.suspended or step.continued:
                break
            arrival = self._arrivals.popleft()
            tried.append(arrival)
            if not turns.take(step, arrival):
                left.append(arrival)
            elif ending is None and step.ended is not None:
                ending = arrival
        self._later.extend(step.later)
        if step.drained and self._can_come_first(left, ending):
            self._arrivals.extendleft(reversed(left))  # the step will be refused for them, and taken anew
        else:
            _consume(step, left)
        if ending is not None and self._refusals >= REFUSALS_MAX and _by_mail(ending):
            step.drained = False  # what is behind it in the box was sent after it, and there may be pages of it
        return tried

    def _can_come_first(self, left: list[Arrival], ending: Arrival | None) -> bool:
        """Whether any signal that came too late for a run can be told to it before what ended it.

        Not before its start, not before an earlier signal of its name, and not if it was put behind the others for
        having ended the run itself: such a one was sent in time, and nobody is left to receive it.
        """
        if ending is None or ending.message is None:
            return bool(left) and not (ending is not None and isinstance(ending.event, RunStarted))
        if isinstance(ending.event, RunStarted):
            return False
        same = [arrival for arrival in left if _name_of(arrival) == _name_of(ending)]
        others = [arrival for arrival in left if arrival not in same and arrival.message not in self._postponed]
        if others:
            self._postponed.update(arrival.message for arrival in (ending, *same) if arrival.message is not None)
        return bool(others)

    def turn_away(self, step: Step) -> None:
        """The run has ended: requests that it has not accepted by now it never will; who sent them finds it ended."""
        _consume(step, self._later)
        self._later.clear()

    def written(self, step: Step) -> None:
        """The step is durable: the messages that it answered are out of the box."""
        self._refusals = 0
        for _, message in step.consumes:
            self._consuming.discard(message)

    def again(
        self, step: Step, head: StreamHead, instance: Instance, *, first: Iterable[Arrival], paused: bool
    ) -> bool:
        """A step was refused for mail that it had not seen, and the run rebuilt: that mail first, then all once more.

        What the step had taken is nowhere but here; only a timer that fell due will be found due. As `receive`.
        """
        before = [*step.taken, *self._arrivals]
        if isinstance(instance.outcome, ContinuedAsNew):
            before = list(carried_over(before, epoch=instance.epoch))
        self._arrivals.clear()
        self._consuming.clear()
        self._later.clear()
        self._paused = None
        self.add(*first)
        if instance.started is None:  # what was refused is its very first step: the start comes before any mail
            starts = [arrival for arrival in before if isinstance(arrival.event, RunStarted)]
            before = [arrival for arrival in before if arrival not in starts]
            self.add(*starts)
        terminate = self.receive(head, instance, paused=paused)
        self._arrivals = deque(sorted(self._arrivals, key=lambda arrival: arrival.message in self._postponed))
        self._refusals += 1
        self._mail_first = len(self._arrivals)
        mail = {arrival.message for arrival in self._arrivals}
        for arrival in before:
            if isinstance(arrival.event, TimerFired) or (arrival.message is not None and arrival.message in mail):
                continue
            if getattr(arrival.event, "carried", False):
                continue  # among the first
            self.add(arrival)
        return terminate

    def begin_epoch(self, before: Instance) -> None:
        """The run continues as new: its next epoch begins, and takes along what it may."""
        left = list(carried_over(self._arrivals, epoch=before.epoch))
        late = [arrival for arrival in left if isinstance(arrival.event, AttemptOutcomeIgnored | ChildOutcomeIgnored)]
        self._arrivals.clear()
        # Notes of the last epoch stand behind it: in the next one their ids mean others.
        self.add(*late, *beginning_of_next(before), *(arrival for arrival in left if arrival not in late))


def _serves(instance: Instance, arrival: Arrival) -> bool:
    return instance.outcome is None and instance.inbox.serves(getattr(arrival.event, "name", ""))


def _by_mail(ending: Arrival) -> bool:
    return ending.message is not None or isinstance(ending.event, RunStarted)


def _name_of(arrival: Arrival) -> str | None:
    return arrival.event.name if isinstance(arrival.event, SignalReceived) else None


def _consume(step: Step, arrivals: Iterable[Arrival]) -> None:
    step.consumes.extend((len(step.events), arrival.message) for arrival in arrivals if arrival.message is not None)
