"""The task board of one run: which of its tasks are looked up, wait for a retry, for a slot, for a token, or are tried.

Every pending task of a run that is in memory stands in exactly one of these places, or is about to be written. The
board decides nothing about the workflow; it keeps attempts moving. It is the board of one epoch: what ended attempts
of an earlier one say is said to a board that is closed, and nobody hears it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final, Protocol

from engine.core.events import (
    AttemptFailed,
    AttemptHeartbeat,
    EffectReconciled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
)
from engine.core.failures import describe
from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.executors import Executor
from engine.runtime.alarms import Alarm
from engine.runtime.attempts import Failed, Outcome, Withheld
from engine.runtime.dispatch import Running
from engine.runtime.flow import Flow
from engine.runtime.intake import Intake
from engine.runtime.keys import is_singleton
from engine.runtime.limiting import timed_out
from engine.runtime.memos import Lookups
from engine.runtime.outcomes import heartbeat
from engine.runtime.own_sql import OwnSql
from engine.runtime.pen import Pen
from engine.runtime.reconciling import interrupted, is_cut_off, must_ask
from engine.runtime.site import Site
from engine.runtime.starts import Starts
from engine.runtime.steps import Arrival, Step, task_cancelled

__all__ = ["Board", "BoardOwner", "asked_to_end", "come_back", "heed", "take_up_all"]

# Making a union of types at each event would take longer than the question.
_OUTCOMES: Final = (TaskCompleted, TaskFailed)
_NOTES: Final = (AttemptFailed, AttemptHeartbeat, EffectReconciled, TaskHandedOut)


class BoardOwner(Protocol):
    """A driver, as its board knows it."""

    instance: Instance
    site: Site
    intake: Intake
    flow: Flow
    own_sql: OwnSql
    pen: Pen

    def broke(self, error: Exception) -> None:
        """The run is not to go on here."""

    def kick(self) -> None:
        """A granted slot waits to be used, or something has arrived."""

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None, /) -> None:
        """An attempt has ended, or a task that was handed out was not completed by its deadline."""


class Board:
    """Attempts of one run: of its owner's instance, as it is now."""

    def __init__(self, owner: BoardOwner, attempts: dict[str, Attempts]) -> None:
        site = owner.site
        self.run_id = owner.instance.run_id
        self.attempts = attempts
        self.running: dict[str, Running] = {}
        self._owner = owner
        self._instance = owner.instance
        self._dispatcher = site.dispatcher
        self._alarms = site.alarms
        self._clock = site.clock
        self.lookups = Lookups(site.memos, self.run_id, missed=self._due, ended=self.attempt_ended)
        self.starts = Starts(self, owner.instance, site.dispatcher, owner.flow)
        self._retries: dict[str, Alarm] = {}
        self._deadlines: dict[str, Alarm] = {}  # of those handed out, or waiting for a limit, that have one
        self.to_be_asked: set[str] = set()  # of which a step that is being written says that they are to end
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nothing is tried, looked up, or waits for a slot, or is about to. An attempt that was asked to end is
        tried until it has.
        """
        return not (self.running or self.lookups or self.to_be_asked) and self.starts.idle

    def next_due(self) -> int | None:
        """Microseconds at which the earliest retry, deadline of a task that nobody tries, or start of a rate is due."""
        waits = (*self._retries.values(), *self._deadlines.values())
        dues = (*(alarm.at for alarm in waits), self._owner.flow.next_due())
        return min((due for due in dues if due is not None), default=None)

    def take_up(self, task_id: str) -> None:
        """See to it that a pending task gets its next attempt: when its wait is over, and a slot is free."""
        attempts, pending = self.attempts.setdefault(task_id, Attempts()), self._instance.pending[task_id]
        kept = self.lookups.plan(pending)
        if attempts.handed_out:
            self.hand_out(task_id)
        elif attempts.retry_at > self._clock.now() and not pending.asked_to_end:
            self._retries[task_id] = self._alarms.at(attempts.retry_at, lambda: self._due(task_id))
        elif is_cut_off(pending, attempts):
            definition: Any = pending.definition
            error = interrupted(definition, attempts.started)
            self._owner.attempt_ended(task_id, attempts.started, Failed(describe(error)))
        elif kept and not attempts.started:
            self.lookups.begin(task_id)
        else:
            self.starts.enqueue(task_id)

    def asks(self, task_id: str) -> bool:
        """Whether the outside is to be asked what became of the task, before anything else is said of it."""
        pending, attempts = self._instance.pending.get(task_id), self.attempts.get(task_id)
        return pending is not None and attempts is not None and must_ask(pending, attempts)

    def hand_out(self, task_id: str) -> None:
        """The task waits for whoever has its token, at most until its deadline."""
        self.attempts.setdefault(task_id, Attempts()).handed_out = True
        self.waits(task_id)

    def waits(self, task_id: str) -> None:
        """The task waits, perhaps for long: at most until its deadline."""
        pending = self._instance.pending.get(task_id)
        definition: Any = None if pending is None else pending.definition
        if pending is not None and definition.policy.deadline is not None and task_id not in self._deadlines:
            at = pending.scheduled_at + round(definition.policy.deadline * 1_000_000)
            self._deadlines[task_id] = self._alarms.at(at, lambda: self._deadline_passed(task_id))

    def postpone(self, task_id: str, until: int) -> None:
        """See `starts.StartsOwner`."""
        if task_id not in self._retries:
            self._retries[task_id] = self._alarms.at(until, lambda: self._due(task_id))
        self.waits(task_id)

    def cannot_start(self, task_id: str, error: Exception) -> None:
        """See `starts.StartsOwner`."""
        self._owner.attempt_ended(task_id, self.attempts[task_id].started, Failed(describe(error)))

    def noted(
        self,
        note: AttemptFailed | AttemptHeartbeat | EffectReconciled | TaskHandedOut,
        payload: bytes | None,
        *,
        at: int,
    ) -> None:
        """It is recorded that an attempt failed and another follows, that it left its task to its token's holder, or
        how far it is.

        Not before: an attempt that began ahead of the note of the one before it would be mistaken for that at a replay.
        """
        pending = self._instance.pending.get(note.id)
        if pending is None:
            return
        if not isinstance(note, TaskHandedOut):
            self.attempts.setdefault(note.id, Attempts()).noted(note, payload, at=at)
        if pending.asked_to_end or isinstance(note, AttemptHeartbeat):
            return  # one that is to end, maybe since this very step, is not tried again: what is known of it counts
        self.forget_wait(note.id)  # of the same note, in a step that was not written
        if isinstance(note, TaskHandedOut):
            self.hand_out(note.id)
        else:
            self.take_up(note.id)

    def attempt_beat(self, task_id: str, number: int, details: bytes | None) -> None:
        """See `dispatch.Asker`."""
        if not self._closed:
            self._owner.intake.add(heartbeat(task_id, number, details))
            self._owner.kick()

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        """See `dispatch.Asker`."""
        self.running.pop(task_id, None)
        self.starts.ended(task_id)
        if outcome is None and not self._closed and self.asks(task_id) and not self._dispatcher.stopped:
            self.starts.enqueue(task_id)  # it was cut off as it was asked to; the outside knows how far it had come
        elif isinstance(outcome, Withheld) and not self._closed:
            self._owner.broke(self._owner.pen.too_late())
        elif not self._closed:
            self._owner.attempt_ended(task_id, number, outcome)

    def granted(self, task_id: str, executor: Executor) -> None:
        """A slot was given for this task; it may no longer want it."""
        asking = self.asks(task_id)
        if not self.starts.accept(task_id, executor, asking=asking):
            return
        if asking:
            self._launch(self._instance.pending[task_id], executor, asking=True)
        else:
            self._owner.kick()

    def launch(self, step: Step) -> None:
        """The step is durable: its attempts begin, and what may be known already is looked up."""
        for pending, executor in step.starting:
            if self._deadlines and (alarm := self._deadlines.pop(pending.id, None)) is not None:
                alarm.cancel()  # the attempt knows it, too
            self._launch(pending, executor)
        self.starts.written(step)
        self.lookups.written(self._instance)

    def _launch(self, pending: PendingTask, executor: Executor, *, asking: bool = False) -> None:
        self.running[pending.id] = self._dispatcher.launch(
            self,
            pending,
            self.attempts[pending.id],
            executor,
            instance=self._instance,
            asking=asking,
            transact=self._owner.own_sql.add,
            may_begin=self._owner.pen.lease.fresh,  # the process may have stood still since the step was durable
        )

    def call_off(self, task_id: str) -> None:
        """The workflow no longer wants this task: its waits are over, its attempt is asked to end."""
        self.to_be_asked.discard(task_id)
        if (running := self.running.get(task_id)) is not None:
            running.cancel()
        self.forget_wait(task_id)
        if running is None:
            self.starts.ended(task_id)
        if task_id not in self._instance.pending:
            self.attempts.pop(task_id, None)
            self.lookups.drop(task_id)
        elif running is None and not self._closed and self.asks(task_id):
            self.starts.enqueue(task_id)

    def settled(self, task_id: str) -> None:
        """The task has its outcome, and nothing of it runs.

        Its permits go back with the next step, as those of any attempt whose end is written: the next task of the run
        may want the same.
        """
        self.forget_wait(task_id)
        self.starts.ended(task_id)

    def forget_wait(self, task_id: str) -> None:
        """It waits no more: neither for its time nor for a slot."""
        if self._retries or self._deadlines:
            for waits in (self._retries, self._deadlines):
                if (alarm := waits.pop(task_id, None)) is not None:
                    alarm.cancel()
        self.starts.leave_queue(task_id)
        self.lookups.call_off(task_id)

    def forget_waits(self) -> None:
        """Nothing of this run begins here any more; what runs goes on."""
        for waits in (self._retries, self._deadlines):
            for alarm in waits.values():
                alarm.cancel()
            waits.clear()
        self.starts.clear_queue()
        self.lookups.call_off_all()

    def stand_down(self) -> None:
        """Nothing begins for now; slots that were granted, and permits that no attempt has, are given back."""
        self.forget_waits()
        self.starts.stand_down()

    def rebuilt(self, instance: Instance, attempts: dict[str, Attempts]) -> None:
        """The run was rebuilt from its history as it stood before a step that was not written; what runs goes on."""
        self._instance = self.starts.instance = instance
        self.attempts = attempts
        self.to_be_asked.clear()
        for task_id in instance.pending:  # of one that has not begun, but may be in a queue, a history says nothing
            attempts.setdefault(task_id, Attempts())
        for line in self._owner.flow.lines:
            if line.state == "called":
                self.starts.call(line)  # while that step was written it seemed to be called off

    def close(self) -> None:
        """The run leaves memory: its attempts are asked to end, its slots are given back."""
        self._closed = True
        self.stand_down()
        for running in list(self.running.values()):
            running.cancel()

    def let_go(self) -> None:
        """It is closed, and no step is taken any more: forget whose it is. Attempts may still end."""
        del self._owner, self.starts.owner
        self.lookups.let_go()

    def _due(self, task_id: str) -> None:
        """Its wait is over, or its result is not there already: it is to be tried."""
        self._retries.pop(task_id, None)
        if task_id in self._instance.pending and not self._closed:
            self.starts.enqueue(task_id)

    def _deadline_passed(self, task_id: str) -> None:
        self._deadlines.pop(task_id, None)
        if task_id in self.starts.beginning:
            return  # the attempt will find out, or, if it does not begin after all, whoever lets it wait again
        if task_id in self._instance.pending and not self._closed:
            error = timed_out(self._instance.pending[task_id].definition, whole=True)  # type: ignore[arg-type]
            self._owner.attempt_ended(task_id, self.attempts[task_id].started, Failed(describe(error)))


def heed(board: Board, instance: Instance, step: Step, arrival: Arrival, *, at: int) -> None:
    """A step has taken this, at a time in microseconds: what it says of a task."""
    event = arrival.event
    if isinstance(event, _OUTCOMES) and event.id not in instance.pending:
        board.attempts.pop(event.id, None)
        if event.id in board.running:
            step.call_off(event.id)  # somebody else has ended it, by its token
        else:
            board.settled(event.id)
    elif isinstance(event, _NOTES):
        board.noted(event, arrival.payload, at=at)
    elif arrival.granted is not None and not is_singleton(arrival.granted[0]):
        board.starts.permit_granted(*arrival.granted)


def take_up_all(board: Board, instance: Instance, intake: Intake) -> None:
    """Take up every pending task that is not being tried, afresh: the run goes on.

    One whose `TaskStarted` is being written is as good as tried, and one whose attempt has just ended is heard of.
    """
    board.forget_waits()
    busy = board.running.keys() | board.starts.beginning | intake.ended_attempts()
    for task_id, pending in instance.pending.items():
        if task_id not in busy and (not pending.asked_to_end or board.asks(task_id)):
            board.take_up(task_id)


def come_back(board: Board, instance: Instance, intake: Intake, missing: Container[str]) -> None:
    """Take up what is pending in a run that comes back: what its history misses, only when that is written."""
    for task_id, pending in instance.pending.items():
        if pending.asked_to_end and not board.asks(task_id):
            intake.add(task_cancelled(task_id, 0))  # its attempt died with its worker, as it was asked to
        elif task_id not in missing:
            board.take_up(task_id)


def asked_to_end(board: Board, instance: Instance, intake: Intake, step: Step) -> None:
    """What the step cancels is awaited to its end: that has come where nothing of it runs, and nobody is asked."""
    for task_id in step.cancelled:
        if task_id not in instance.pending or task_id in board.running:
            continue
        if board.asks(task_id):
            board.to_be_asked.add(task_id)  # once that is written: see `call_off`
        else:
            intake.add(task_cancelled(task_id, 0))
