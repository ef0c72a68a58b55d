"""Drives one run that is in memory: gives it what arrived, commits what it decided, then acts on it.

One commit of a run is in flight at a time; facts queue meanwhile and are delivered one after the other in the next
step. Whatever goes wrong, the instance is discarded and rebuilt from the log: this file never repairs.

The order inside a step is the promise of the project: decide (pure), write (durable), act (attempts begin, waiters are
told). Nothing acts on the outside before the record of the decision is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from msgspec import UNSET

from engine.core.compare import Mismatch
from engine.core.decided import Decided
from engine.core.events import ContinuedAsNew, Note
from engine.core.instance import Instance
from engine.core.replay import Attempts
from engine.runtime.alarms import OneAlarm
from engine.runtime.asking_limits import write_asking
from engine.runtime.attempts import Outcome
from engine.runtime.board import Board, asked_to_end, come_back, heed, take_up_all
from engine.runtime.codes import tried_now
from engine.runtime.epochs import told_now
from engine.runtime.flow import Flow
from engine.runtime.gates import OPEN, Gates
from engine.runtime.intake import Intake
from engine.runtime.outcomes import recorded
from engine.runtime.own_sql import OwnSql
from engine.runtime.pausing import Aside
from engine.runtime.pen import Pen
from engine.runtime.pump import Pump
from engine.runtime.recovery import Rebuilt, rebuild_run
from engine.runtime.resending import send_again, undelivered_sends
from engine.runtime.resting import may_rest, next_due
from engine.runtime.site import Site
from engine.runtime.steps import Arrival, Step
from engine.runtime.streams import status_of
from engine.runtime.turns import Turns
from eventstore import MailWaiting, StreamHead
from eventstore.errors import LeaseLost, UnknownMessage, VersionConflict

__all__ = ["Driver"]


class Driver:
    """One resident run. Made by the worker, for a new run (`begin`) or a rebuilt one (`go_on`)."""

    def __init__(
        self, site: Site, instance: Instance, *, version: int, last_at: int, attempts: dict[str, Attempts]
    ) -> None:
        self.site = site
        self._pump = Pump(self, site.spawn)
        self.kick = self._pump.kick  # there is something to do
        self.instance = instance
        self.instance.around = instance.around or site.watchdog.watch(instance.run_id, instance.definition.name)
        self.run_id = instance.run_id
        self.pen = Pen(site, run_id=instance.run_id, workflow=instance.definition.name, version=version)
        self.stream = self.pen.stream
        self.turns = Turns(instance, last_at=last_at, clock=site.clock)
        self.flow = Flow(site.limits, self.kick)
        self.board = Board(self, attempts)
        self.reclaimed: StreamHead | None = None  # claimed again while it was being given up
        self.releasing = False
        self.discarded = self._rests = False
        self.gates = OPEN  # while one is shut nothing of it begins; as it stands in the store
        self.set_aside = Aside()  # likewise, for its workflow is paused
        self.holding = False  # either of the two
        self.intake = Intake()
        self.own_sql = OwnSql(self.kick)
        self._backlog: Sequence[Decided] = ()  # of a history that lacks them
        self._reopening: Note | None = None
        self._timer = OneAlarm(site.alarms, self._timers_due)
        self._terminating = False

    # -- beginnings and the end ---------------------------------------------------------------------------------------

    def begin(self, *arrivals: Arrival) -> None:
        """A new run: the first arrival is its `RunStarted`, the others come with it. Its first step makes the stream,
        or writes the first events of one that a message has opened.
        """
        self._arrived(*arrivals)

    def go_on(self, head: StreamHead, rebuilt: Rebuilt | None = None, *, reopened_by: Note | None = None) -> None:
        """A run that was rebuilt, or has rested: append what the log lacks, and take up every open end.

        `reopened_by`: the note that lets a held run go on.
        """
        self._reopening = reopened_by
        if rebuilt is not None:
            self._take_over(rebuilt)
        self.receive(head)  # before anything of our own making: it was sent while nobody was here
        if rebuilt is not None:
            self.intake.carry(told_now(rebuilt.replayer.carrying))
        missing = {item.event.id for item in self._backlog}
        come_back(self.board, self.instance, self.intake, missing)
        if self.instance.outcome is None:
            self._timers_due()
            if messages := undelivered_sends(self.instance, missing):
                self.site.spawn(send_again(self.site.store, messages, self._arrived))
        elif self._between_epochs:
            self._begin_epoch()
        self.kick()

    def _take_over(self, rebuilt: Rebuilt) -> None:
        replayer = rebuilt.replayer
        self.instance, self._backlog = replayer.instance, rebuilt.backlog
        self.turns = Turns(
            self.instance, last_at=replayer.last_at, clock=self.site.clock, epoch_version=rebuilt.unmarked_epoch
        )

    def stand(self, gates: Gates, aside: Aside) -> None:
        """How a run that comes back stands, before anything of it begins here."""
        self.gates, self.set_aside = gates, aside
        self.holding = bool(gates or aside)

    def receive(self, head: StreamHead) -> None:
        """The stream was claimed for what waits in its mailbox, or for a due alarm, or was looked at."""
        if self.discarded or head.version < self.pen.version:
            return  # older than what was written since, and maybe answered by it; what was not is shown again
        self.pen.alarm = head.alarm
        instance, aside = self.instance, bool(self.set_aside or self.gates.queued)
        terminate = self.intake.receive(
            head, instance, self.board.attempts, paused=self.gates.paused, aside=aside, ending=instance.over
        )
        self._terminating = terminate or self._terminating
        self.kick()

    def hold(self, *, gates: Gates | None = None, pause: str | None = None, let_on: str | None = None) -> None:
        """Let nothing begin, or go on: a gate of the run was shut or opened (and that is recorded), or its workflow's.

        `pause`: the one that its workflow is under. `let_on`: the one that a cancel has let it pass (recorded, too).
        """
        if self.discarded:
            return
        before = self.holding
        self.gates = self.gates if gates is None else gates
        self.set_aside.change(pause=pause, let_on=let_on)
        self.holding = bool(self.gates or self.set_aside)
        if before and not self.holding:
            take_up_all(self.board, self.instance, self.intake)
            self._timers_due()
        elif self.holding:
            self.board.stand_down()
            self._timer.set(None)
        self.kick()

    def discard(self, *, rests: bool = False) -> None:
        """Put the run out of memory, but for the instance of one that `rests`, and ask its attempts to end."""
        self.discarded, self._rests = True, rests or self._rests
        self._timer.close()
        self.board.close()
        if not rests:
            self.instance.evict()
        self._pump.close()

    def gone(self) -> None:
        """See `pump.Pumped`."""
        self.board.let_go()
        if not self._rests:
            self.instance.let_go()

    # -- what arrives -------------------------------------------------------------------------------------------------

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        """An attempt, or a task that was handed out, has ended; None: it was cut off."""
        if self.discarded:
            return
        arrival = recorded(self.instance, task_id, number, outcome, stopping=self.site.stopping)
        self._arrived(*(() if arrival is None else (arrival,)))

    def _arrived(self, *arrivals: Arrival) -> None:
        self.intake.add(*arrivals)
        self.kick()

    def _timers_due(self) -> None:
        if self.holding:
            self._timer.set(None)
            return
        due = self.instance.clocks.take_due(self.site.clock.now())
        if due:
            self._arrived(*(Arrival(fact) for fact in due))
        else:
            self._timer.set(self.instance.clocks.next_deadline())

    # -- the pump -----------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """See `pump.Pumped`: decide, write, act."""
        due_first = self._backlog or self._reopening
        if self.own_sql.waiting and not due_first and self.own_sql.is_next(self.instance, self.intake):
            await self.own_sql.commit_next(self, self.board)
            return
        step = self._decide()
        try:
            await (self._write(step) if step.asked is None else write_asking(self, step, self._write))
        except MailWaiting:
            await self._decide_anew(step)
        except BaseException:
            self.board.starts.not_begun(step.starting)
            raise
        else:
            self.intake.written(step)
            self._act(step)

    def broke(self, error: Exception) -> None:
        """See `pump.Pumped`."""
        if isinstance(error, LeaseLost | UnknownMessage | VersionConflict):  # it is not as we have it: look again
            self.pen.report(error)
            self.site.left(self, lost=True)
            return
        # The store failed, or this is a bug of ours: stop loudly; everything recorded is intact.
        self.discard()
        self.pen.report(error)
        self.site.failed(error)

    def pumped(self) -> bool:
        """See `pump.Pumped`: attempts that are under way will bring more to do."""
        under_way = bool(self.board.running)
        if self._terminating:
            self.site.left(self, lost=True)  # and is brought back without its code, to be ended
        elif self.instance.over and not under_way:
            self.site.left(self)
        return under_way and not (self._terminating or self.site.stopping)

    @property
    def _between_epochs(self) -> bool:
        """Whether all is written and told of an epoch that has ended with the wish for another."""
        return isinstance(self.instance.outcome, ContinuedAsNew) and not self._backlog and not self.intake.has_signals

    def has_work(self) -> bool:
        """See `pump.Pumped`."""
        if self.discarded or self._terminating:
            return False
        intake, instance, board = self.intake, self.instance, self.board
        if intake.arrivals or self._backlog or self._reopening or (intake.later and intake.can_be_served(instance)):
            return True
        if self.own_sql.has_work(instance) or board.starts.has_work:
            return True
        if instance.over or self.site.stopping:
            return False
        return self.pen.alarm is not None or (not board.running and may_rest(self, holding=self.holding))

    # -- decide -------------------------------------------------------------------------------------------------------

    def _decide(self) -> Step:
        turns, instance, board = self.turns, self.instance, self.board
        step = Step(base=max(self.pen.version, 0), began_at=turns.last_at)
        turns.gates, turns.aside = self.gates, self.holding and bool(self.set_aside)
        if self._reopening is not None:
            turns.take(step, Arrival(self._reopening))
            self._reopening = None
        turns.mark_epoch(step)
        if self._backlog:
            stamped = [turns.stamped(item) for item in self._backlog]
            assert instance.started is not None
            step.add(stamped, instance.started, self.run_id)
            self._backlog = ()
        self.own_sql.tell(step, turns)
        for arrival in self.intake.take(step, turns, instance):
            heed(board, instance, step, arrival, at=turns.last_at)
        if step.consumes:
            self.set_aside.heed(step)
        if step.cancelled:
            asked_to_end(board, instance, self.intake, step)
        if instance.over:
            self.intake.turn_away(step)
        self._choose(step)
        return step

    def _choose(self, step: Step) -> None:
        """Which attempts begin, and whether the run may be given up."""
        if step.suspended or step.continued or self.instance.outcome is not None:
            if self.pen.alarm is not None:
                step.alarm = None
            if step.suspended:
                step.attributes |= tried_now(self.site.codes.of(self.instance.definition))
                self.board.stand_down()
            self.flow.settle(step)
            return
        aside = self.turns.aside and step.let_on is None
        holding = aside or bool(self.turns.gates)
        if holding:
            self._timer.set(None)  # nor does anything fall due while that is being written
            self.board.stand_down()
            self.flow.settle(step)
        else:
            self.board.starts.choose(step, self.turns.stamp, self.pen.lease.worker)
        if not (self.intake.arrivals or step.starting or step.awaited) and may_rest(self, holding=holding):
            step.release = True
            # While its workflow is paused nobody claims it; afterwards it is due at once.
            step.alarm = self.site.clock.now() if aside else next_due(self.instance, self.board)
        elif self.pen.alarm is not None:
            step.alarm = None  # while it is in memory we keep its time ourselves

    # -- write --------------------------------------------------------------------------------------------------------

    def _write(self, step: Step) -> Awaitable[None]:
        self.releasing = step.release
        over = self.instance.over and not self.board.running
        if step.ended is None:
            return self.pen.write(step, over=over)
        return self.pen.write_end(step, self.intake, self.turns, over=over, run=self)

    async def _decide_anew(self, step: Step) -> None:
        """The run has ended in a step that had not seen all of its mail: rebuild it, and give it that first."""
        head = await self.site.store.head(self.stream)
        known, definition = self.site.definitions, self.instance.definition
        try:
            rebuilt = await rebuild_run(self.site.store, head, definition, self.site.watchdog, versions=known.find)
        except Mismatch:
            self.site.left(self, lost=True)  # who brings it back will say so
            return
        self.instance.let_go()
        self._take_over(rebuilt)
        self.board.rebuilt(self.instance, rebuilt.replayer.attempts)
        self.flow.not_written(step)
        self.releasing = False
        first = told_now(rebuilt.replayer.carrying)
        attempts = rebuilt.replayer.attempts
        terminate = self.intake.again(step, head, self.instance, attempts, first=first, paused=self.gates.paused)
        self._terminating = terminate or self._terminating
        if self._between_epochs:
            self._begin_epoch()
            return
        self._timers_due()

    # -- act ----------------------------------------------------------------------------------------------------------

    def _act(self, step: Step) -> None:
        for id_ in step.cancelled:
            self.board.call_off(id_)
        self.board.lookups.keep(step)
        if self.discarded or self.site.stopping:
            self.board.starts.not_begun(step.starting)
        else:
            self.board.launch(step)
        if self.discarded:
            return
        if (step.held is not UNSET or step.let_on is not None) and not step.suspended:
            self.hold(gates=self.turns.gates, let_on=step.let_on)
        if step.awaited:
            self.intake.add(*step.deliveries())
        if step.children:
            self.site.learn(self.instance.calls.definitions)
        self._move_on(step)

    def _move_on(self, step: Step) -> None:
        """What the step makes of the run as a whole."""
        if (ended := step.ended) is not None:
            self._timer.set(None)
            self.board.forget_waits()
            for running in list(self.board.running.values()):
                running.cancel()
            reason = getattr(ended.event, "reason", "")
            self.site.watches.settle(self.run_id, status_of(ended.event), ended.payload, reason)
        elif step.suspended:
            self.site.left(self)
        elif step.continued:
            if self._between_epochs:
                self._begin_epoch()
        elif step.release:
            self._rest()
        elif self.instance.outcome is None:
            if not self.holding:
                self._timer.set(self.instance.clocks.next_deadline())
            self.site.watches.moved(self.run_id)

    def _begin_epoch(self) -> None:
        """The run has continued as new: from here on it is another instance, with a board of its own."""
        before = self.instance
        self._timer.set(None)
        self.board.close()
        self.board.let_go()
        self.instance = Instance(self.site.definitions.next_of(before), before.run_id, tables=before.tables)
        self.instance.around = before.around
        self.turns = Turns(self.instance, last_at=self.turns.last_at, clock=self.site.clock)
        self.board = Board(self, {})
        self.intake.begin_epoch(before, self.instance.definition.version)
        before.let_go()
        self.site.watches.moved(self.run_id)
        self.kick()

    def _rest(self) -> None:
        """The run was given up, unless this worker has claimed it again since."""
        self.releasing = False
        if self.reclaimed is not None:
            head, self.reclaimed = self.reclaimed, None
            self._timers_due()
            self.receive(head)
            return
        if self.intake:
            # A timer fell due while the commit was under way. The stream is given up, and its alarm will bring it back;
            # what this instance has taken in and the log has not must not come back with it.
            self.site.left(self)
            return
        self.discard(rests=True)
        self.site.parked(self)
