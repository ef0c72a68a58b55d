"""The task board of one run: which of its tasks wait for a retry, for a slot, or are being tried.

Every pending task of a run that is in memory stands in exactly one of these places, or is about to be written. The
board decides nothing about the workflow; it keeps attempts moving.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from engine.core.events import TaskStarted
from engine.core.instance import Instance, PendingTask
from engine.core.replay import Attempts
from engine.executors import Executor
from engine.runtime.alarms import Alarm, Alarms
from engine.runtime.dispatch import Asker, Dispatcher, Running
from engine.runtime.steps import Step
from engine.runtime.streams import new_event
from eventstore import Clock

__all__ = ["Board"]


class Board:
    """Attempts of one run. `kick` is called when a granted slot waits to be used."""

    def __init__(
        self,
        instance: Instance,
        attempts: dict[str, Attempts],
        *,
        dispatcher: Dispatcher,
        alarms: Alarms,
        clock: Clock,
        kick: Callable[[], None],
    ) -> None:
        self.attempts = attempts
        self.running: dict[str, Running] = {}
        self._instance = instance
        self._dispatcher = dispatcher
        self._alarms = alarms
        self._clock = clock
        self._kick = kick
        self._queued: set[str] = set()
        self._granted: deque[tuple[str, Executor]] = deque()
        self._retries: dict[str, Alarm] = {}
        self._closed = False

    @property
    def has_grants(self) -> bool:
        """Whether slots were granted that no attempt uses yet."""
        return bool(self._granted)

    @property
    def idle(self) -> bool:
        """Whether nothing is tried, or waits for a slot. An attempt that was asked to end is tried until it has."""
        return not (self._queued or self._granted or self.running)

    def next_retry(self) -> int | None:
        """Microseconds at which the earliest retry is due."""
        return min((alarm.at for alarm in self._retries.values()), default=None)

    def take_up(self, asker: Asker, task_id: str) -> None:
        """See to it that a pending task gets its next attempt: when its wait is over, and a slot is free."""
        attempts = self.attempts.setdefault(task_id, Attempts())
        if attempts.retry_at > self._clock.now():
            self._retries[task_id] = self._alarms.at(attempts.retry_at, lambda: self._retry_due(asker, task_id))
        else:
            self._enqueue(asker, task_id)

    def failed(self, asker: Asker, task_id: str, *, at: int, retry_at: int) -> None:
        """An attempt failed and another follows."""
        attempts = self.attempts[task_id]
        attempts.failed += 1
        attempts.retry_at = retry_at
        attempts.slept += max(0, retry_at - at)
        self.take_up(asker, task_id)

    def granted(self, task_id: str, executor: Executor) -> None:
        """A slot was given for this task; it may no longer want it."""
        if self._closed or task_id not in self._queued:
            executor.slots.give_back()
            return
        self._granted.append((task_id, executor))
        self._kick()

    def choose_starts(self, asker: Asker, step: Step, stamp: Callable[[], int], worker: str) -> None:
        """Give what holds a slot its `TaskStarted`, and ask for slots for what was scheduled in this step."""
        pending = self._instance.pending
        while self._granted:
            id_, executor = self._granted.popleft()
            if id_ in self._queued and id_ in pending and not pending[id_].cancelled:
                self._queued.discard(id_)
                self._start(step, pending[id_], executor, stamp(), worker)
            else:
                self._queued.discard(id_)
                executor.slots.give_back()
        for id_ in step.scheduled:
            task = pending.get(id_)
            if task is None or task.cancelled:
                continue
            self.attempts[id_] = Attempts()
            definition: Any = task.definition
            executor = self._dispatcher.executor_for(definition)
            if self._dispatcher.try_take(executor):
                self._start(step, task, executor, stamp(), worker)
            else:
                self._enqueue(asker, id_)

    def _start(self, step: Step, pending: PendingTask, executor: Executor, at: int, worker: str) -> None:
        attempts = self.attempts[pending.id]
        attempts.started += 1
        if not attempts.first_started_at:
            attempts.first_started_at = at
        note = TaskStarted(at=at, id=pending.id, attempt=attempts.started, worker=worker, executor=executor.name)
        step.events.append(new_event(note))
        step.starting.append((pending, executor))

    def launch(self, asker: Asker, step: Step, *, epoch: int) -> None:
        """The step is durable: its attempts begin."""
        for pending, executor in step.starting:
            self.running[pending.id] = self._dispatcher.launch(
                asker, pending, self.attempts[pending.id], executor, epoch=epoch
            )

    def call_off(self, task_id: str) -> None:
        """The workflow no longer wants this task: its waits are over, its attempt is asked to end."""
        if (running := self.running.get(task_id)) is not None:
            running.cancel()
        if (alarm := self._retries.pop(task_id, None)) is not None:
            alarm.cancel()
        self._queued.discard(task_id)
        if task_id not in self._instance.pending:
            self.attempts.pop(task_id, None)

    def forget_waits(self) -> None:
        """Nothing of this run begins here any more; what runs goes on."""
        for alarm in self._retries.values():
            alarm.cancel()
        self._retries.clear()
        self._queued.clear()

    def close(self) -> None:
        """The run leaves memory: its attempts are asked to end, its slots are given back."""
        self._closed = True
        self.forget_waits()
        for running in list(self.running.values()):
            running.cancel()
        while self._granted:
            self._granted.popleft()[1].slots.give_back()

    def _retry_due(self, asker: Asker, task_id: str) -> None:
        self._retries.pop(task_id, None)
        if task_id in self._instance.pending and not self._closed:
            self._enqueue(asker, task_id)

    def _enqueue(self, asker: Asker, task_id: str) -> None:
        definition: Any = self._instance.pending[task_id].definition
        self._queued.add(task_id)
        self._dispatcher.enqueue(asker, task_id, self._dispatcher.executor_for(definition))
