"""Gives attempts a slot, runs them, and hands their outcome back to the run they belong to.

Per executor by priority, then in turn between keys (see `queues`), then first come, first served. A run asks for a
slot, writes `TaskStarted` while it holds one, and only when that is durable lets the attempt begin (`launch`): nothing
acts on the outside before its record.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol

from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.executors import Executor, Nowhere
from engine.runtime.alarms import Alarms
from engine.runtime.attempts import Committed, Completed, Outcome, run_attempt
from engine.runtime.breakers import Breakers
from engine.runtime.heartbeats import Pulse
from engine.runtime.queues import FairQueue
from engine.runtime.reconciling import run_reconciliation
from engine.runtime.standing_in import StandIn, StandingIn, place_of
from engine.runtime.tokens import NamesOfCall
from engine.runtime.transacting import Transacting, run_transaction
from engine.tasks import Attempt, Task, TransactionalTask
from eventstore.clock import Clock

__all__ = ["Asker", "Dispatcher", "Running", "Spawn"]

_DONE: Final = (Completed, Committed)


class Spawn(Protocol):
    """Starts a coroutine beside everything else; handed in, so that a simulation can decide who runs when."""

    def __call__(
        self,
        coro: Coroutine[Any, Any, None],
        /,
        *,
        name: str = ...,
        context: contextvars.Context | None = None,
        ended: Callable[[], None] | None = None,
    ) -> asyncio.Task[None]:
        """`ended` is called when its task is done, however that came about. See `spawning`."""

    def leave(self, task: asyncio.Task[None]) -> None:
        """Nothing is to be heard of a task's end: its coroutine says so, as the last thing it does."""


class Asker(Protocol):
    """A run that wants attempts: what the dispatcher knows of its board."""

    run_id: str

    def granted(self, task_id: str, executor: Executor) -> None:
        """A slot is yours: start the attempt, or give the slot back."""

    def attempt_beat(self, task_id: str, number: int, details: bytes | None) -> None:
        """A heartbeat of an attempt is to be recorded."""

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None) -> None:
        """An attempt has ended; None: it was cancelled."""


class Running:
    """An attempt that has been launched. Cancelling it asks it to end; its outcome is then None, or what came first."""

    __slots__ = (
        "_asker",
        "_begun",
        "_dispatcher",
        "_executor",
        "_pending",
        "asked_to_end",
        "failed_with",
        "may_begin",
        "number",
        "pulse",
        "task",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        asker: Asker,
        pending: PendingTask,
        executor: Executor,
        number: int,
        *,
        may_begin: Callable[[], bool],
    ) -> None:
        self.number = number
        self.asked_to_end = False
        self.failed_with: BaseException | None = None
        self.may_begin = may_begin
        self.pulse = Pulse(dispatcher.clock, dispatcher.alarms, self._beat)
        self.task: asyncio.Task[None] | None = None  # not yet, where the program's loop begins tasks at once
        self._begun = False
        self._dispatcher = dispatcher
        self._asker = asker
        self._pending = pending
        self._executor = executor

    def cancel(self) -> None:
        """Ask it to end."""
        self.asked_to_end = True
        self.pulse.cancelled.give()
        if self.task is not None:
            self.task.cancel()

    def _beat(self, details: bytes | None) -> None:
        self._asker.attempt_beat(self._pending.id, self.number, details)

    async def live(self, attempts: Attempts, attempt: Attempt, run: Callable[..., Awaitable[Outcome]]) -> None:
        """The attempt, from its first step to its outcome."""
        self._begun = True
        dispatcher, pending = self._dispatcher, self._pending
        outcome: Outcome | None = None
        try:
            outcome = await run(
                pending,
                attempts,
                attempt,
                executor=self._executor,
                clock=dispatcher.clock,
                alarms=dispatcher.alarms,
                running=self,
            )
        except asyncio.CancelledError:
            outcome = None  # we asked it to end; it is nobody's failure
        dispatcher.running.discard(self)
        definition: Any = pending.definition
        if definition.policy.breaker is not None:
            dispatcher.breakers.ended(pending, outcome, self.failed_with)
        self.failed_with = None  # and with it the frames that it was raised in
        self.pulse.finish(write=not isinstance(outcome, _DONE))
        self._asker.attempt_ended(pending.id, self.number, outcome)
        if self.task is not None:
            dispatcher.leave(self.task)

    @property
    def in_thread(self) -> bool:
        """Whether what takes long may be done in a thread: not in tests, which go by a turned clock."""
        return self._dispatcher.stand_in is None

    async def keep(self, payload: bytes) -> None:
        """Write a large result to where it is to lie. Raises `StorageError`."""
        if self._dispatcher.keep is not None:
            await self._dispatcher.keep(payload)

    def ended(self) -> None:
        """Its task is done. One that was cancelled before its first step has run nothing of `live`."""
        if not self._begun:
            self._dispatcher.running.discard(self)
            self.pulse.finish(write=False)
            self._executor.slots.give_back()
            self._dispatcher.breakers.ended(self._pending, None, None)
            self._asker.attempt_ended(self._pending.id, self.number, None)


