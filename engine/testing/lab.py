"""A lab: an engine on a memory store and a turned clock, in the test's own event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, ParamSpec, TypeVar, overload

from engine import Call, Engine, RunHandle, SignalMessage, Task, Workflow
from engine.errors import HoldfastError
from engine.testing.clock import START, TurnedClock, as_datetime, microseconds
from engine.testing.errors import Stuck
from engine.testing.fakes import Fake, Fakes, TaskCall, task_of
from engine.testing.quiet import Quiet
from engine.testing.store import Plan, WatchedStore
from engine.testing.values import LabStorage
from eventstore import EventStoreError
from eventstore.memory import MemoryStore

__all__ = ["Lab", "engine"]

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_SECONDS: Final = 0.2
"""Real time that an attempt of a real task gets before the clock is turned although it has not ended."""
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "terminated", "suspended"})


class Lab:
    """An open engine (`engine`) whose time passes only when the test says so. Made by `engine.testing.engine`."""

    def __init__(
        self,
        *workflows: Workflow[..., Any],
        seed: int = 0,
        start: datetime = START,
        only_fakes: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        **options: Any,
    ) -> None:
        chance = random.Random(f"{seed}/lab")
        self.clock = TurnedClock(start)
        self.memory = MemoryStore(clock=self.clock, entropy=random.Random(f"{seed}/salts").randbytes)
        if options.get("storage") is not None:
            options["storage"] = LabStorage(options["storage"])
        self.fakes = Fakes(self.clock, only_fakes=only_fakes, large=options.get("storage") is not None)
        self.engine: Engine
        self.store: WatchedStore
        self._workflows = workflows
        self._entropy: Callable[[int], bytes] = chance.randbytes
        self._patience = patience_seconds
        self._options = options
        self._stirred = asyncio.Event()
        self._quiet: Quiet
        self._open = AsyncExitStack()

    # -- life ----------------------------------------------------------------------------------------------------------

    async def open(self, *, plan: Plan | None = None) -> None:
        """Open an engine on what there is."""
        self.store = WatchedStore(self.memory, expect=self.clock.expect, plan=plan, stir=self._stirred.set)
        self.fakes.on_move = self.clock.on_expect = self._stirred.set
        self._quiet = Quiet(self.store, self.fakes, patience=self._patience)
        options = {"worker": "lab", "grace": 0.0, "entropy": self._entropy, **self._options}
        self.engine = Engine(
            self.store,
            workflows=self._workflows,
            clock=self.clock,
            stand_in=self.fakes.stand_in,
            **options,
        )
        self._open.callback(self.clock.on_turn(self.memory.notify))
        await self._open.enter_async_context(self.engine)

    async def close(self) -> None:
        """Close the engine; what is stored stays."""
        await self._open.aclose()

    async def crash(self) -> None:
        """Let the process die here and now, as `kill -9` would, and another one take over what is stored.

        Handles of before are dead; `lab.engine.run(id)` gives new ones.
        """
        await self.die()
        await self.open()

    async def die(self) -> None:
        """The first half of `crash`: what is left is what is stored."""
        self.store.die()
        with suppress(EventStoreError):
            await self.close()

    # -- fakes ---------------------------------------------------------------------------------------------------------

    @overload
    def fake(self, task: Task[P, R], *, returns: R, takes: float = 0.0) -> Fake[P, R]: ...
    @overload
    def fake(
        self, task: Task[P, R], *, raises: BaseException | type[BaseException], takes: float = 0.0
    ) -> Fake[P, R]: ...
    @overload
    def fake(self, task: Task[P, R], *, side_effect: Callable[P, R], takes: float = 0.0) -> Fake[P, R]: ...
    @overload
    def fake(self, task: Task[P, R], *, side_effect: Callable[P, Awaitable[R]], takes: float = 0.0) -> Fake[P, R]: ...
    @overload
    def fake(self, task: Task[P, R], *, outcomes: Sequence[Any], takes: float = 0.0) -> Fake[P, R]: ...
    @overload
    def fake(self, task: Task[P, R], *, takes: float) -> Fake[P, R]: ...
    @overload
    def fake(
        self,
        task: Call[R],
        *,
        returns: R = ...,
        raises: BaseException | type[BaseException] | None = None,
        outcomes: Sequence[Any] = (),
        takes: float = 0.0,
    ) -> Fake[..., R]: ...
    def fake(self, task: Any, **answer: Any) -> Any:
        """Let something stand in for a task: ``lab.fake(load, returns=5)``.

        `task`: a task, or a call of one, ``load("flights")``, to stand in for calls with just these arguments. A fake
        for just these arguments goes before one for any; of several, the last one counts.

        One of: `returns`, a result; `raises`, an exception or its type; `side_effect`, a function (plain or async) that
        is called with the arguments, and returns the result or raises; `outcomes`, results and exceptions, one for each
        attempt of a call, the last one for all that follow. `takes`: seconds on the lab's clock before that; `inf` for
        a task that never ends.

        Raises `NotRecordable` for a result that is not of the task's type, `HoldfastError` for what is no task.
        """
        return self.fakes.add(task, **answer)

    def calls(self, task: Task[..., Any] | Call[Any] | None = None) -> list[TaskCall]:
        """The attempts that were made, faked or not, as they began; only those of a task, or of just a call."""
        if task is None:
            return list(self.fakes.calls)
        definition, arguments = task_of(task, "calls")
        return [
            call for call in self.fakes.calls if call.task == definition.name and arguments in (None, call.arguments)
        ]

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def start(
        self,
        call: Call[R],
        *,
        id: str | None = None,  # noqa: A002 - the word for it
        signals: Iterable[SignalMessage] = (),
        deadline: float | timedelta | datetime | None = None,
        by: str = "",
    ) -> RunHandle[R]:
        """Start a run, and let everything happen that can without time passing. Raises what `Engine.start` raises."""
        run = await self.engine.start(call, id=id, signals=signals, deadline=deadline, by=by)
        await self.settle()
        return run

    async def run(
        self,
        call: Call[R],
        *,
        id: str | None = None,  # noqa: A002
        signals: Iterable[SignalMessage] = (),
        deadline: float | timedelta | datetime | None = None,
        by: str = "",
    ) -> R:
        """Start a run and return its result; the clock is turned as far as that takes. Raises as both."""
        return await self.result(await self.start(call, id=id, signals=signals, deadline=deadline, by=by))

    async def result(self, run: RunHandle[R]) -> R:
        """Turn the clock until the run has ended, from moment to moment, and return its result.

        Raises what `RunHandle.result` raises, and `Stuck` when the run waits for something that no time brings.
        """
        while True:
            await self.settle()
            if await run.status() in _ENDED:
                return await run.result()
            if not await self.turn_to_next():
                raise Stuck(await _waits_for(run))

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time on the lab's clock, in UTC."""
        return as_datetime(self.clock.now())

    async def settle(self) -> None:
        """Let everything happen that can without time passing.

        Attempts of real tasks get `patience_seconds` of real time to end. Raises `UnfakedTask`.
        """
        await self._quiet.settle()

    async def turn(self, *, days: float = 0.0, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Let time pass: from moment to moment, everything that becomes due happens before time goes on."""
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self.turn_to(self.now + span)

    async def turn_to(self, time: datetime) -> None:
        """Likewise, until a time (with a zone)."""
        end = microseconds(time)
        if end < self.clock.now():
            raise HoldfastError(f"it is {self.now} already: a lab's clock does not go back to {time}")
        await self.settle()
        while (moment := self.clock.next_moment()) is not None and moment <= end:
            self.clock.turn_to(moment)
            await self.settle()
        self.clock.turn_to(end)
        await self.settle()

    async def turn_to_next(self) -> bool:
        """Turn the clock to the next moment that somebody waits for. False: there is none."""
        moment = self.clock.next_moment()
        if moment is None:
            return False
        self.clock.turn_to(moment)
        await self.settle()
        return True

    @asynccontextmanager
    async def auto(self) -> AsyncIterator[None]:
        """While this is in force, time jumps to the next moment whenever nothing else can happen.

        Everything else counts: also what the test itself does, until it waits for something.
        """
        test = asyncio.current_task()
        assert test is not None
        failures: list[Exception] = []

        async def turn_for_ever() -> None:
            try:
                while True:
                    self._stirred.clear()
                    await self.settle()
                    if not await self.turn_to_next():
                        await self._stirred.wait()
            except Exception as failure:
                failures.append(failure)
                test.cancel()

        turning = asyncio.create_task(turn_for_ever(), name="lab-auto")
        try:
            yield
        except asyncio.CancelledError:
            if failures:
                test.uncancel()
                raise failures[0] from None
            raise
        finally:
            turning.cancel()
            await asyncio.wait([turning])


@asynccontextmanager
async def engine(
    *workflows: Workflow[..., Any],
    seed: int = 0,
    start: datetime = START,
    only_fakes: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
    **options: Any,
) -> AsyncIterator[Lab]:
    """An engine to test with: ``async with testing.engine(nightly) as lab:``.

    It stands on a memory store and a clock that only the test turns, so a year of timers takes milliseconds; ids,
    seeds and salts come from `seed`. Plain functions run on the event loop, one at a time, instead of in threads.

    `start`: the time on its clock. `only_fakes`: a task without a fake is an error (`UnfakedTask`). `patience_seconds`:
    real time for an attempt of a real task, before the clock is turned all the same. `options`: for the `Engine`.
    """
    lab = Lab(*workflows, seed=seed, start=start, only_fakes=only_fakes, patience_seconds=patience_seconds, **options)
    await lab.open()
    try:
        yield lab
        if lab.fakes.problem is not None:
            raise lab.fakes.problem
    finally:
        await lab.close()
        await lab.memory.aclose()


async def _waits_for(run: RunHandle[Any]) -> str:
    state = await run.state()
    open_tasks = [task for task in state.tasks.values() if task.status not in ("completed", "failed", "cancelled")]
    lines = [f"run {run.id!r} ({state.workflow}) has not ended, and no time will change that."]
    lines += [f"  {task.id} is {task.status}, called at {task.site}" for task in open_tasks]
    lines += [
        f"  child run {child.run!r} is {child.status}" for child in state.children.values() if child.ended_at is None
    ]
    if len(lines) == 1:
        lines.append("  It waits for no task and no timer: for a signal or a request, perhaps? Send it before.")
    return "\n".join(lines)
