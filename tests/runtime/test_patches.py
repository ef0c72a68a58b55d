"""`durable.patched` in engines: old runs and new ones side by side, across crashes, restarts and code that comes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from engine import Engine, durable, task, workflow
from engine.core.events import PatchMarked
from engine.errors import EngineFailed
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history
from tests.runtime.worlds import World, at_rest, events_of, soon


@task
async def charge(who: str) -> str:
    return f"charged {who}"


@task
async def quote(who: str) -> str:
    return f"quoted {who}"


@workflow(name="order")
async def before(who: str) -> list[str]:
    await asyncio.sleep(1_000)
    first = await charge(who)
    await asyncio.sleep(1_000)
    return [first]


@workflow(name="order")
async def patched(who: str) -> list[str]:
    await asyncio.sleep(1_000)
    found = [await quote(who)] if durable.patched("quote first") else []
    found.append(await charge(who))
    await asyncio.sleep(1_000)
    return found


async def test_runs_of_both_codes_side_by_side(world: World) -> None:
    """One run is past the change when it comes, one is before it, one begins behind it: each goes its own way."""
    async with world.engine(before) as engine:
        past = await engine.start(before("past"), id="past")
        await at_rest(engine.store, "past")
        world.clock.advance(1_000)
        await _has(past, "TimerStarted", 2)
        await engine.start(before("early"), id="early")
        await at_rest(engine.store, "past")
        await at_rest(engine.store, "early")
    for _ in range(2):
        async with world.engine(patched) as engine:
            new = await engine.start(patched("new"), id="new")
            world.clock.advance(1_000)
            for run_id in ("past", "early", "new"):
                await at_rest(engine.store, run_id)
    world.clock.advance(1_000)
    async with world.engine(patched) as engine:
        new = engine.run("new")
        assert await soon(engine.run("past").result()) == ["charged past"]
        assert await soon(engine.run("early").result()) == ["quoted early", "charged early"]
        assert await soon(new.result()) == ["quoted new", "charged new"]
        for run_id, marked in (("past", {}), ("early", {"quote first"}), ("new", {"quote first"})):
            run = engine.run(run_id)
            assert set((await run.state()).patches) == set(marked)
            assert sum(isinstance(event, PatchMarked) for event in await events_of(run)) == len(marked)
            await check_history(engine.store, run_id, patched)


async def _has(run: Any, kind: str, count: int) -> None:
    found = 0
    async with asyncio.timeout(30):
        async for item in run.events(follow=True):
            found += type(item.event).__name__ == kind
            if found == count:
                return


async def test_a_crash_at_any_call_of_the_store_changes_no_way(worlds: Any) -> None:
    """A run that old code has begun meets the patch in an engine that dies there: the next one goes the same way."""
    ways: set[str] = set()
    for number in range(1, 40):
        for fault in ("die before", "die after"):
            world: World = worlds()
            async with world.engine(before) as engine:
                await engine.start(before("ann"), id="a")
                await at_rest(engine.store, "a")
            world.clock.advance(1_000)
            faulty = FaultyStore(await world.store(), at_call(number, fault))
            with suppress(StoreUnavailable, EngineFailed):
                async with Engine(faulty, workflows=[patched], clock=world.clock, grace=0) as engine:
                    await soon(_until_timer(engine.run("a")))
            if not faulty.dead:
                faulty.die()
            async with world.engine(patched) as engine:
                run = engine.run("a")
                await soon(_until_timer(run))
                world.clock.advance(1_000)
                assert await soon(run.result()) == ["quoted ann", "charged ann"]
                assert sum(isinstance(event, PatchMarked) for event in await events_of(run)) == 1
                await check_history(engine.store, "a", patched)
            ways.add(f"{len(faulty.calls) < number}")
    assert ways == {"True", "False"}  # the last ones die of nothing: all calls were tried


async def _until_timer(run: Any) -> None:
    """Until it sleeps for the second time, whoever drives it."""
    await _has(run, "TimerStarted", 2)
