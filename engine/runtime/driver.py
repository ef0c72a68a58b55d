"""Drives one run that is in memory: gives it what arrived, commits what it decided, then acts on it.

One commit of a run is in flight at a time; facts queue meanwhile and are delivered one after the other in the next
step. Whatever goes wrong, the instance is discarded and later rebuilt from the log: this file never repairs.

The order inside a step is the promise of the project: decide (pure), write (durable), act (attempts begin, waiters are
told). Nothing acts on the outside before the record of the decision is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, structs

from engine.core.events import (
    AttemptFailed,
    CancelRequested,
    RunResumed,
    RunStarted,
    TaskCompleted,
    TaskFailed,
)
from engine.core.failures import encode_error
from engine.core.instance import Decided, Instance
from engine.core.replay import Attempts
from engine.executors import Executor
from engine.runtime.alarms import OneAlarm
from engine.runtime.attempts import Completed, Failed, Outcome, Retried
from engine.runtime.board import Board
from engine.runtime.mail import CancelMail, ResumeMail, mail_or_none
from engine.runtime.site import Site
from engine.runtime.steps import Arrival, Step, ignored, task_cancelled, task_failed
from engine.runtime.streams import STATUS, new_event, status_of, stream_of
from engine.runtime.turns import Turns
from engine.runtime.writing import commits_of
from eventstore import NewEvent, StreamHead
from eventstore.errors import LeaseLost, VersionConflict

__all__ = ["IDLE_RELEASE_SECONDS", "STEP_FACTS_MAX", "Driver"]

STEP_FACTS_MAX: Final = 500
"""Facts that one step delivers before it commits: bounds the size of a commit and the wait of the first fact in it."""
IDLE_RELEASE_SECONDS: Final = 1.0
"""A run that has nothing to do for longer than this is given up, and claimed again when its time has come."""


class Driver:
    """One resident run. Made by the worker, for a new run (`begin`) or a rebuilt one (`go_on`)."""

    def __init__(
        self, site: Site, instance: Instance, *, version: int, last_at: int, attempts: dict[str, Attempts]
    ) -> None:
        self.site = site
        self.instance = instance
        self.lease = site.lease  # the one it lives and dies with, whatever its worker takes later
        self.run_id = instance.run_id
        self.stream = stream_of(instance.run_id)
        self.version = version
        self.turns = Turns(instance, last_at=last_at, clock=site.clock)
        self.board = Board(
            instance, attempts, dispatcher=site.dispatcher, alarms=site.alarms, clock=site.clock, kick=self._kick
        )
        self.first_commit: Callable[[BaseException | None], None] | None = (
            None  # told once, of a new run's first commit
        )
        self.reclaimed: StreamHead | None = None  # claimed again while it was being given up
        self.releasing = False
        self.discarded = False
        self._arrivals: deque[Arrival] = deque()
        self._backlog: list[Decided] = []
        self._resumption: NewEvent | None = None
        self._consuming: set[str] = set()
        self._timer = OneAlarm(site.alarms, self._timers_due)
        self._alarm: int | None = None  # as it stands in the store
        self._pumping = False

    # -- beginnings and the end ---------------------------------------------------------------------------------------

    def begin(self, fact: RunStarted, arguments: bytes) -> None:
        """A new run: its first step creates the stream."""
        self._arrivals.append(Arrival(fact, arguments))
        self._kick()

    def go_on(self, head: StreamHead, backlog: list[Decided], *, resumed_by: str | None = None) -> None:
        """A rebuilt run: append what its last turn decided and the log lacks, and take up every open end."""
        self._backlog = backlog
        if resumed_by is not None:
            self._resumption = new_event(RunResumed(at=self.turns.stamp(), by=resumed_by))
        missing = {item.event.id for item in backlog}
        for id_, pending in self.instance.pending.items():
            if pending.cancelled:
                self._arrivals.append(task_cancelled(id_, 0))  # its attempt died with its worker, as it was asked to
            elif id_ not in missing:  # those are started when their TaskScheduled is written
                self.board.take_up(self, id_)
        self._timers_due()
        self.receive(head)

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
        self._timer.set(None)
        self.board.close()
        self.instance.evict()

    # -- what arrives -------------------------------------------------------------------------------------------------

    def granted(self, task_id: str, executor: Executor) -> None:
        """See `dispatch.Asker`."""
        self.board.granted(task_id, executor)

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        """See `dispatch.Asker`."""
        self.board.running.pop(task_id, None)
        if self.discarded:
            return
        match outcome:
            case Completed(payload=payload):
                self._arrivals.append(Arrival(TaskCompleted(at=0, id=task_id, attempt=number), payload))
            case Failed(error=error):
                self._arrivals.append(Arrival(task_failed(task_id, number, error), encode_error(error)))
            case Retried():
                self._retry(task_id, number, outcome)
            case None:
                self._cut_off(task_id, number)
        self._kick()

    def _retry(self, task_id: str, number: int, outcome: Retried) -> None:
        error = encode_error(outcome.error)
        pending = self.instance.pending.get(task_id)
        if pending is None:
            self._arrivals.append(ignored(task_id, number, "failed", error))
            return
        if pending.cancelled:  # it was asked to end, and has: its failure is its outcome
            self._arrivals.append(Arrival(task_failed(task_id, number, outcome.error), error))
            return
        note = AttemptFailed(at=0, id=task_id, attempt=number, error=outcome.error.type, retry_at=outcome.retry_at)
        self._arrivals.append(Arrival(note, error))
        self.board.failed(self, task_id, at=self.site.clock.now(), retry_at=outcome.retry_at)

    def _cut_off(self, task_id: str, number: int) -> None:
        """An attempt that was asked to end has ended."""
        if self.site.stopping:
            return  # it counts as never ended: whoever has the run next begins another
        if task_id in self.instance.pending:
            self._arrivals.append(task_cancelled(task_id, number))  # its await lasts until an outcome
        else:
            self._arrivals.append(ignored(task_id, number, "cancelled"))

    def _timers_due(self) -> None:
        due = self.instance.take_due(self.site.clock.now())
        self._arrivals.extend(Arrival(fact) for fact in due)
        if due:
            self._kick()
        else:
            self._timer.set(self.instance.next_deadline())

    # -- the pump -----------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        # Always in a task of our own: what user code left behind in its task (a cancellation, say) must not reach it.
        if not self._pumping and not self.discarded:
            self._pumping = True
            self.site.spawn(self._pump())

    async def _pump(self) -> None:
        try:
            while not self.discarded and self._has_work():
                step = self._decide()
                try:
                    await self._write(step)
                except BaseException:
                    step.give_back()
                    raise
                self._act(step)
        except (LeaseLost, VersionConflict) as error:
            self._report(error)
            self.site.left(self, lost=True)
        except asyncio.CancelledError:
            self.discard()  # the program's loop is ending under us
            raise
        except Exception as error:
            # The store failed, or this is a bug of ours: stop loudly; everything recorded is intact.
            self.discard()
            self._report(error)
            self.site.failed(error)
        finally:
            self._pumping = False
        if not self.discarded and self._over:
            self.site.left(self)

    @property
    def _over(self) -> bool:
        """Whether the run has ended, with every attempt of it."""
        return self.instance.outcome is not None and not self.board.running

    def _report(self, error: BaseException | None) -> None:
        if self.first_commit is not None:
            told, self.first_commit = self.first_commit, None
            told(error)

    def _has_work(self) -> bool:
        if self._arrivals or self._backlog or self._resumption or self.board.has_grants:
            return True
        if self.instance.outcome is not None or self.site.stopping:
            return False
        return self._alarm is not None or self._may_release()

    # -- decide -------------------------------------------------------------------------------------------------------

    def _decide(self) -> Step:
        step = Step()
        if self._resumption is not None:
            step.events.append(self._resumption)
            step.attributes[STATUS] = "running"
            step.resumed, self._resumption = True, None
        step.add([item._replace(event=structs.replace(item.event, at=self.turns.stamp())) for item in self._backlog])
        self._backlog = []
        for _ in range(min(len(self._arrivals), STEP_FACTS_MAX)):
            if step.suspended:
                break
            arrival = self._arrivals.popleft()
            self.turns.take(step, arrival, self.version)
            event = arrival.event
            if isinstance(event, TaskCompleted | TaskFailed) and event.id not in self.instance.pending:
                self.board.attempts.pop(event.id, None)
        for id_ in step.cancelled:
            if id_ in self.instance.pending and id_ not in self.board.running:
                self._arrivals.append(task_cancelled(id_, 0))  # awaited to its end, and nothing of it runs
        if not step.suspended and self.instance.outcome is None:
            self.board.choose_starts(self, step, self.turns.stamp, self.lease.worker)
            self._choose_rest(step)
        elif self._alarm is not None:
            step.alarm = None
        return step

    def _choose_rest(self, step: Step) -> None:
        """Whether the run has nothing to do for a while, and when somebody must look at it again."""
        if not self._arrivals and not step.starting and self._may_release():
            step.release = True
            step.alarm = self._next_due()
        elif self._alarm is not None:
            step.alarm = None  # while it is in memory we keep its time ourselves

    def _may_release(self) -> bool:
        if self.site.stopping or not self.board.idle:
            return False
        due = self._next_due()
        return due is None or due - self.site.clock.now() > IDLE_RELEASE_SECONDS * 1_000_000

    def _next_due(self) -> int | None:
        dues = (self.instance.next_deadline(), self.board.next_retry())
        return min((due for due in dues if due is not None), default=None)

    # -- write --------------------------------------------------------------------------------------------------------

    async def _write(self, step: Step) -> None:
        site = self.site
        self.releasing = step.release
        for commit in commits_of(
            step,
            stream=self.stream,
            workflow=self.instance.definition.name,
            version=self.version,
            lease=self.lease,
            over=self._over,
            next_id=site.next_commit_id,
        ):
            await site.store.commit(commit)
            self.version = max(self.version, 0) + len(commit.events)
            if self.first_commit is not None:
                self._report(None)
        if step.alarm is not UNSET:
            self._alarm = step.alarm
        for _, message in step.consumes:
            self._consuming.discard(message)
        if step.starting and not self.lease.fresh():
            # A pause longer than the lease: others may have taken over since the commit. Begin nothing.
            raise LeaseLost(self.stream, token=self.lease.token, reason="its beat is too old to act on")

    # -- act ----------------------------------------------------------------------------------------------------------

    def _act(self, step: Step) -> None:
        for id_ in step.cancelled:
            self.board.call_off(id_)
        if self.discarded or self.site.stopping:
            step.give_back()
        else:
            self.board.launch(self, step, epoch=self.instance.epoch)
        if self.discarded:
            return
        if step.ended is not None:
            self._finish(step.ended)
        elif step.suspended:
            self.site.left(self)
        elif step.release:
            self._rest()
        elif self.instance.outcome is None:
            self._timer.set(self.instance.next_deadline())
            self.site.watches.ring(self.run_id)

    def _finish(self, ended: Decided) -> None:
        self._timer.set(None)
        self.board.forget_waits()
        for running in list(self.board.running.values()):
            running.cancel()
        reason = getattr(ended.event, "reason", "")
        self.site.watches.settle(self.run_id, status_of(ended.event), ended.payload, reason)

    def _rest(self) -> None:
        """The run was given up, unless this worker has claimed it again since."""
        self.releasing = False
        if self.reclaimed is not None:
            head, self.reclaimed = self.reclaimed, None
            self._timer.set(self.instance.next_deadline())
            self.receive(head)
            return
        if self._arrivals:
            # A timer fell due while the commit was under way. The stream is given up, and its alarm will bring it back;
            # what this instance has taken in and the log has not must not come back with it.
            self.site.left(self)
            return
        self.discarded = True  # this driver; the instance rests
        self._timer.set(None)
        self.board.close()
        self.site.parked(self)
