"""Which attempts of one run begin: who has a slot of an executor, and a permit of each limit that the task is under.

A task asks for a slot first, and takes its permits in the step that writes its `TaskStarted`. If a limit turns out to
be reached, its slot goes to others while it waits (`flow`): what one engine has is never kept for what all share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from engine.core.events import TaskStarted
from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.executors import Executor
from engine.runtime.alarms import OneAlarm
from engine.runtime.dispatch import Asker, Dispatcher
from engine.runtime.flow import Flow
from engine.runtime.memos import Lookups
from engine.runtime.permits import Claim, Line, slot_holder, turns_of
from engine.runtime.steps import Step
from engine.runtime.streams import new_event
from eventstore import LimitReached

__all__ = ["Starts"]


class StartsOwner(Asker, Protocol):
    """A board, as its starts know it."""

    attempts: dict[str, Attempts]
    lookups: Lookups

    def asks(self, task_id: str) -> bool:
        """Whether the outside is to be asked what became of the task, before anything else is said of it."""

    def waits(self, task_id: str) -> None:
        """A task waits for a limit, which may take long."""

    def postpone(self, task_id: str, until: int) -> None:
        """It is to be enqueued again, at a time in microseconds."""

    def cannot_start(self, task_id: str, error: Exception) -> None:
        """What its author said of how it waits has raised this: the task has failed."""


class Starts:
    """See the module. `flow`: the permits of the run, whatever epoch they are of."""

    def __init__(self, owner: StartsOwner, instance: Instance, dispatcher: Dispatcher, flow: Flow) -> None:
        self.instance = instance
        self.owner = owner  # until the board is let go
        self._run_id = owner.run_id
        self._dispatcher = dispatcher
        self._flow = flow
        self._rates: OneAlarm | None = None  # made for those who wait for a rate
        self.beginning: set[str] = set()  # those whose `TaskStarted` is being written
        self._queued: set[str] = set()
        self._granted: list[tuple[str, Executor]] = []
        self._earliest = 0  # no start is stamped before this, though the clock be set back: it had come to it

    @property
    def has_work(self) -> bool:
        """Whether slots were granted that no attempt uses yet, or a step has something to say of permits."""
        return bool(self._granted) or self._flow.has_work

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a slot, or is on the way to one. For permits one may wait out of memory."""
        return not (self._queued or self._granted) and self._flow.may_rest

    # -- slots --------------------------------------------------------------------------------------------------------

    def enqueue(self, task_id: str) -> None:
        """It waits for a slot."""
        if task_id in self.owner.lookups:
            return  # that comes first, and asks for this if nothing is found
        task = self.instance.pending[task_id]
        definition: Any = task.definition
        asking = self.owner.asks(task_id)
        if not asking and self._waits_for_circuit(task):
            return
        line = _in_line(self._flow, self._holder, task_id)
        standing = self._standing(task) if line is None else (line.priority, line.key)
        if standing is None:
            return
        self._queued.add(task_id)
        attempts = self.owner.attempts.get(task_id)
        if attempts is not None and self._earliest < attempts.retry_at <= self._dispatcher.clock.now():
            self._earliest = attempts.retry_at
        executor = self._dispatcher.executor_for(definition, asking=asking)
        self._dispatcher.enqueue(self.owner, task_id, executor, priority=standing[0], key=standing[1])

    def accept(self, task_id: str, executor: Executor, *, asking: bool) -> bool:
        """A slot was given for this task. False if it no longer wants one; unless it is for `asking`, it is used in the
        next step.
        """
        if task_id not in self._queued:
            executor.slots.give_back()
            return False
        if asking:
            self._queued.discard(task_id)
        else:
            self._granted.append((task_id, executor))
        return True

    def leave_queue(self, task_id: str) -> None:
        """It no longer waits for a slot."""
        self._queued.discard(task_id)

    def clear_queue(self) -> None:
        """Nobody waits for a slot any more; what was granted is still to be used."""
        self._queued.clear()
        if self._rates is not None:
            self._rates.close()
            self._rates = None

    def stand_down(self) -> None:
        """Nothing begins for now: slots and places in queues are given back."""
        self.clear_queue()
        while self._granted:
            self._granted.pop()[1].slots.give_back()
        self._flow.stand_down()

    # -- steps --------------------------------------------------------------------------------------------------------

    def choose(self, step: Step, stamp: Callable[[int], int], worker: str) -> None:
        """Give what holds a slot its `TaskStarted`, and ask for slots for what was scheduled in this step.

        Starts that need permits stand behind the others, at the end of the step: in a step of several commits they go
        with the last, which takes the permits.
        """
        pending = self.instance.pending
        at = stamp(self._earliest)  # one for all: time does not go back however they are put in order
        for id_, executor in self._granted:  # giving one back may bring the next
            is_over = id_ not in pending or pending[id_].asked_to_end
            wanted = id_ in self._queued and not is_over  # else it has left the queue, or was given another slot
            self._queued.discard(id_)
            if is_over:
                self.ended(id_)  # if a permit was granted, others may have it
            task = pending[id_] if wanted else None
            limited = task is not None and bool(self._flow.needs_of(task.definition))
            if task is None or not self._start(step, task, executor, at, worker, limited=limited):
                executor.slots.give_back()
        self._granted.clear()
        for id_ in step.scheduled:
            task = pending.get(id_)
            if task is not None and not task.asked_to_end:
                self.owner.attempts[id_] = Attempts()
                if not self.owner.lookups.scheduled(task):
                    self._begin(step, task, at, worker)
        for line in self._flow.fill(step):
            task = pending.get(line.task_id)
            if task is not None and not task.asked_to_end and task.id not in self.owner.lookups:
                self._begin(step, task, at, worker)
        if step.asked is not None:
            step.events += step.asked.starts

    def _begin(self, step: Step, task: PendingTask, at: int, worker: str) -> None:
        """Start it with this step if there is a slot; else it waits for one."""
        definition: Any = task.definition
        limited = bool(self._flow.needs_of(definition))
        if limited:
            line = self._line(task)
            if line is None:
                return
            if self._flow.must_wait(line):
                self._line_up(line)
                return
        if definition.policy.breaker is not None and self._waits_for_circuit(task):
            return
        executor = self._dispatcher.executor_for(definition)
        if not self._dispatcher.try_take(executor):
            self.enqueue(task.id)
        elif not self._start(step, task, executor, at, worker, limited=limited):
            executor.slots.give_back()

    def _start(self, step: Step, task: PendingTask, executor: Executor, at: int, worker: str, *, limited: bool) -> bool:
        """Let it start with this step. False when it waits for a limit instead, or has failed before it could."""
        definition: Any = task.definition
        line: Line | None = None
        if limited:
            line = self._line(task)
            if line is None:
                return False
            if self._flow.must_wait(line) or not self._flow.has_room(step, line):
                self._line_up(line)
                return False
        if definition.policy.breaker is not None and self._waits_for_circuit(task, begins=True):
            return False
        attempts = self.owner.attempts[task.id]
        attempts.started += 1
        attempts.open = True
        if not attempts.first_started_at:
            attempts.first_started_at = at
        note = TaskStarted(at=at, id=task.id, attempt=attempts.started, worker=worker, executor=executor.name)
        event = new_event(note)
        step.starting.append((task, executor))
        self.beginning.add(task.id)
        if line is None:
            step.events.append(event)
        else:
            self._flow.claim(step, line, event)
        return True

    def _waits_for_circuit(self, task: PendingTask, *, begins: bool = False) -> bool:
        """Whether what it depends on is down, and it waits for that. `begins`: otherwise it begins now."""
        circuit = self._dispatcher.breakers.of(task.definition)
        if circuit is None:
            return False
        now = self._dispatcher.clock.now()
        until = circuit.begin(now, task) if begins else circuit.waits_until(now)
        if until is not None:
            self.ended(task.id)  # meanwhile it needs no permits
            self.owner.postpone(task.id, until)
        return until is not None

    def refused(self, step: Step, error: LimitReached) -> None:
        """The step was refused, for a limit is reached: it is to be written without the starts that needed it."""
        undone = self._flow.refused(step, error)
        self._take_out(step, undone)
        for claim in undone:
            self.owner.waits(claim.line.task_id)

    def unknown(self, step: Step, limit: str, *, is_rate: bool) -> list[str]:
        """There is no such pool, or rate: likewise. Returns the ids of the tasks that name it."""
        gone = self._flow.without(step, limit, is_rate=is_rate)
        self._take_out(step, [claim for claim in gone if claim.event is not None])
        return [claim.line.task_id for claim in gone]

    def written(self, step: Step) -> None:
        """The step is durable, and its attempts begin."""
        self.beginning.clear()
        if step.asked is None:
            return
        self._flow.written(step)
        at = self._flow.next_due()
        if self._rates is None and at is not None:
            self._rates = OneAlarm(self._dispatcher.alarms, self._rates_due)
        if self._rates is not None:
            self._rates.set(at)

    def not_begun(self, starting: Iterable[tuple[PendingTask, Executor]]) -> None:
        """These attempts do not begin after all: their slots are free, and others may see whether a circuit closes."""
        for task, executor in starting:
            executor.slots.give_back()
            if (circuit := self._dispatcher.breakers.of(task.definition)) is not None:
                circuit.not_begun(task)

    def _take_out(self, step: Step, claims: Iterable[Claim]) -> None:
        gone = {claim.line.task_id: id(claim.event) for claim in claims}
        for task, executor in step.starting:
            if task.id not in gone:
                continue
            self.not_begun([(task, executor)])
            self.beginning.discard(task.id)
            attempts = self.owner.attempts[task.id]
            attempts.open = False
            attempts.started -= 1
            attempts.first_started_at = attempts.first_started_at if attempts.started else 0
        removed = set(gone.values())
        step.events = [event for event in step.events if id(event) not in removed]
        step.starting = [(task, executor) for task, executor in step.starting if task.id not in gone]

    # -- permits ------------------------------------------------------------------------------------------------------

    def permit_granted(self, pool: str, holder: str) -> None:
        """A limit has room for a task that waits for it. What nobody wants is given back.

        Nor does a task want it whose time has not come: by the clock of the engine that asked it had. It asks again.
        """
        if self._flow.lines.get(holder) is None:
            task = _task_named(self.instance, self._holder, holder)
            if task is not None and (task.id in self._queued or task.id in self.owner.lookups):
                self._line(task)  # it began to wait before the run was given up
        if (line := self._flow.granted(pool, holder)) is not None:
            self.call(line)

    def _rates_due(self) -> None:
        """Those who wait for a rate that should have room by now try to start."""
        for line in self._flow.due(self._dispatcher.clock.now()):
            self.call(line)
        if self._rates is not None:
            self._rates.set(self._flow.next_due())

    def ended(self, task_id: str) -> None:
        """Its attempt has ended, or it is wanted no more: its permits are given back."""
        if self._flow.lines.by_holder:
            self._flow.ended(self._holder(task_id))

    def call(self, line: Line) -> None:
        """There may be room for it: let it try, unless a step that is being written has called it off."""
        self._flow.lines.call(line)
        task = self.instance.pending.get(line.task_id)
        if task is not None and not task.asked_to_end and task.id not in self._queued:
            self.enqueue(task.id)

    def _line_up(self, line: Line) -> None:
        self._flow.line_up(line)
        self.owner.waits(line.task_id)

    def _line(self, task: PendingTask) -> Line | None:
        """How a task stands that needs permits. None: that cannot be said, and it has failed for that."""
        attempt = self.owner.attempts.setdefault(task.id, Attempts()).started + 1
        if (line := _in_line(self._flow, self._holder, task.id)) is not None:
            line.attempt = attempt
            return line
        if (standing := self._standing(task)) is None:
            return None
        priority, key = standing
        line = Line(task.id, self._holder(task.id), self._flow.needs_of(task.definition), priority, key, attempt)
        self._flow.lines.add(line)
        return line

    def _holder(self, task_id: str) -> str:
        return slot_holder(self._run_id, self.instance.epoch, task_id)  # which a new instance does not know yet

    def _standing(self, task: PendingTask) -> tuple[int, str] | None:
        """Its priority, and who shares its turns: unless its author says otherwise, the tree of runs that it is in."""
        definition: Any = task.definition
        policy = definition.policy
        if policy.fairness_key is None:
            started = self.instance.started
            return policy.priority, (started.root if started is not None else "") or self.instance.run_id
        try:
            return policy.priority, turns_of(definition.turn_key(task.arguments, task.carriage))
        except Exception as error:
            self.owner.cannot_start(task.id, error)
            return None


def _in_line(flow: Flow, holder_of: Callable[[str], str], task_id: str) -> Line | None:
    """How a task stands for the permits of its next attempt, if that is known."""
    line = flow.lines.get(holder_of(task_id)) if flow.lines.by_holder else None
    return None if line is None or line.state == "started" else line


def _task_named(instance: Instance, holder_of: Callable[[str], str], holder: str) -> PendingTask | None:
    """The pending task that goes by that name, or one of whose attempts does."""
    names = (holder, holder.rpartition("@")[0])
    found = (task for id_, task in instance.pending.items() if holder_of(id_) in names)
    return next((task for task in found if not task.asked_to_end), None)
