"""What has arrived at one run and was not taken yet: facts and notes of its own making, and mail.

Mail is in the store's mailbox until the step that takes it is written; what stands here is its meaning. Requests that
the workflow does not serve yet are set aside, unrecorded, and stay in the mailbox meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from engine.core.events import (
    AttemptFailed,
    AttemptOutcomeIgnored,
    CancelRequested,
    ChildOutcomeIgnored,
    ContinuedAsNew,
    EffectReconciled,
    RunBegun,
    RunPaused,
    RunStarted,
    RunUnpaused,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TimerFired,
)
from engine.core.instance import Instance
from engine.core.replay import Attempts
from engine.runtime.epochs import beginning_of_next, carried_over
from engine.runtime.mail import TerminateMail
from engine.runtime.post import arrival_of
from engine.runtime.steps import Arrival, Step
from engine.runtime.turns import Turns
from eventstore import StreamHead

__all__ = ["STEP_FACTS_MAX", "Intake"]

STEP_FACTS_MAX: Final = 500
"""Facts that one step delivers before it commits: bounds the size of a commit and the wait of the first fact in it."""
KEPT_MAIL_SECONDS: Final = 0.1
"""How often a run with mail that stays in the box (`Intake.keeps_mail`) is looked at for other mail."""
_ENDS_OF_ATTEMPTS: Final = (TaskCompleted, TaskFailed, AttemptFailed, EffectReconciled, TaskHandedOut)
_NO_MAIL: Final[frozenset[str]] = frozenset()


class Intake:
    """See the module. True while something waits to be taken."""

    def __init__(self) -> None:
        self.arrivals: deque[Arrival] = deque()  # in order
        self._paused: bool | None = None  # how the run stands once all of it is taken; None: as in the store
        # Hardly any run has any of these, and there may be thousands of runs: no set of its own for each.
        self.later: tuple[Arrival, ...] = ()  # requests that the workflow does not serve yet
        self._consuming: set[str] | None = None  # what stands here, or was taken by a step that is being written
        self._answered: frozenset[str] = _NO_MAIL  # out of the box since the last event was written
        self._unreadable: frozenset[str] = _NO_MAIL  # control mail of a newer version: it is left in the box
        self._strange: frozenset[str] = _NO_MAIL  # and data mail, which is taken out when the run ends
        self._received_at = 0.0  # on the loop's clock, in seconds

    def __bool__(self) -> bool:
        return bool(self.arrivals)

    @property
    def is_busy(self) -> bool:
        """Whether it would only be claimed again for mail that is here: that is being answered, or stays in the box."""
        return bool(self._consuming) or self.keeps_mail

    def is_to_be_looked_at(self, now: float) -> bool:
        """Whether there may be other mail than what stays in the box: nobody claims the run for that."""
        return self.keeps_mail and now - self._received_at >= KEPT_MAIL_SECONDS

    @property
    def keeps_mail(self) -> bool:
        """Whether mail stays in the box: requests that are not served yet, or what this version cannot read.

        A run that was given up would be claimed for it at once, again and again.
        """
        return bool(self.later or self._unreadable or self._strange)

    @property
    def has_signals(self) -> bool:
        """Whether signals wait: those that come before an epoch begins are among what it carries on."""
        return any(isinstance(arrival.event, SignalReceived) for arrival in self.arrivals)

    def add(self, *arrivals: Arrival) -> None:
        """More has arrived."""
        self.arrivals.extend(arrivals)
        for arrival in arrivals:
            if arrival.message is not None:
                self._consuming = self._consuming or set()
                self._consuming.add(arrival.message)

    def receive(
        self,
        head: StreamHead,
        instance: Instance,
        attempts: Mapping[str, Attempts],
        *,
        paused: bool,
        aside: bool = False,
        ending: bool = False,
    ) -> bool:
        """Take in what waits in the mailbox, each message once. Whether the run is to be ended without its code.

        `aside`: its workflow is paused, or it has to wait for its turn. As for a paused run, data mail stays in the
        box, and a cancel ends that.
        `ending`: what was under way has ended the run, held or not: it does not end over mail.
        """
        terminate = False
        if self._paused is None:
            self._paused = paused
        self._received_at = asyncio.get_running_loop().time()
        for message in head.messages:
            if message.id in (self._consuming or ()) or message.id in self._answered:
                continue
            if (self._paused or aside) and not (message.control or ending):
                continue
            arrival = arrival_of(message, instance, attempts, paused=self._paused, attributes=head.attributes)
            if isinstance(arrival, TerminateMail):
                terminate = True
            elif arrival is not None:
                ends = isinstance(arrival.event, CancelRequested) and not arrival.event.unless_begun
                if self._paused and ends:
                    assert isinstance(arrival.event, CancelRequested)  # which always works
                    who, why = arrival.event.by, arrival.event.reason
                    self.add(Arrival(RunUnpaused(at=0, by=who, reason=why)))
                self.add(arrival)
                if ends or isinstance(arrival.event, RunPaused | RunUnpaused):
                    self._paused = isinstance(arrival.event, RunPaused)
                    aside = aside and not ends
            elif message.control:
                self._unreadable |= {message.id}
            else:
                self._strange |= {message.id}
        return terminate

    def ended_attempts(self) -> set[str]:
        """Tasks whose attempt has ended, of which that is not taken yet."""
        return {arrival.event.id for arrival in self.arrivals if isinstance(arrival.event, _ENDS_OF_ATTEMPTS)}

    def can_be_served(self, instance: Instance) -> bool:
        """Whether a request that was set aside is served by now."""
        return any(_serves(instance, arrival) for arrival in self.later)

    def take(self, step: Step, turns: Turns, instance: Instance) -> list[Arrival]:
        """The turns of a step; returns what was taken. What is left waits for the next."""
        if self.later:
            self.arrivals.extend(arrival for arrival in self.later if _serves(instance, arrival))
            self.later = tuple(arrival for arrival in self.later if not _serves(instance, arrival))
        step.continued = step.continued or isinstance(instance.outcome, ContinuedAsNew)
        taking = _Taking(self.arrivals, step, turns)
        if len(self.arrivals) > 1:
            instance.together(taking.take_all)
        else:
            taking.take_all()
        self.later += step.later
        if taking.next_epochs or taking.left:
            self.arrivals.extendleft(reversed(taking.next_epochs))
            self.arrivals.extendleft(reversed(taking.left))  # of a run that has ended: no step is written over them
        return taking.tried

    def late(self, turns: Turns, *, base: int, at: int) -> Step | None:
        """What has reached a run whose end is decided: noted in a step of its own, before the end is written.

        None when there is no such mail.
        """
        step = Step(base=base)
        kept: list[Arrival] = []
        for arrival in self.arrivals:
            if arrival.message is None or isinstance(arrival.event, CancelRequested | RunPaused | RunUnpaused):
                kept.append(arrival)
            else:
                turns.take_late(step, arrival, at=at)
        self.arrivals = deque(kept)
        self.turn_away(step)
        return step if step.consumes else None

    def turn_away(self, step: Step) -> None:
        """The run has ended: requests that it has not accepted by now it never will; who sent them finds it ended."""
        if self.later:
            _consume(step, self.later)
            self.later = ()
        if self._strange:
            step.consume(*self._strange)
            self._strange = _NO_MAIL

    def written(self, step: Step) -> None:
        """The step is durable: the messages that it answered are out of the box."""
        if step.events:
            self._answered = _NO_MAIL  # a look from before this is older by its version
        if step.consumes:
            answered = {message for _, message in step.consumes}
            if self._consuming is not None:
                self._consuming -= answered
            if not step.events:
                self._answered |= answered

    def again(
        self,
        step: Step,
        head: StreamHead,
        instance: Instance,
        attempts: Mapping[str, Attempts],
        *,
        first: Iterable[Arrival],
        paused: bool,
    ) -> bool:
        """A step was refused for mail that it had not seen, and the run rebuilt: that mail first, then all once more.

        What the step had taken is nowhere but here; only a time that has come will be found due. As `receive`.
        """
        before = [*step.taken, *self.arrivals]
        if isinstance(instance.outcome, ContinuedAsNew):
            before = list(carried_over(before, epoch=instance.epoch))
        self.arrivals.clear()
        self._consuming = None
        self.later = ()
        self._paused = None
        terminate = self.receive(head, instance, attempts, paused=paused, ending=True)
        self.carry(first)
        mail = {arrival.message for arrival in self.arrivals}
        for arrival in before:
            if isinstance(arrival.event, TimerFired | RunBegun) or (
                arrival.message is not None and arrival.message in mail
            ):
                continue
            if _is_carried(arrival):
                continue  # among the first
            self.add(arrival)
        return terminate

    def carry(self, rest: Iterable[Arrival]) -> None:
        """An epoch was not told all that it carries on: signals that wait, which count as come before; the rest."""
        rest = list(rest)
        if rest:
            signals = [arrival for arrival in self.arrivals if isinstance(arrival.event, SignalReceived)]
            others = [arrival for arrival in self.arrivals if not isinstance(arrival.event, SignalReceived)]
            self.arrivals = deque([*signals, *rest, *others])

    def begin_epoch(self, before: Instance, version: str) -> None:
        """The run continues as new, as that version of its workflow: its next epoch takes along what it may."""
        left = list(carried_over(self.arrivals, epoch=before.epoch))
        late = [arrival for arrival in left if isinstance(arrival.event, AttemptOutcomeIgnored | ChildOutcomeIgnored)]
        self.arrivals.clear()
        # Notes of the last epoch stand behind it: in the next one their ids mean others.
        self.add(
            *late, *beginning_of_next(before, version=version), *(arrival for arrival in left if arrival not in late)
        )


class _Taking:
    """The turns of one step."""

    __slots__ = ("arrivals", "left", "next_epochs", "step", "tried", "turns")

    def __init__(self, arrivals: deque[Arrival], step: Step, turns: Turns) -> None:
        self.arrivals = arrivals
        self.step = step
        self.turns = turns
        self.tried: list[Arrival] = []
        self.left: list[Arrival] = []
        self.next_epochs: list[Arrival] = []

    def take_all(self) -> None:
        arrivals, step, room = self.arrivals, self.step, STEP_FACTS_MAX
        for _ in range(len(arrivals)):
            if step.suspended or (room <= 0 and not _is_carried(arrivals[0])):
                return
            arrival = arrivals.popleft()
            if step.continued and not isinstance(arrival.event, SignalReceived):
                self.next_epochs.append(arrival)
                continue
            room -= 1  # what an epoch carries on comes in one step with its beginning, however much it is
            self.tried.append(arrival)
            if not self.turns.take(step, arrival):
                self.left.append(arrival)


def _serves(instance: Instance, arrival: Arrival) -> bool:
    return instance.outcome is None and instance.inbox.serves(getattr(arrival.event, "name", ""))


def _is_carried(arrival: Arrival) -> bool:
    return bool(getattr(arrival.event, "carried", False)) and not isinstance(arrival.event, RunStarted)


def _consume(step: Step, arrivals: Iterable[Arrival]) -> None:
    step.consume(*(arrival.message for arrival in arrivals if arrival.message is not None))
