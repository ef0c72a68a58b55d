"""An event loop with simulated time, whose order of callbacks is a seed's.

Everything that runs belongs to an *actor*, by its context: what would be a process of its own. What is permuted:

* the order between callbacks of different actors, in every iteration: processes may interleave in any way;
* the order of timers of one moment, which asyncio leaves open as well;
* with `branches`, the order between callbacks of different asyncio tasks of one actor. asyncio's queue is FIFO, so this
  is more than it allows itself; code of ours that relies on it would break with the next await that somebody adds.

Within one asyncio task, and among the callbacks that belong to none, the order of asyncio is kept: it guarantees that.
How long a call of the store takes is drawn there (`stores`). Time stands still while anything can run, and then jumps.

A dead actor's callbacks are dropped, not cancelled: nothing of it runs any more, as after a kill -9. A frozen one's
are kept until it thaws, as after SIGSTOP and SIGCONT. There are no sockets to wait for and no threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from random import Random
from typing import Any

from tests.runtime.worlds import START

__all__ = ["ACTOR", "Actor", "Clock", "OutOfBounds", "SimulatedLoop"]


class OutOfBounds(BaseException):
    """Nothing can happen any more, or it takes too long: not an `Exception`, so that nobody under test catches it."""


class Clock:
    """An actor's clock: the loop's time, what somebody has set it by, and how far it is off."""

    def __init__(self, loop: SimulatedLoop, skew: float = 0) -> None:
        self._loop = loop
        self.step = skew

    def now(self) -> int:
        return START + round((self._loop.time() + self.step) * 1_000_000)

    def monotonic(self) -> float:
        return 1_000 + self._loop.time()


class Actor:
    """What would be a process: a worker or a client, from its start to its end or death."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.held: list[Any] = []  # handles, while it is frozen
        self.leases: list[Any] = []
        self.assets: Any = None  # as it offers them
        self.tasks: list[asyncio.Task[Any]] = []  # kept: what is collected would run its `finally` blocks

    def __repr__(self) -> str:
        return self.name


ACTOR: contextvars.ContextVar[Actor | None] = contextvars.ContextVar("actor", default=None)


class _Future(asyncio.Future[Any]):
    """Sets of them iterate in the order in which they were made, mostly, and the same way each time: not by address."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(loop=loop)
        self._serial = loop.next_hash()

    def __hash__(self) -> int:
        return self._serial


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module. `chance` draws the order; None: plain asyncio's, in simulated time."""

    holds_workflow = True  # sets of asyncio.wait iterate as they do in a workflow, not by address

    def __init__(self, chance: Random | None = None, *, branches: bool = False, steps_max: int = 10**7) -> None:
        super().__init__()
        self.chance = chance
        self.branches = branches
        self.steps = 0  # callbacks that ran
        self.steps_max = steps_max
        self.seconds_max = float("inf")
        self._now = 0.0
        self._serial = count()
        self.set_task_factory(_task)

    def next_hash(self) -> int:
        return next(self._serial)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self)

    def time(self) -> float:
        return self._now

    def _write_to_self(self) -> None:
        """There is no selector to wake: whatever is called, is called from here."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """In place of a thread: what it would do happens between two callbacks."""

        async def inline() -> Any:
            await asyncio.sleep(0.01)
            return func(*args)

        return self.create_task(inline())

    def spawn(self, actor: Actor | None, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start it as a part of that actor."""
        context = contextvars.copy_context()
        context.run(ACTOR.set, actor)
        return context.run(self.create_task, coro)

    def freeze(self, actor: Actor) -> None:
        actor.frozen = True

    def thaw(self, actor: Actor) -> None:
        actor.frozen = False
        held, actor.held = actor.held, []
        self._ready.extend(held)

    def kill(self, actor: Actor) -> None:
        actor.dead = True
        actor.held.clear()

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready
        self._due()
        if not ready:
            if not self._scheduled:
                raise OutOfBounds("nothing can happen any more, and somebody waits")
            self._now = self._scheduled[0]._when
            if self._now > self.seconds_max:
                raise OutOfBounds(f"it has not ended after {self._now:,.0f} simulated seconds")
            self._due()
        batch = list(ready)
        ready.clear()
        if self.chance is not None and len(batch) > 1:
            batch = self._arranged(batch)
        self.steps += len(batch)
        if self.steps > self.steps_max:
            raise OutOfBounds(f"it has not ended after {self.steps:,} steps, at {self._now:,.3f} s")
        for handle in batch:
            if handle._cancelled:
                continue
            actor = handle._context.get(ACTOR)
            if actor is not None and (actor.dead or actor.frozen):
                if not actor.dead:
                    actor.held.append(handle)
                continue
            handle._run()

    def _due(self) -> None:
        """Timers whose moment has come are ready."""
        scheduled: list[Any] = self._scheduled
        found = []
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self._now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                found.append(handle)
        self._ready.extend(found)

    def _arranged(self, batch: list[Any]) -> list[Any]:
        """The same callbacks in another order, those of one owner in their own."""
        assert self.chance is not None
        owner = _branch if self.branches else _actor
        keys = [owner(handle) for handle in batch]
        queues: dict[Any, deque[Any]] = {}
        for key, handle in zip(keys, batch, strict=True):
            queues.setdefault(key, deque()).append(handle)
        if len(queues) == 1:
            return batch
        self.chance.shuffle(keys)
        return [queues[key].popleft() for key in keys]


def _actor(handle: Any) -> Any:
    return handle._context.get(ACTOR)


def _branch(handle: Any) -> Any:
    callback: Callable[..., Any] = handle._callback
    owner = getattr(callback, "__self__", None)  # a task, of its steps and wake-ups
    return owner if isinstance(owner, asyncio.Task) else handle._context.get(ACTOR)


def _task(loop: Any, coro: Any, context: Any = None) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, context=context)
    actor = ACTOR.get() if context is None else context.get(ACTOR)
    if actor is not None:
        actor.tasks.append(task)
    return task
