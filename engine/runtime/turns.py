"""The turns of one run: facts in, decisions behind them, everything stamped. Pure but for the clock that it asks."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from engine.core.compare import Diagnosis, Reason
from engine.core.decided import Decided
from engine.core.events import (
    AttemptFailed,
    AttemptHeartbeat,
    CancelRequested,
    ContinuedAsNew,
    EffectReconciled,
    Fact,
    Note,
    RequestReceived,
    RunBegun,
    RunPaused,
    RunResumed,
    RunStarted,
    RunUnpaused,
    SignalIgnored,
    SignalReceived,
    TaskCompleted,
    TaskHandedOut,
    TurnSlow,
)
from engine.core.instance import Instance
from engine.errors import ArgumentsError, HistoryError, NotRecordable, StepLimitExceeded
from engine.runtime.codes import GOES_ON
from engine.runtime.gates import OPEN, Gates
from engine.runtime.letters import refusal_letter
from engine.runtime.steps import Arrival, Step, as_ignored, wanted
from engine.runtime.streams import (
    EPOCH_START,
    QUEUED,
    SLOW,
    STATUS,
    SUSPENDED_FOR,
    VERSION,
    WAITS,
    new_event,
    suspension,
)
from engine.runtime.watchdog import SlowTurn, TurnWatch
from eventstore import Clock

__all__ = ["Turns"]

# Making a union of types at each event would take longer than the question.
_HOLDING: Final = (RunPaused, RunUnpaused)
_RETRIED: Final = (AttemptFailed, EffectReconciled)
_OF_ATTEMPTS: Final = (AttemptFailed, AttemptHeartbeat, EffectReconciled, TaskHandedOut)
_BEGINNINGS: Final = (RunStarted, RunBegun)


class Turns:
    """Fills steps. `last_at` is the time of the last event, in microseconds: none is ever stamped before it."""

    def __init__(self, instance: Instance, *, last_at: int, clock: Clock, epoch_version: int | None = None) -> None:
        self._instance = instance
        self._clock = clock
        self._epoch_version = epoch_version  # of the beginning of an epoch that the stream does not know of yet
        self.last_at = last_at
        self.gates = OPEN  # of the run, as they stand in the step that is being decided
        self.aside = False  # its workflow is paused

    def stamp(self, earliest: int = 0) -> int:
        """Now, and never before `earliest` or what was stamped before."""
        now = self._clock.now()
        if now < self.last_at or now < earliest:
            now = max(self.last_at, earliest)
        self.last_at = now
        return now

    def stamped(self, item: Decided) -> Decided:
        """A decision that is written now."""
        return Decided(structs.replace(item.event, at=self.stamp()), item.payload)

    def take(self, step: Step, arrival: Arrival) -> bool:
        """One turn: the fact, and directly behind it what the workflow decided.

        False when it was not taken: a signal that reaches a run which has ended in this very step. Its sender was told
        that it arrived, so the end must be decided anew, behind it.
        """
        event = arrival.event
        if isinstance(event, SignalReceived) and _has_ended(self._instance):
            return False
        if isinstance(event, RequestReceived) and not event.carried and not self._admit(step, arrival, event):
            return True
        if isinstance(event, RunBegun) and (self.gates or self.aside):
            return True  # it was paused just then: when it may go on it is found due again
        step.taken.append(arrival)
        if arrival.granted is not None:
            self._admit_to_key(step, arrival.granted[0])
        event = self._recordable(arrival)
        if event is not None:
            event = _stamped(event, self.stamp(event.at))
            step.events.append(new_event(event, arrival.payload))
            if arrival.attributes is not None:
                step.give_attributes(arrival.attributes, at=event.at)
        self._answer(step, arrival)
        if isinstance(event, Fact):
            step.progress, ended_before = True, step.ended is not None
            self._deliver(step, event, arrival.payload)
            # Mail has an order: what comes behind a message that ends the run comes behind the end.
            if step.ended is not None and not ended_before:
                step.may_be_decided_anew = arrival.message is None
        elif isinstance(event, Note):
            self._hold(step, event)
        return True

    def _recordable(self, arrival: Arrival) -> Fact | Note | None:
        """What is recorded of it: all of it, what is left for nobody waits for it, or nothing."""
        event, instance = arrival.event, self._instance
        if type(event) is TaskCompleted and event.id in instance.pending:  # nearly all there are
            return event
        if isinstance(event, Fact) and not wanted(event, instance):
            return as_ignored(arrival, epoch=instance.epoch)
        if isinstance(event, _HOLDING) and instance.over:
            return None  # nothing is left to be held
        if isinstance(event, _OF_ATTEMPTS) and (instance.outcome is not None or event.id not in instance.pending):
            return as_ignored(arrival, epoch=instance.epoch)  # since it came: in an earlier turn of this very step
        return event

    def _admit_to_key(self, step: Step, pool: str) -> None:
        """A permit was granted: if it is the key that the run is queued for, it may begin."""
        if pool == self.gates.queued and self._instance.outcome is None:
            self._leave_queue(step)

    def _leave_queue(self, step: Step) -> None:
        self.gates = Gates(self.gates.paused)
        step.mark(QUEUED, None)
        self._mark_gates(step)

    def tell(self, step: Step, fact: Fact, payload: bytes) -> None:
        """A turn whose fact is recorded already, with nothing behind it: the step begins with its decisions.

        What ends the run in it is not decided anew for mail that came later: the fact stands before that.
        """
        step.told = True
        self._deliver(step, fact, payload)

    def mark_epoch(self, step: Step) -> None:
        """From where the run is to be replayed: an epoch's beginning, once all that it carries on stands behind it."""
        if self._epoch_version is not None and not self._instance.untold:
            step.attributes[EPOCH_START], self._epoch_version = self._epoch_version, None
            started = self._instance.started
            assert started is not None
            step.attributes[VERSION] = started.version or None

    def take_late(self, step: Step, arrival: Arrival, *, at: int) -> None:
        """Mail to a run whose end is decided, and about to be written.

        Signals are noted, and outcomes that were to be notes anyway; the rest leaves no trace.
        """
        event = arrival.event
        if isinstance(event, SignalReceived):
            note = SignalIgnored(at=at, id=event.id, name=event.name, by=event.by, reason=event.reason)
            step.events.append(new_event(note, arrival.payload))
        elif isinstance(event, Note):
            step.events.append(new_event(structs.replace(event, at=at), arrival.payload))
        self._answer(step, arrival)

    def _admit(self, step: Step, arrival: Arrival, event: RequestReceived) -> bool:
        """Whether the workflow takes this request; one that it refuses leaves no trace in the history."""
        if self._instance.outcome is not None:
            self._answer(step, arrival)  # whoever sent it finds that the run has ended
            return False
        verdict = self._instance.inbox.refusal(event.name, arrival.payload)
        if verdict is None:
            return True
        if verdict == "later":
            step.later += (arrival,)
            return False
        letter = refusal_letter(self._instance.run_id, event.id, verdict)
        self._answer(step, structs.replace(arrival, reply=letter))
        return False

    def _answer(self, step: Step, arrival: Arrival) -> None:
        if arrival.message is not None:
            step.consume(arrival.message)
        if arrival.reply is not None:
            step.send(arrival.reply)

    def _deliver(self, step: Step, fact: Fact, payload: bytes | None) -> None:
        instance = self._instance
        if isinstance(fact, _BEGINNINGS):
            self._mark_beginning(step, fact)
        elif isinstance(fact, CancelRequested) and self.gates.queued:
            self._leave_queue(step)  # it ends without having begun; should we not get to write that, somebody is to
        watch = instance.around if isinstance(instance.around, TurnWatch) else None
        if watch is not None:
            watch.slow = None  # of a replay: nobody was kept waiting by that who is not told elsewhere
        try:
            decided = instance.deliver(fact, payload)
            if self._epoch_version is not None:
                self.mark_epoch(step)
            assert instance.started is not None
            step.add(decided, instance.started, instance.run_id)
            if watch is not None and watch.slow is not None:
                self._note_slow(step, watch, watch.slow)
        except StepLimitExceeded as error:
            self._suspend(step, "spinning", error)
        except (ArgumentsError, NotRecordable) as error:
            self._suspend(step, "values", error)
        except HistoryError as error:
            self._suspend(step, "delivery", error)
        except Exception as error:
            self._suspend(step, "internal", error)  # ours, or the user's in a place we call

    def _mark_beginning(self, step: Step, fact: RunStarted | RunBegun) -> None:
        """What the beginning of a run, or of an epoch, says of its stream."""
        if isinstance(fact, RunBegun):
            step.mark(WAITS, None)
            step.mark(STATUS, "running")
            return
        if not step.base:
            step.began_at = fact.at
            if fact.version:
                step.mark(VERSION, fact.version)
        if fact.epoch:
            self._epoch_version = step.base + len(step.events)

    def _hold(self, step: Step, note: Note) -> None:
        """What a note changes about whether the run goes on."""
        if isinstance(note, RunPaused | RunUnpaused):
            self.gates = Gates(isinstance(note, RunPaused), self.gates.queued)
        elif isinstance(note, RunResumed):
            step.attributes |= GOES_ON  # a person has looked at it
        else:
            return
        self._mark_gates(step)

    def _mark_gates(self, step: Step) -> None:
        step.hold(bool(self.gates), self.gates.status(waiting=self._instance.waiting is not None))

    def _note_slow(self, step: Step, watch: TurnWatch, slow: SlowTurn) -> None:
        """Put down that the turn kept other runs waiting, for whoever asks why."""
        step.events.append(new_event(TurnSlow(at=self.stamp(), took=slow.took, site=slow.site)))
        watch.slowest = max(watch.slowest, slow.took)
        step.attributes[SLOW] = watch.slowest

    def _suspend(self, step: Step, reason: Reason, error: Exception) -> None:
        """The turn did not end well: the fact stands in the log, and waits there for code that can take it."""
        diagnosis = Diagnosis(reason=reason, message=str(error), version=step.base + len(step.events))
        step.events.append(suspension(diagnosis, at=self.stamp()))
        step.suspended = step.release = step.held = True
        step.alarm = None
        step.attributes[STATUS] = "suspended"
        step.attributes[SUSPENDED_FOR] = reason


def _has_ended(instance: Instance) -> bool:
    return instance.outcome is not None and not isinstance(instance.outcome, ContinuedAsNew)


def _stamped(event: Fact | Note, at: int) -> Fact | Note:
    if isinstance(event, _RETRIED) and event.retry_at:
        return structs.replace(event, at=at, retry_at=max(at, event.retry_at))
    return structs.replace(event, at=at)
