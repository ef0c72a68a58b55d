"""Coroutines beside everything else: none is forgotten, no failure unheard, and none that left is heard of again."""

from __future__ import annotations

import asyncio

import pytest

from engine import Engine, task, workflow
from engine.runtime.spawning import Spawner
from eventstore.memory import MemoryStore


class Heard:
    """What a spawner tells."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.ended: list[str] = []
        self.spawner = Spawner(self.failures.append)

    async def until_none_is_left(self) -> None:
        async with asyncio.timeout(10):
            await self.spawner.wait(seconds=1)
        await asyncio.sleep(0)  # callbacks of the last end


async def test_the_end_and_the_failure_of_each_are_heard() -> None:
    heard = Heard()

    async def fails() -> None:
        raise ValueError("broken")

    heard.spawner(fails(), ended=lambda: heard.ended.append("fails"))
    await heard.until_none_is_left()

    assert [str(error) for error in heard.failures] == ["broken"]
    assert heard.ended == ["fails"]


async def test_of_one_that_left_nothing_is_heard_and_nobody_waits_for_it() -> None:
    heard = Heard()
    tasks: list[asyncio.Task[None]] = []

    async def leaves() -> None:
        heard.spawner.leave(tasks[0])

    tasks.append(heard.spawner(leaves(), ended=lambda: heard.ended.append("leaves")))
    await tasks[0]
    async with asyncio.timeout(10):
        await heard.spawner.wait(seconds=1)

    assert heard.ended == []
    assert heard.failures == []


async def test_to_leave_twice_changes_nothing_and_one_that_is_cancelled_unbegun_is_heard() -> None:
    heard = Heard()

    async def nothing() -> None:
        await asyncio.sleep(0)

    task = heard.spawner(nothing(), ended=lambda: heard.ended.append("nothing"))
    other = heard.spawner(nothing(), ended=lambda: heard.ended.append("cancelled"))
    other.cancel()
    heard.spawner.leave(task)
    heard.spawner.leave(task)
    await heard.until_none_is_left()

    assert heard.ended == ["cancelled"]


@task
async def one() -> int:
    return 1


@workflow
async def five() -> int:
    return sum([await one() for _ in range(5)])


async def test_no_round_of_the_loop_is_spent_on_hearing_of_the_end_of_each_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = 0
    heard = Spawner._ended

    def counted(self: Spawner, task: asyncio.Task[None]) -> None:
        nonlocal ends
        ends += 1
        heard(self, task)

    monkeypatch.setattr(Spawner, "_ended", counted)
    async with Engine(MemoryStore(), workflows=[five]) as engine:
        run = await engine.start(five(), id="five")
        assert await run.result() == 5
        assert ends < 5
