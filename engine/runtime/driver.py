"""Drives one run that is in memory: gives it what arrived, commits what it decided, then acts on it.

One commit of a run is in flight at a time; facts queue meanwhile and are delivered one after the other in the next
step. Whatever goes wrong, the instance is discarded and rebuilt from the log: this file never repairs.

The order inside a step is the promise of the project: decide (pure), write (durable), act (attempts begin, waiters are
told). Nothing acts on the outside before the record of the decision is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, structs

from engine.core.compare import Mismatch
from engine.core.decided import Decided
from engine.core.events import (
    AttemptFailed,
    CancelRequested,
    ContinuedAsNew,
    Note,
    RunPaused,
    RunStarted,
    RunUnpaused,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TimerFired,
)
from engine.core.failures import describe, encode_error
from engine.core.instance import Instance
from engine.core.replay import Attempts
from engine.runtime.alarms import OneAlarm
from engine.runtime.attempts import Completed, Failed, HandedOut, Outcome, Retried, timed_out
from engine.runtime.board import Board
from engine.runtime.epochs import beginning_of_next, carried_over
from engine.runtime.mail import TerminateMail
from engine.runtime.post import arrival_of
from engine.runtime.recovery import rebuild_run
from engine.runtime.resending import deliver_again, undelivered_sends
from engine.runtime.site import Site
from engine.runtime.steps import Arrival, Step, ignored, task_cancelled, task_failed
from engine.runtime.streams import status_of, stream_of
from engine.runtime.turns import Turns
from engine.runtime.writing import commits_of
from eventstore import MailWaiting, Message, StreamHead
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
        self.board = self._new_board(attempts)
        self.first_commit: Callable[[BaseException | None], None] | None = (
            None  # told once, of a new run's first commit
        )
        self.reclaimed: StreamHead | None = None  # claimed again while it was being given up
        self.releasing = False
        self.discarded = False
        self.paused = False  # nothing of it begins; as it stands in the store
        self.set_aside = False  # likewise, for its workflow is paused
        self._arrivals: deque[Arrival] = deque()
        self._later: list[Arrival] = []  # requests that the workflow does not serve yet
        self._backlog: list[Decided] = []
        self._reopening: Note | None = None
        self._consuming: set[str] = set()
        self._timer = OneAlarm(site.alarms, self._timers_due)
        self._alarm: int | None = None  # as it stands in the store
        self._terminating = False
        self._pumping = False

    def _new_board(self, attempts: dict[str, Attempts]) -> Board:
        site = self.site
        return Board(
            self.instance,
            attempts,
            dispatcher=site.dispatcher,
            alarms=site.alarms,
            clock=site.clock,
            kick=self._kick,
            ended=self._attempt_ended,
            expired=self._expired,
        )

    # -- beginnings and the end ---------------------------------------------------------------------------------------

    def begin(self, *arrivals: Arrival) -> None:
        """A new run: the first arrival is its `RunStarted`, the others come with it. Its first step makes the stream,
        or writes the first events of one that a message has opened.
        """
        self._arrivals.extend(arrivals)
        self._consuming.update(arrival.message for arrival in arrivals if arrival.message is not None)
        self._kick()

    def go_on(self, head: StreamHead, backlog: list[Decided], *, reopened_by: Note | None = None) -> None:
        """A rebuilt run: append what its last turn decided and the log lacks, and take up every open end.

        `reopened_by`: the note that lets a held run go on.
        """
        self._backlog = backlog
        self._reopening = reopened_by
        self.receive(head)  # before anything of our own making: it was sent while nobody was here
        missing = {item.event.id for item in backlog}
        for id_, pending in self.instance.pending.items():
            if pending.cancelled:
                self._arrivals.append(task_cancelled(id_, 0))  # its attempt died with its worker, as it was asked to
            elif id_ not in missing:  # those are started when their TaskScheduled is written
                self.board.take_up(id_)
        if self.instance.outcome is None:
            self._timers_due()
            if messages := undelivered_sends(self.instance, missing):
                self.site.spawn(self._send_again(messages))
        elif isinstance(self.instance.outcome, ContinuedAsNew) and not backlog:
            self._begin_epoch()
        self._kick()

    def receive(self, head: StreamHead) -> None:
        """The stream was claimed for what waits in its mailbox, or for a due alarm."""
        self._alarm = head.alarm
        for message in head.messages:
            if message.id in self._consuming:
                continue
            arrival = arrival_of(message, self.instance, paused=self.paused)
            if isinstance(arrival, TerminateMail):
                self._terminating = True
            elif arrival is None:
                if message.control:
                    self._consuming.add(message.id)  # of a newer version: it stays in the box, and is left there
            else:
                self._consuming.add(message.id)
                if self.paused and isinstance(arrival.event, CancelRequested):
                    self._arrivals.append(Arrival(RunUnpaused(at=0, by=arrival.event.by)))  # cancel always works
                self._arrivals.append(arrival)
        self._kick()

    @property
    def consuming(self) -> bool:
        """Whether mail of this run is being answered: it would only be claimed again for the same."""
        return bool(self._consuming)

    def set_aside_while(self, workflow_paused: bool) -> None:  # noqa: FBT001 - the one thing it says
        """Its workflow was paused, or no longer is."""
        if self.set_aside == workflow_paused:
            return
        self.set_aside = workflow_paused
        if not workflow_paused:
            self.board.take_up_all()
            self._timers_due()
        self._kick()

    def discard(self) -> None:
        """Put the run out of memory; the log has all there is to know. Its attempts are asked to end."""
        self.discarded = True
        self._timer.set(None)
        self.board.close()
        self.instance.evict()

    # -- what arrives -------------------------------------------------------------------------------------------------

    def _attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        if self.discarded:
            return
        match outcome:
            case Completed(payload=payload):
                self._arrivals.append(Arrival(TaskCompleted(at=0, id=task_id, attempt=number), payload))
            case Failed(error=error):
                self._arrivals.append(Arrival(task_failed(task_id, number, error), encode_error(error)))
            case Retried():
                self._retry(task_id, number, outcome)
            case HandedOut():
                self._hand_out(task_id, number)
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
        self.board.failed(task_id, at=self.site.clock.now(), retry_at=outcome.retry_at)

    def _hand_out(self, task_id: str, number: int) -> None:
        pending = self.instance.pending.get(task_id)
        if pending is None:
            self._arrivals.append(ignored(task_id, number, "handed out"))
        elif pending.cancelled:
            self._arrivals.append(task_cancelled(task_id, number))
        else:
            self._arrivals.append(Arrival(TaskHandedOut(at=0, id=task_id, attempt=number)))
            self.board.hand_out(task_id)

    def _expired(self, task_id: str) -> None:
        """A task that was handed out was not completed by its deadline."""
        info = describe(timed_out(self.instance.pending[task_id].definition, whole=True))  # type: ignore[arg-type]
        number = self.board.attempts[task_id].started
        self._arrivals.append(Arrival(task_failed(task_id, number, info), encode_error(info)))
        self._kick()

    def _cut_off(self, task_id: str, number: int) -> None:
        """An attempt that was asked to end has ended."""
        if self.site.stopping:
            return  # it counts as never ended: whoever has the run next begins another
        if task_id in self.instance.pending:
            self._arrivals.append(task_cancelled(task_id, number))  # its await lasts until an outcome
        else:
            self._arrivals.append(ignored(task_id, number, "cancelled"))

    def _timers_due(self) -> None:
        if self.paused or self.set_aside:
            self._timer.set(None)
            return
        due = self.instance.clocks.take_due(self.site.clock.now())
        self._arrivals.extend(Arrival(fact) for fact in due)
        if due:
            self._kick()
        else:
            self._timer.set(self.instance.clocks.next_deadline())

    # -- the pump -----------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        # Always in a task of our own: what user code left behind in its task (a cancellation, say) must not reach it.
        if not self._pumping and not self.discarded:
            self._pumping = True
            self.site.spawn(self._pump())

    async def _pump(self) -> None:
        try:
            while not self.discarded and self._has_work():
                await self._step()
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
        if self.discarded:
            return
        if self._terminating:
            self.site.left(self, lost=True)  # and is brought back without its code, to be ended
        elif self._over:
            self.site.left(self)

    async def _step(self) -> None:
        step = self._decide()
        try:
            await self._write(step)
        except MailWaiting:
            step.give_back()
            await self._decide_anew(step)
        except BaseException:
            step.give_back()
            raise
        else:
            self._act(step)

    @property
    def _over(self) -> bool:
        """Whether the run has ended, with every attempt of it."""
        return self._ended and not self.board.running

    @property
    def _ended(self) -> bool:
        outcome = self.instance.outcome
        return outcome is not None and not isinstance(outcome, ContinuedAsNew)

    @property
    def _holding(self) -> bool:
        return self.paused or self.set_aside

    def _report(self, error: BaseException | None) -> None:
        if self.first_commit is not None:
            told, self.first_commit = self.first_commit, None
            told(error)

    def _has_work(self) -> bool:
        if self._terminating:
            return False
        if self._arrivals or self._backlog or self._reopening or any(self._serves(arrival) for arrival in self._later):
            return True
        if self._ended or self.site.stopping:
            return self.board.has_grants
        if self._holding:
            return not self.board.running  # to be given up
        return self.board.has_grants or self._alarm is not None or self._may_release()

    def _serves(self, arrival: Arrival) -> bool:
        return self.instance.outcome is None and self.instance.inbox.serves(getattr(arrival.event, "name", ""))

    # -- decide -------------------------------------------------------------------------------------------------------

    def _decide(self) -> Step:
        step = Step(base=max(self.version, 0))
        if self._reopening is not None:
            self.turns.take(step, Arrival(self._reopening))
            self._reopening = None
        if self._backlog:
            stamped = [
                item._replace(event=structs.replace(item.event, at=self.turns.stamp())) for item in self._backlog
            ]
            assert self.instance.started is not None
            step.add(stamped, self.instance.started, self.run_id)
            self._backlog = []
        self._arrivals.extend(arrival for arrival in self._later if self._serves(arrival))
        self._later = [arrival for arrival in self._later if not self._serves(arrival)]
        self._take(step)
        for id_ in step.cancelled:
            if id_ in self.instance.pending and id_ not in self.board.running:
                self._arrivals.append(task_cancelled(id_, 0))  # awaited to its end, and nothing of it runs
        if self._ended:  # what was not accepted by now never is; whoever asks finds that the run has ended
            step.consumes.extend((len(step.events), arrival.message) for arrival in self._later if arrival.message)
            self._later = []
        self._choose(step)
        return step

    def _take(self, step: Step) -> None:
        """The turns of a step."""
        left: list[Arrival] = []
        for _ in range(min(len(self._arrivals), STEP_FACTS_MAX)):
            if step.suspended or step.continued:
                break
            arrival = self._arrivals.popleft()
            if not self.turns.take(step, arrival):
                left.append(arrival)
            event = arrival.event
            if isinstance(event, TaskCompleted | TaskFailed) and event.id not in self.instance.pending:
                self.board.attempts.pop(event.id, None)
                if event.id in self.board.running:
                    step.cancelled.append(event.id)  # somebody else has ended it, by its token
        self._later.extend(step.later)
        if step.drained:
            self._arrivals.extendleft(reversed(left))
        else:
            step.consumes.extend((len(step.events), arrival.message) for arrival in left if arrival.message)

    def _choose(self, step: Step) -> None:
        """Which attempts begin, and whether the run may be given up."""
        if step.suspended or step.continued or self.instance.outcome is not None:
            if self._alarm is not None:
                step.alarm = None
            return
        holding = self.set_aside or (self.paused if step.held is UNSET else step.held)
        if holding:
            self.board.stand_down()
        else:
            self.board.choose_starts(step, self.turns.stamp, self.lease.worker)
        if not self._arrivals and not step.starting and not step.awaited and self._may_release(holding=holding):
            step.release = True
            # While its workflow is paused nobody claims it; afterwards it is due at once.
            step.alarm = self.site.clock.now() if self.set_aside else self._next_due()
        elif self._alarm is not None:
            step.alarm = None  # while it is in memory we keep its time ourselves

    def _may_release(self, *, holding: bool = False) -> bool:
        if self.site.stopping or not self.board.idle or self._later or self.instance.outbox.sends:
            return False
        if holding:
            return True
        due = self._next_due()
        return due is None or due - self.site.clock.now() > IDLE_RELEASE_SECONDS * 1_000_000

    def _next_due(self) -> int | None:
        dues = (self.instance.clocks.next_deadline(), self.board.next_due())
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
            head = await site.store.commit(commit)
            step.undelivered.extend(head.undelivered)
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

    async def _decide_anew(self, step: Step) -> None:
        """The run has ended in a step that had not seen all of its mail: rebuild it as it was, and give it that first.

        What the step had taken is taken again, for it is nowhere but here; a timer that fell due will be found due.
        """
        head = await self.site.store.head(self.stream)
        try:
            rebuilt = await rebuild_run(self.site.store, head, self.instance.definition)
        except Mismatch:
            self.site.left(self, lost=True)  # who brings it back will say so
            return
        self.instance.evict()
        self.instance = rebuilt.replayer.instance
        self.turns = Turns(self.instance, last_at=rebuilt.replayer.last_at, clock=self.site.clock)
        self.board.rebuilt(self.instance, rebuilt.replayer.attempts)
        self._backlog = rebuilt.backlog
        self.releasing = False
        again = [*step.taken, *self._arrivals]
        self._arrivals.clear()
        self._consuming.clear()
        self._later.clear()
        self.receive(head)
        mail = {arrival.message for arrival in self._arrivals}
        self._arrivals.extend(
            arrival
            for arrival in again
            if not isinstance(arrival.event, TimerFired) and (arrival.message is None or arrival.message not in mail)
        )
        self._timers_due()

    async def _send_again(self, messages: dict[str, Message]) -> None:
        """Sends whose delivery nobody has recorded: a repeated one changes nothing, and tells."""
        for id_, message in messages.items():
            self._arrivals.extend(await deliver_again(self.site.store, id_, message))
        self._kick()

    # -- act ----------------------------------------------------------------------------------------------------------

    def _act(self, step: Step) -> None:
        for id_ in step.cancelled:
            self.board.call_off(id_)
        if self.discarded or self.site.stopping:
            step.give_back()
        else:
            self.board.launch(step)
        if self.discarded:
            return
        if step.held is not UNSET and not step.suspended:
            self._hold(step.held)
        self._arrivals.extend(step.deliveries())
        if step.children:
            self.site.learn(self.instance.calls.definitions)
        if step.ended is not None:
            self._finish(step.ended)
        elif step.suspended:
            self.site.left(self)
        elif step.continued:
            self._begin_epoch()
        elif step.release:
            self._rest()
        elif self.instance.outcome is None:
            if not self._holding:
                self._timer.set(self.instance.clocks.next_deadline())
            self.site.watches.ring(self.run_id)

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - the one thing it says
        self.paused = held
        if not held:
            self.board.take_up_all()
            self._timers_due()

    def _finish(self, ended: Decided) -> None:
        self._timer.set(None)
        self.board.forget_waits()
        for running in list(self.board.running.values()):
            running.cancel()
        reason = getattr(ended.event, "reason", "")
        self.site.watches.settle(self.run_id, status_of(ended.event), ended.payload, reason)

    def _begin_epoch(self) -> None:
        """The run has continued as new: from here on it is another instance, with a board of its own."""
        before = self.instance
        self._timer.set(None)
        self.board.close()
        self.instance = Instance(before.definition, before.run_id)
        self.turns = Turns(self.instance, last_at=self.turns.last_at, clock=self.site.clock)
        self.board = self._new_board({})
        self._arrivals = deque([*beginning_of_next(before), *carried_over(self._arrivals)])
        self.site.watches.ring(self.run_id)
        self._kick()

    def _rest(self) -> None:
        """The run was given up, unless this worker has claimed it again since."""
        self.releasing = False
        if self.reclaimed is not None:
            head, self.reclaimed = self.reclaimed, None
            self._timers_due()
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
