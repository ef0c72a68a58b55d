"""Runs that begin later than they are recorded: their own time begins when they do, and nothing of them is lost."""

from __future__ import annotations

import asyncio

from engine import task, workflow
from tests.runtime.worlds import World, kinds_of, settle, soon


@task
async def quick() -> str:
    return "done"


@workflow
async def within_a_minute() -> str:
    async with asyncio.timeout(60):
        await asyncio.sleep(1)
        return await quick()


async def test_the_time_of_a_run_that_had_to_wait_begins_when_it_does(world: World) -> None:
    async with world.engine(within_a_minute) as engine:
        await engine.pause_workflow(within_a_minute)
        run = await engine.start(within_a_minute(), id="a")
        await settle()
        world.clock.advance(3_600)
        await engine.unpause_workflow(within_a_minute)
        await settle(200)
        world.clock.advance(2)
        assert await soon(run.result()) == "done"
        assert (await kinds_of(run))[:2] == ["RunStarted", "RunBegun"]
