"""The task that a run's steps are taken in: one at a time, none lost, and gone when nobody needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from engine import task, workflow
from engine.runtime.pump import Pump
from tests.runtime.worlds import World, settle, soon, until

gate: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _no_gate() -> None:
    gate.clear()


class Steps:
    """What stands for a driver: has so much work, expects more or not, and notes who did what."""

    def __init__(self) -> None:
        self.work = 0
        self.expecting = True
        self.tasks: list[asyncio.Task[None]] = []
        self.by: list[Any] = []
        self.under_way = 0
        self.heard: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.failing: BaseException | None = None
        self.pump = Pump(self, self._spawn)

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.ensure_future(coro))
        return self.tasks[-1]

    def has_work(self) -> bool:
        return self.work > 0

    async def step(self) -> None:
        self.under_way += 1
        assert self.under_way == 1
        self.work -= 1
        self.by.append(asyncio.current_task())
        await asyncio.sleep(0)
        self.during()
        if self.failing is not None:
            raise self.failing
        self.under_way -= 1

    def pumped(self) -> bool:
        self.heard.append("waits" if self.expecting else "ends")
        return self.expecting

    def broke(self, error: Exception) -> None:
        self.heard.append(f"broke: {error}")

    def discard(self) -> None:
        self.heard.append("discard")
        self.pump.close()

    def gone(self) -> None:
        self.heard.append("gone")

    async def do(self, work: int) -> None:
        self.work += work
        self.pump.kick()
        await settle()


async def test_one_task_takes_all_steps_while_more_is_expected() -> None:
    steps = Steps()
    await steps.do(2)
    await steps.do(1)
    steps.pump.kick()  # for nothing
    await settle()
    await steps.do(1)
    assert len(steps.by) == 4
    assert set(steps.by) == {steps.tasks[0]}
    assert set(steps.heard) == {"waits"}
    steps.expecting = False
    await steps.do(0)
    assert steps.tasks[0].done()
    assert steps.heard[-1] == "ends"


async def test_it_ends_when_nothing_is_expected_and_begins_anew() -> None:
    steps = Steps()
    steps.expecting = False
    await steps.do(1)
    await steps.do(1)
    assert steps.by == steps.tasks
    assert len(steps.tasks) == 2
    assert all(task.done() for task in steps.tasks)


@pytest.mark.parametrize("expecting", [True, False])
async def test_what_arrives_during_a_step_is_done_behind_it(expecting: bool) -> None:  # noqa: FBT001
    steps = Steps()
    steps.expecting = expecting

    def more() -> None:
        steps.during = lambda: None
        steps.work += 1
        steps.pump.kick()

    steps.during = more
    await steps.do(1)
    assert len(steps.by) == 2
    assert steps.work == 0
    steps.pump.close()
    await settle()


async def test_once_closed_it_ends_and_never_begins_again() -> None:
    steps = Steps()
    await steps.do(1)
    steps.expecting = False
    steps.pump.close()
    await settle()
    assert steps.tasks[0].done()
    await steps.do(1)
    assert len(steps.tasks) == 1


@pytest.mark.parametrize("when", ["before", "during", "between", "behind"])
async def test_once_closed_and_at_rest_it_says_so_once(when: str) -> None:
    steps = Steps()
    steps.expecting = when != "behind"
    steps.during = steps.pump.close if when == "during" else steps.during
    await (settle() if when == "before" else steps.do(1))
    assert ("gone" in steps.heard) == (when == "during")
    for _ in range(2):
        steps.pump.close()
        await settle()
        assert steps.heard.count("gone") == 1
    assert steps.heard[-1] == "gone"


@pytest.mark.parametrize("idle", [True, False])
async def test_a_loop_that_ends_under_it_puts_the_run_away(idle: bool) -> None:  # noqa: FBT001
    steps = Steps()
    if idle:
        await steps.do(1)
    else:
        steps.work = 1
        steps.pump.kick()
        await asyncio.sleep(0)
        assert steps.under_way == 1
    steps.tasks[0].cancel()
    with suppress(asyncio.CancelledError):
        await steps.tasks[0]
    assert steps.tasks[0].cancelled()
    assert steps.heard[-2:] == ["discard", "gone"]
    steps.pump.kick()
    await settle()
    assert len(steps.tasks) == 1


async def test_a_kick_that_meets_the_cancellation_of_the_wait_harms_nobody() -> None:
    steps = Steps()
    await steps.do(1)
    steps.tasks[0].cancel()
    await steps.do(1)
    assert steps.tasks[0].cancelled()
    assert steps.heard[-2:] == ["discard", "gone"]


async def test_a_step_that_fails_is_told_and_is_the_last() -> None:
    steps = Steps()
    steps.failing = ValueError("no")
    await steps.do(2)
    assert steps.heard == ["broke: no"]
    assert steps.work == 1
    assert steps.tasks[0].exception() is None


@task
async def waits() -> str:
    gate.append(asyncio.Event())
    await gate[-1].wait()
    return "done"


@workflow
async def twice() -> list[str]:
    return [await waits(), await waits()]


async def test_an_engine_does_not_wait_for_the_pump_of_a_run_whose_attempt_goes_on(world: World) -> None:
    before = asyncio.all_tasks()
    async with world.engine(twice, grace=0) as engine:
        run = await engine.start(twice(), id="a")
        await until(lambda: len(gate) == 1)
        gate[0].set()
        await until(lambda: len(gate) == 2)
        await settle()
        pumps = [task for task in asyncio.all_tasks() - before if task.get_coro().__qualname__ == "Pump._run"]  # type: ignore[union-attr]
        assert len(pumps) == 1
        assert await run.status() == "running"
    assert pumps[0].done()
    async with world.engine(twice) as engine:
        await until(lambda: len(gate) == 3)
        gate[2].set()
        assert await soon(engine.run("a").result()) == ["done", "done"]
