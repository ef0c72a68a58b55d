"""Whoever waits for a run hears of its end, whoever brings that about, and however it falls in with the looking."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, workflow
from engine.errors import RunNotFound, RunTerminatedError
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, at_rest, settle, soon, until


@workflow
async def sleeping() -> str:
    await asyncio.sleep(100)
    return "slept"


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


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_following_with_a_handle_made_while_its_run_is_brought_back(memory: MemoryWorld, behind: bool) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[sleeping], clock=memory.clock) as engine:
        await engine.start(sleeping(), id="a")
        await at_rest(memory.data, "a")
        pause = Pause(store, behind=behind, when=closes)
        await engine.run("a").terminate()
        await soon(pause.reached.wait())

        async def follow() -> list[str]:
            return [type(item.event).__name__ async for item in engine.run("a").events(follow=True)]

        following = asyncio.create_task(follow())
        await settle(100)
        pause.let_go.set()
        assert (await soon(following, seconds=5))[-1] == "RunTerminated"


async def test_a_handle_made_while_its_run_is_begun_in_vain(memory: MemoryWorld) -> None:
    """There is no such run yet, and whoever asks is told so; then it is somebody else's, and he is told by them."""
    store = FaultyStore(memory.data)
    pause = Pause(store, behind=False, when=lambda name, _argument: name == "commit")
    async with Engine(store, workflows=[sleeping], clock=memory.clock) as engine:
        starting = asyncio.create_task(engine.start(sleeping(), id="a"))
        await soon(pause.reached.wait())
        run = engine.run("a")
        with pytest.raises(RunNotFound):
            await soon(run.result(), seconds=5)
        async with Engine(memory.data, workflows=[sleeping], clock=memory.clock) as other:
            await other.start(sleeping(), id="a")
            pause.let_go.set()
            await soon(starting)
            memory.clock.advance(100)
            assert await soon(run.result(), seconds=5) == "slept"


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