class Dispatcher:
    """All slots of one engine, and the attempts in them."""

    def __init__(
        self,
        executors: Iterable[Executor],
        *,
        clock: Clock,
        alarms: Alarms,
        spawn: Spawn,
        breakers: Breakers,
        stand_in: StandIn | None = None,
        keep: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._executors: dict[str, Executor] = {}
        self._waiting: dict[str, FairQueue[tuple[Asker, str]]] = {}
        self.clock = clock
        self.alarms = alarms
        self.breakers = breakers
        self._spawn = spawn
        self.leave = spawn.leave
        self.stand_in = stand_in
        self.keep = keep  # of large results
        self._stopped = False
        self._granting = False
        self._context = contextvars.copy_context()
        self.running: set[Running] = set()
        for executor in executors:
            self._add(executor)

    def executor_for(self, definition: Task[..., Any], *, asking: bool = False) -> Executor:
        """Where attempts of this task run; `asking`: where its `reconcile` function does."""
        if self.stand_in is not None and not self._transacts(definition):
            function = definition.policy.reconcile if asking else definition.fn
            assert function is not None
            return self._executors[place_of(definition, function, self.stand_in)]
        if asking:
            return self._executors["loop" if iscoroutinefunction(definition.policy.reconcile) else "threads"]
        if definition.executor not in self._executors:
            self._add(Nowhere(definition.executor, self._executors))
        return self._executors[definition.executor]

    def _transacts(self, definition: Task[..., Any]) -> bool:
        """Whether an attempt is a transaction: its own function runs, and nothing that stands in for it."""
        if not isinstance(definition, TransactionalTask):
            return False
        return self.stand_in is None or self.stand_in(definition, definition.fn) is definition.fn

    @property
    def stopped(self) -> bool:
        """Whether no attempt begins any more."""
        return self._stopped

    def try_take(self, executor: Executor) -> bool:
        """A slot at once, unless others wait for one already (or no more attempts begin)."""
        return not self._stopped and not self._waiting[executor.name] and executor.slots.try_take()

    def enqueue(self, asker: Asker, task_id: str, executor: Executor, *, priority: int = 0, key: str = "") -> None:
        """Call `asker.granted` when it is its turn. Who no longer wants the slot gives it back then."""
        self._waiting[executor.name].push((asker, task_id), priority=priority, key=key)
        self._grant(executor.name)

    def launch(
        self,
        asker: Asker,
        pending: PendingTask,
        attempts: Attempts,
        executor: Executor,
        *,
        instance: Instance,
        transact: Callable[[Transacting], None],
        may_begin: Callable[[], bool],
        asking: bool = False,
    ) -> Running:
        """Begin an attempt, in a slot taken before, whose `TaskStarted` is durable.

        `transact`: hands the run's driver an attempt that is a commit. `may_begin`: whether the run is still
        this engine's, asked from any thread. `asking`: ask what became of the attempt.
        """
        definition: Any = pending.definition
        run: Callable[..., Awaitable[Outcome]] = run_reconciliation if asking else run_attempt
        if self._transacts(definition):
            run = partial(run_transaction, transact=transact)
        elif self.stand_in is not None:
            executor = StandingIn(executor, definition, self.stand_in)
        running = Running(self, asker, pending, executor, attempts.started, may_begin=may_begin)
        attempt = Attempt(
            run_id=asker.run_id,
            task_id=pending.id,
            task=pending.definition.name,
            number=running.number,
            scheduled_at=pending.scheduled_at,
            _names=NamesOfCall(asker.run_id, instance.seed, instance.epoch, pending.id),
            _contact=running.pulse,
            _last_heartbeat=attempts.heartbeat,
            _last_failure=attempts.failure,
        )
        if asking:
            running.pulse.finish(write=False)  # of an attempt that has ended there is nothing more to say
        self.running.add(running)
        # A fresh copy of the context the engine was opened in: what one attempt sets, no other sees.
        live = running.live(attempts, attempt, run)
        running.task = self._spawn(live, name=pending.id, context=self._context.copy(), ended=running.ended)
        return running

    def tasks(self) -> list[asyncio.Task[None]]:
        """Those of the attempts that are running."""
        return [task for running in self.running if (task := running.task) is not None]

    def stop(self) -> None:
        """No attempt begins any more; those that run go on, and are told that the engine closes."""
        self._stopped = True
        for running in list(self.running):
            running.pulse.stopping.give()
        for waiting in self._waiting.values():
            waiting.clear()

    def cancel_all(self) -> None:
        """Ask every attempt to end."""
        for running in list(self.running):
            running.cancel()

    async def wait_for_attempts(self, seconds: float, hurry: asyncio.Event) -> None:
        """Wait until all attempts have ended, at most so long, or until there is a hurry."""
        hurried: asyncio.Future[Any] = asyncio.ensure_future(hurry.wait())
        try:
            async with asyncio.timeout(seconds):
                while self.running and not hurried.done():
                    ended: asyncio.Future[Any] = asyncio.gather(*self.tasks(), return_exceptions=True)
                    await asyncio.wait([hurried, ended], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return
        finally:
            hurried.cancel()

    async def aclose(self) -> None:
        for executor in self._executors.values():
            executor.slots.when_free(None)
            await executor.aclose()

    def _add(self, executor: Executor) -> None:
        name = executor.name
        self._executors[name] = executor
        self._waiting[name] = FairQueue()
        executor.slots.when_free(partial(self._grant, name))

    def _grant(self, name: str) -> None:
        if self._granting:
            return  # somebody gave back what was just granted: the loop below goes on with the next
        waiting, executor = self._waiting[name], self._executors[name]
        self._granting = True
        try:
            while waiting and not self._stopped and executor.slots.try_take():
                asker, task_id = waiting.pop()
                asker.granted(task_id, executor)
        finally:
            self._granting = False
