"""Drives one run that is in memory: gives it what arrived, commits what it decided, then acts on it.

One commit of a run is in flight at a time; facts queue meanwhile and are delivered one after the other in the next
step. Whatever goes wrong, the instance is discarded and later rebuilt from the log: this file never repairs.

The order inside a step is the promise of the project: decide (pure), write (durable), act (attempts begin, waiters are
told). Nothing acts on the outside before the record of the decision is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from msgspec import UNSET, Struct, UnsetType, field

from engine.core.compare import Diagnosis, Reason
from engine.core.events import (
    AttemptFailed,
    AttemptOutcomeIgnored,
    CancelRequested,
    Fact,
    RunResumed,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerFired,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.instance import Decided, Instance, PendingTask
from engine.core.replay import Attempts
from engine.errors import ArgumentsError, HistoryError, NotRecordable, StepLimitExceeded
from engine.executors import Executor
from engine.runtime.alarms import Alarm, Alarms
from engine.runtime.attempts import Completed, Failed, Outcome, Retried
from engine.runtime.dispatch import Dispatcher, Running
from engine.runtime.mail import CancelMail, ResumeMail, mail_or_none
from engine.runtime.streams import STATUS, WORKFLOW, new_event, status_of, stream_of, suspension
from engine.runtime.watches import Watches
from eventstore import Clock, Commit, EventStore, EventStoreError, Lease, NewEvent, StreamHead
from eventstore.errors import LeaseLost, VersionConflict
from eventstore.port import COMMIT_EVENTS_MAX

__all__ = ["IDLE_RELEASE_SECONDS", "STEP_FACTS_MAX", "Driver", "Site"]

STEP_FACTS_MAX: Final = 500
"""Facts that one step delivers before it commits: bounds the size of a commit and the wait of the first fact in it."""
IDLE_RELEASE_SECONDS: Final = 1.0
"""A run that has nothing to do for longer than this is given up, and claimed again when its time has come."""


class Site(Protocol):
    """What a driver needs of the worker that it lives in."""

    store: EventStore
    lease: Lease
    clock: Clock
    alarms: Alarms
    dispatcher: Dispatcher
    watches: Watches
    stopping: bool

    def spawn(self, coro: Coroutine[Any, Any, None], /) -> asyncio.Task[None]: ...
    def next_commit_id(self) -> str: ...
    async def until_fresh(self) -> None: ...
    def left(self, driver: Driver) -> None: ...
    def parked(self, driver: Driver) -> None: ...
    def failed(self, error: BaseException) -> None: ...


class Arrival(Struct, frozen=True):
    """A fact on its way to the instance, with the mailbox message it came by."""

    fact: Fact | None
    payload: bytes | None = None
    message: str | None = None


class Step(Struct):
    """What one step decided: written as a whole, then acted on."""

    events: list[NewEvent] = field(default_factory=list)
    consumes: list[tuple[int, str]] = field(default_factory=list)  # behind how many events of this step, which message
    cancelled: list[str] = field(default_factory=list)  # tasks whose outcome is no longer wanted
    scheduled: list[str] = field(default_factory=list)
    starting: list[tuple[PendingTask, Executor]] = field(default_factory=list)
    progress: bool = False
    suspended: bool = False
    release: bool = False
    alarm: int | None | UnsetType = UNSET
    resumed: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    ended: Decided | None = None
    diagnosis: bytes | None = None


class Driver:
    """One resident run. Made by the worker, for a new run (`begin`) or a rebuilt one (`go_on`)."""

    def __init__(
        self, site: Site, instance: Instance, *, version: int, last_at: int, attempts: dict[str, Attempts]
    ) -> None:
        self.site = site
        self.instance = instance
        self.run_id = instance.run_id
        self.stream = stream_of(instance.run_id)
        self.version = version
        self.last_at = last_at
        self.attempts = attempts
        self.running: dict[str, Running] = {}
        self.first_commit: Callable[[BaseException | None], None] | None = (
            None  # told once, of a new run's first commit
        )
        self.reclaimed: StreamHead | None = None  # claimed again while it was being given up
        self.releasing = False
        self.discarded = False
        self._arrivals: deque[Arrival] = deque()
        self._notes: list[NewEvent] = []
        self._granted: deque[tuple[str, Executor]] = deque()
        self._queued: set[str] = set()
        self._retries: dict[str, Alarm] = {}
        self._backlog: list[Decided] = []
        self._resumption: NewEvent | None = None
        self._consuming: set[str] = set()
        self._timer: Alarm | None = None
        self._alarm: int | None = None  # as it stands in the store
        self._pumping = False
        self._ended = False

    # -- beginnings ---------------------------------------------------------------------------------------------------

    def begin(self, fact: RunStarted, arguments: bytes) -> None:
        """A new run: its first step creates the stream."""
        self._arrivals.append(Arrival(fact, arguments))
        self._kick()

    def go_on(self, head: StreamHead, backlog: list[Decided], *, resumed_by: str | None = None) -> None:
        """A rebuilt run: append what its last turn decided and the log lacks, and take up every open end."""
        self._alarm = head.alarm
        self._backlog = backlog
        if resumed_by is not None:
            self._resumption = new_event(RunResumed(at=self._stamp(), by=resumed_by))
        missing = {item.event.id for item in backlog}
        for id_ in self.instance.pending:
            if id_ not in missing:  # those are started when their TaskScheduled is written
                self._take_up(id_)
        self.receive(head)
        self._set_timer()
        self._kick()

    def receive(self, head: StreamHead) -> None:
        """The stream was claimed for what waits in its mailbox, or for a due alarm."""
        self._alarm = head.alarm
        for message in head.messages:
            if message.id in self._consuming or not message.control:
                continue
            self._consuming.add(message.id)
            match mail_or_none(message):
                case CancelMail(by=by, reason=reason):
                    fact = CancelRequested(at=0, by=by, reason=reason)
                    self._arrivals.append(Arrival(fact, None, message.id))
                case ResumeMail():
                    self._arrivals.append(Arrival(None, None, message.id))
                case None:
                    continue  # of a newer version: it stays in the box, and is not claimed for again while we live
        self._kick()

    @property
    def consuming(self) -> bool:
        """Whether mail of this run is being answered: it would only be claimed again for the same."""
        return bool(self._consuming)

    def discard(self) -> None:
        """Put the run out of memory; the log has all there is to know. Its attempts are asked to end."""
        self.discarded = True
        self._stop_timers()
        for running in list(self.running.values()):
            running.cancel()
        while self._granted:
            self._granted.popleft()[1].slots.give_back()
        self.instance.evict()

    # -- what arrives -------------------------------------------------------------------------------------------------

    def granted(self, task_id: str, executor: Executor) -> None:
        """See `dispatch.Asker`."""
        if self.discarded or self._ended or task_id not in self._queued:
            executor.slots.give_back()
            return
        self._granted.append((task_id, executor))
        self._kick()

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        """See `dispatch.Asker`."""
        self.running.pop(task_id, None)
        if self.discarded:
            return
        match outcome:
            case Completed(payload=payload):
                self._arrivals.append(Arrival(TaskCompleted(at=0, id=task_id, attempt=number), payload))
            case Failed(error=error):
                self._arrivals.append(Arrival(_task_failed(task_id, number, error), encode_error(error)))
            case Retried():
                self._retry(task_id, number, outcome)
            case None:
                self._cut_off(task_id, number)
        self._kick()

    def _retry(self, task_id: str, number: int, outcome: Retried) -> None:
        attempts = self.attempts.get(task_id)
        if attempts is None or task_id not in self.instance.pending:
            self._notes.append(_ignored(task_id, number, "failed", self._stamp(), encode_error(outcome.error)))
            return
        at = self._stamp()
        attempts.failed += 1
        attempts.retry_at = outcome.retry_at
        attempts.slept += max(0, outcome.retry_at - at)
        note = AttemptFailed(at=at, id=task_id, attempt=number, error=outcome.error.type, retry_at=outcome.retry_at)
        self._notes.append(new_event(note, encode_error(outcome.error)))
        self._take_up(task_id)

    def _cut_off(self, task_id: str, number: int) -> None:
        """An attempt that was asked to end has ended."""
        if self.site.stopping:
            return  # it counts as never ended: whoever has the run next begins another
        pending = self.instance.pending.get(task_id)
        if pending is not None and pending.cancelled:
            error = ErrorInfo(type="asyncio.exceptions.CancelledError", message="the attempt was cancelled")
            self._arrivals.append(Arrival(_task_failed(task_id, number, error), encode_error(error)))
        else:
            self._notes.append(_ignored(task_id, number, "cancelled", self._stamp(), None))

    def _take_up(self, task_id: str) -> None:
        """See to it that a pending task gets its next attempt: when its wait is over, and a slot is free."""
        attempts = self.attempts.setdefault(task_id, Attempts())
        if attempts.retry_at > self.site.clock.now():
            self._retries[task_id] = self.site.alarms.at(attempts.retry_at, lambda: self._retry_due(task_id))
        else:
            self._enqueue(task_id)

    def _retry_due(self, task_id: str) -> None:
        self._retries.pop(task_id, None)
        if task_id in self.instance.pending and not self.discarded:
            self._enqueue(task_id)

    def _enqueue(self, task_id: str) -> None:
        definition: Any = self.instance.pending[task_id].definition
        self._queued.add(task_id)
        self.site.dispatcher.enqueue(self, task_id, self.site.dispatcher.executor_for(definition))

    def _timers_due(self) -> None:
        self._timer = None
        now = self.site.clock.now()
        due = [(timer.deadline, id_) for id_, timer in self.instance.timers.items() if timer.deadline <= now]
        for deadline, id_ in sorted(due, key=lambda item: item[0]):
            self._arrivals.append(Arrival(TimerFired(at=deadline, id=id_)))
        if due:
            self._kick()
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        """One alarm, for the earliest of the run's durable timers."""
        soonest = min((timer.deadline for timer in self.instance.timers.values()), default=None)
        if self._timer is not None:
            if self._timer.at == soonest:
                return
            self._timer.cancel()
        self._timer = None if soonest is None else self.site.alarms.at(soonest, self._timers_due)

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for alarm in self._retries.values():
            alarm.cancel()
        self._retries.clear()
        self._queued.clear()

    # -- the pump -----------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        if not self._pumping and not self.discarded:
            self._pumping = True
            self.site.spawn(self._pump())

    async def _pump(self) -> None:
        try:
            while not self.discarded and self._has_work():
                step = self._decide()
                await self._write(step)
                if step.starting and not self.site.lease.fresh():
                    # A pause longer than the lease: others may have taken over. Ask the store before anything begins.
                    await self.site.until_fresh()
                    await self._commit(Step(), [], last=True)
                self._act(step)
        except (LeaseLost, VersionConflict) as error:
            self._report(error)
            self.site.left(self)
        except EventStoreError as error:
            self._report(error)
            self.site.failed(error)
        except Exception as error:
            # A bug of ours, never of the workflow: stop loudly, everything recorded is intact.
            self._report(error)
            self.site.failed(error)
        finally:
            self._pumping = False
        if not self.discarded and self._ended and not self.running:
            self.site.left(self)

    def _report(self, error: BaseException | None) -> None:
        if self.first_commit is not None:
            told, self.first_commit = self.first_commit, None
            told(error)

    def _has_work(self) -> bool:
        if self._arrivals or self._notes or self._granted or self._backlog or self._resumption:
            return True
        return not self._ended and not self.site.stopping and (self._alarm is not None or self._may_release())

    # -- decide -------------------------------------------------------------------------------------------------------

    def _stamp(self, earliest: int = 0) -> int:
        """Now, and never before what was stamped before it."""
        self.last_at = max(self.site.clock.now(), self.last_at, earliest)
        return self.last_at

    def _decide(self) -> Step:
        step = Step()
        if self._resumption is not None:
            step.events.append(self._resumption)
            step.attributes[STATUS] = "running"
            step.resumed, self._resumption = True, None
        self._decided(step, self._backlog)
        self._backlog = []
        for _ in range(min(len(self._arrivals), STEP_FACTS_MAX)):
            if step.suspended:
                break
            self._deliver(step, self._arrivals.popleft())
        step.events += self._notes
        self._notes = []
        if not step.suspended and self.instance.outcome is None:
            self._choose_starts(step)
            self._choose_rest(step)
        return step

    def _deliver(self, step: Step, arrival: Arrival) -> None:
        fact = arrival.fact
        wanted = fact is not None and self.instance.outcome is None and self._wanted(fact)
        if fact is None or not wanted:
            self._ignore(step, arrival)
        else:
            fact = _stamped(fact, self._stamp(fact.at))
            step.events.append(new_event(fact, arrival.payload))
            step.progress = True
        if arrival.message is not None:
            step.consumes.append((len(step.events), arrival.message))
        if fact is not None and wanted:
            if isinstance(fact, TaskCompleted | TaskFailed):
                self.attempts.pop(fact.id, None)
            try:
                self._decided(step, self.instance.deliver(fact, arrival.payload))
            except StepLimitExceeded as error:
                self._suspend(step, "spinning", error)
            except (ArgumentsError, NotRecordable) as error:
                self._suspend(step, "values", error)
            except HistoryError as error:
                self._suspend(step, "delivery", error)

    def _wanted(self, fact: Fact) -> bool:
        match fact:
            case TaskCompleted(id=id_) | TaskFailed(id=id_):
                return id_ in self.instance.pending
            case TimerFired(id=id_):
                return id_ in self.instance.timers
            case _:
                return True

    def _ignore(self, step: Step, arrival: Arrival) -> None:
        """A fact for a cancelled or finished id becomes a note, never delivered."""
        match arrival.fact:
            case TaskCompleted(id=id_, attempt=number):
                step.events.append(_ignored(id_, number, "completed", self._stamp(), arrival.payload))
            case TaskFailed(id=id_, attempt=number):
                step.events.append(_ignored(id_, number, "failed", self._stamp(), arrival.payload))
            case _:
                return

    def _decided(self, step: Step, decided: list[Decided]) -> None:
        for item in decided:
            event = item.event
            step.events.append(new_event(event, item.payload))
            if isinstance(event, TaskScheduled):
                step.scheduled.append(event.id)
            elif isinstance(event, TaskCancelled):
                step.cancelled.append(event.id)
            elif (status := status_of(event)) is not None:
                step.ended = item
                step.attributes[STATUS] = status

    def _suspend(self, step: Step, reason: Reason, error: Exception) -> None:
        diagnosis = Diagnosis(reason=reason, message=str(error), version=self.version + len(step.events))
        note = suspension(diagnosis, at=self._stamp())
        step.events.append(note)
        step.diagnosis = note.payload
        step.suspended = step.release = True
        step.alarm = None
        step.attributes[STATUS] = "suspended"

    def _choose_starts(self, step: Step) -> None:
        """Give what holds a slot its `TaskStarted`, and ask for slots for what was scheduled in this step."""
        dispatcher, pending = self.site.dispatcher, self.instance.pending
        while self._granted:
            id_, executor = self._granted.popleft()
            if id_ in self._queued and id_ in pending:
                self._queued.discard(id_)
                self._start(step, pending[id_], executor)
            else:
                executor.slots.give_back()
        for id_ in step.scheduled:
            task = pending.get(id_)
            if task is None:
                continue
            self.attempts[id_] = Attempts()
            definition: Any = task.definition
            executor = dispatcher.executor_for(definition)
            if dispatcher.try_take(executor):
                self._start(step, task, executor)
            else:
                self._enqueue(id_)

    def _start(self, step: Step, pending: PendingTask, executor: Executor) -> None:
        attempts = self.attempts[pending.id]
        attempts.started += 1
        at = self._stamp()
        if not attempts.first_started_at:
            attempts.first_started_at = at
        note = TaskStarted(
            at=at, id=pending.id, attempt=attempts.started, worker=self.site.lease.worker, executor=executor.name
        )
        step.events.append(new_event(note))
        step.starting.append((pending, executor))

    def _choose_rest(self, step: Step) -> None:
        """Whether the run has nothing to do for a while, and when somebody must look at it again."""
        if not self._arrivals and not step.starting and self._may_release(step.cancelled):
            step.release = True
            step.alarm = self._next_due()
        elif self._alarm is not None:
            step.alarm = None  # while it is in memory we keep its time ourselves

    def _may_release(self, cancelled: list[str] | tuple[()] = ()) -> bool:
        if self.site.stopping or self._queued or any(id_ not in cancelled for id_ in self.running):
            return False
        due = self._next_due()
        return due is None or due - self.site.clock.now() > IDLE_RELEASE_SECONDS * 1_000_000

    def _next_due(self) -> int | None:
        deadlines = [timer.deadline for timer in self.instance.timers.values()]
        deadlines += [self.attempts[id_].retry_at for id_ in self._retries if id_ in self.attempts]
        return min(deadlines, default=None)

    # -- write --------------------------------------------------------------------------------------------------------

    async def _write(self, step: Step) -> None:
        """Commit the step; a large one in chunks, each with the messages that its events answer."""
        events, at = step.events, 0
        while len(events) - at > COMMIT_EVENTS_MAX:
            await self._commit(step, events[at : at + COMMIT_EVENTS_MAX], at=at, last=False)
            at += COMMIT_EVENTS_MAX
        self.releasing = step.release
        await self._commit(step, events[at:], at=at, last=True)
        for _, message in step.consumes:
            self._consuming.discard(message)

    async def _commit(self, step: Step, events: list[NewEvent], *, at: int = 0, last: bool) -> None:
        until = at + len(events)
        attributes: dict[str, Any] = dict(step.attributes) if last else {}
        if self.version < 0:
            attributes = {WORKFLOW: self.instance.definition.name, STATUS: "running", **attributes}
        await self.site.store.commit(
            Commit(
                id=self.site.next_commit_id(),
                stream=self.stream,
                expected_version=self.version,
                events=tuple(events),
                consumes=tuple(
                    id_ for index, id_ in step.consumes if (at < index or at == 0) and (index <= until or last)
                ),
                alarm=step.alarm if last else UNSET,
                held=step.suspended if last and (step.suspended or step.resumed) else UNSET,
                closed=True if step.ended is not None and last else UNSET,
                attributes=attributes or UNSET,
                lease=self.site.lease,
                release=last and (step.release or (self.instance.outcome is not None and not self.running)),
                progress=step.progress,
            )
        )
        self.version = max(self.version, 0) + len(events)
        if last and step.alarm is not UNSET:
            self._alarm = step.alarm
        self._report(None)

    # -- act ----------------------------------------------------------------------------------------------------------

    def _act(self, step: Step) -> None:
        if step.resumed:
            self._tell(None, None)
        for id_ in step.cancelled:
            self._call_off(id_)
        for pending, executor in step.starting:
            if self.discarded or self.site.stopping:
                executor.slots.give_back()
            else:
                self.running[pending.id] = self.site.dispatcher.launch(
                    self, pending, self.attempts[pending.id], executor, epoch=self.instance.epoch
                )
        if self.discarded:
            return
        if step.ended is not None:
            self._finish(step.ended)
        elif step.suspended:
            self._tell("suspended", step.diagnosis)
            self.site.left(self)
        elif step.release:
            self._rest()
        else:
            self._set_timer()
            self._ring()

    def _call_off(self, task_id: str) -> None:
        """The workflow no longer wants this task: ask its attempt to end, forget its wait for a slot or a retry."""
        if (running := self.running.get(task_id)) is not None:
            running.cancel()
        if (alarm := self._retries.pop(task_id, None)) is not None:
            alarm.cancel()
        self._queued.discard(task_id)
        if task_id not in self.instance.pending:
            self.attempts.pop(task_id, None)

    def _finish(self, ended: Decided) -> None:
        self._ended = True
        self._stop_timers()
        for running in list(self.running.values()):
            running.cancel()
        self._tell(status_of(ended.event), ended.payload)

    def _rest(self) -> None:
        """The run was given up, unless this worker has claimed it again since."""
        self.releasing = False
        if self.reclaimed is not None:
            head, self.reclaimed = self.reclaimed, None
            self._set_timer()
            self.receive(head)
            return
        self._stop_timers()
        self._ring()
        self.site.parked(self)

    def _tell(self, status: Any, payload: bytes | None) -> None:
        if (watch := self.site.watches.find(self.run_id)) is not None:
            watch.settle(status, payload)

    def _ring(self) -> None:
        if (watch := self.site.watches.find(self.run_id)) is not None:
            watch.ring()


def _stamped(fact: Fact, at: int) -> Fact:
    match fact:
        case TaskCompleted(id=id_, attempt=attempt):
            return TaskCompleted(at=at, id=id_, attempt=attempt)
        case TaskFailed(id=id_, attempt=attempt, error=error):
            return TaskFailed(at=at, id=id_, attempt=attempt, error=error)
        case TimerFired(id=id_):
            return TimerFired(at=at, id=id_)
        case CancelRequested(by=by, reason=reason):
            return CancelRequested(at=at, by=by, reason=reason)
        case _:
            return fact


def _task_failed(task_id: str, number: int, error: ErrorInfo) -> TaskFailed:
    return TaskFailed(at=0, id=task_id, error=error.type, attempt=number)


def _ignored(task_id: str, number: int, outcome: str, at: int, payload: bytes | None) -> NewEvent:
    return new_event(AttemptOutcomeIgnored(at=at, id=task_id, attempt=number, outcome=outcome), payload)
