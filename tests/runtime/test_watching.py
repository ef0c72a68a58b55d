"""Whoever waits for a run hears of its end, whoever brings that about, and however it falls in with the looking."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from engine import Engine, task, workflow
from engine.errors import EngineFailed, RunTerminatedError
from engine.runtime.watches import Watch
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, at_rest, settle, soon, until

began: list[str] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _nothing_began() -> None:
    began.clear()
    gates.clear()


@task
async def held(name: str) -> None:
    began.append(name)
    await gates.setdefault(name, asyncio.Event()).wait()


@workflow
async def sleeping() -> str:
    await asyncio.sleep(100)
    return "slept"


@workflow
async def working(gates: list[str]) -> int:
    for name in gates:
        await held(name)
    return len(gates)


def closes(name: str, argument: Any) -> bool:
    return name == "commit" and argument.closed is True


@pytest.mark.parametrize("cached", [0, 500])
async def test_a_handle_made_while_its_run_is_brought_back_to_be_ended(memory: MemoryWorld, cached: int) -> None:
    """No driver comes of it that would tell."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[sleeping], clock=memory.clock, cached=cached) as engine:
        await engine.start(sleeping(), id="a")
        await at_rest(memory.data, "a")
        pause = Pause(store, behind=False, when=closes)
        await engine.run("a").terminate(reason="enough")
        await soon(pause.reached.wait())
        waiting = asyncio.create_task(engine.run("a").result())
        await settle(100)
        pause.let_go.set()
        with pytest.raises(RunTerminatedError, match="enough"):
            await soon(waiting, seconds=5)
        await check_history(memory.data, "a", sleeping)


async def test_one_of_two_who_wait_looks_while_the_end_is_told_to_the_other(memory: MemoryWorld) -> None:
    """The run is another engine's: one look at the store serves all who wait here, also whoever just looks himself."""
    store = FaultyStore(memory.data)
    async with (
        Engine(memory.data, workflows=[sleeping], clock=memory.clock) as there,
        Engine(store, clock=memory.clock) as here,
    ):
        await there.start(sleeping(), id="a")
        await at_rest(memory.data, "a")
        run = here.run("a")
        first = asyncio.create_task(run.result())
        await until(lambda: store.calls.count("find") >= 2)  # it waits, and what it waits for is looked at
        pause = Pause(store, behind=True, when=lambda name, _argument: name == "head")
        second = asyncio.create_task(run.result())
        await soon(pause.reached.wait())
        memory.clock.advance(100)
        assert await soon(first) == "slept"
        pause.let_go.set()  # what it has read is old, and what has come since was told while it read
        assert await soon(second, seconds=5) == "slept"


async def test_a_follower_is_told_what_was_written_elsewhere_before_the_run_came_here(
    memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is here nobody looks at the store for it, and here nothing of it moves: there is no slot for its task."""
    monkeypatch.setattr("engine.runtime.observer.LOOK_SECONDS", (1e6, 1e6))  # it has not looked since
    store = FaultyStore(memory.data)
    async with Engine(memory.data, workflows=[working], clock=memory.clock, concurrency=1, grace=0) as here:
        await here.start(working(["ours"]), id="b")
        await until(lambda: began == ["ours"])
        there = Engine(store, workflows=[working], clock=memory.clock, grace=0)
        await there.__aenter__()
        await there.start(working(["first", "second"]), id="a")
        seen: list[str] = []

        async def follow() -> None:
            async for item in here.run("a").events(follow=True):
                seen.append(type(item.event).__name__)

        following = asyncio.create_task(follow())
        try:
            await until(lambda: "first" in began)
            await until(lambda: "TaskStarted" in seen)
            await settle(100)
            gates["first"].set()
            await until(lambda: "second" in began)
            assert "TaskCompleted" not in seen
            store.die()
            await until(lambda: "TaskCompleted" in seen, seconds=5)
            assert began.count("second") == 1
        finally:
            following.cancel()
            await asyncio.wait([following])
            with suppress(EngineFailed, StoreUnavailable):
                await there.__aexit__(None, None, None)


async def test_who_waits_for_the_end_sleeps_through_the_steps_before_it(
    memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who follows the run hears of each."""
    looks: list[str] = []
    end_bell, bell = Watch.end_bell, Watch.bell
    monkeypatch.setattr(Watch, "end_bell", lambda self: looks.append("end") or end_bell(self))
    monkeypatch.setattr(Watch, "bell", lambda self: looks.append("step") or bell(self))
    names = [f"gate {n}" for n in range(6)]
    async with Engine(memory.data, workflows=[working], clock=memory.clock) as engine:
        run = await engine.start(working(names), id="a")
        ended = asyncio.ensure_future(run.result())
        followed: list[str] = []

        async def follow() -> None:
            async for item in run.events(follow=True):
                followed.append(type(item.event).__name__)

        following = asyncio.ensure_future(follow())
        for count, name in enumerate(names, start=1):
            await until(lambda count=count: len(began) == count)
            await until(lambda count=count: followed.count("TaskStarted") == count)
            assert not ended.done()
            gates[name].set()
        assert await soon(ended) == len(names)
        await soon(following)
    assert looks.count("end") == 1
    assert looks.count("step") >= len(names)
    assert followed[-1] == "RunCompleted"
