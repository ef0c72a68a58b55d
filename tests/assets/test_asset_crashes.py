"""A materializing run, crashed before and after every call of the store, comes to the versions that it comes to undisturbed.

No value is published twice by it, nothing is computed again once it was published, and nothing is begun before what is
upstream of it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.assets import (
    AssetContext,
    AssetPublished,
    Assets,
    AssetStarted,
    Definitions,
    Out,
    Report,
    Static,
    asset,
    asset_stream,
    assets,
    check,
    read_event,
)
from engine.errors import EngineFailed, RunSuspendedError
from engine.storage import Storage
from eventstore import EventStore, StoreUnavailable, StreamNotFound
from tests.assets.shop import made, tell
from tests.runtime.faulty import Fault, FaultyStore, at_call
from tests.runtime.slices import numbers
from tests.runtime.test_crash_everywhere import passing_time
from tests.runtime.worlds import World, soon

CALLS_MAX = 400


@assets(outs={"left": Out(), "right": Out()})
def sides() -> tuple[int, int]:
    tell("sides")
    return 1, 2


@asset(partitions=Static(["a", "b"]))
def parts(left: int, context: AssetContext) -> str:
    tell("parts", context.partition)
    return context.partition * left


@check(parts)
def is_short(parts: str) -> bool:
    return len(parts) < 5


@asset
async def whole(parts: dict[str, str], right: int) -> str:
    tell("whole")
    return "".join(parts.values()) * right


DEFINITIONS = Definitions([sides, parts, whole], checks=[is_short])
KEYS = ("left", "right", "parts", "whole")


async def perform(world: World, folder: Path, store: EventStore) -> Report:
    """Begin the run, or go on with it, to its end."""
    offered = Assets(DEFINITIONS, store, storage=Storage(folder), clock=world.clock)
    async with Engine(store, workflows=offered.workflows, clock=world.clock, grace=0) as engine:
        async with passing_time(world):
            plan = await offered.plan()
            run = engine.run("all")
            if await missing(store):
                run = await engine.start(offered.materialize(plan), id="all")
            while True:
                try:
                    return await soon(run.result())
                except RunSuspendedError:  # its workers have died often enough in these tests
                    await run.resume()


async def missing(store: EventStore) -> bool:
    try:
        return (await store.head("run:all")).version == 0
    except StreamNotFound:
        return True


async def published(store: EventStore) -> dict[str, list[tuple[str, str]]]:
    """By key, what was published, in order; and that nothing was begun before what it is made from."""
    found: dict[str, list[tuple[str, str]]] = {}
    begun: dict[str, int] = {}
    done: dict[str, int] = {}
    for key in KEYS:
        try:
            async for recorded in store.read(asset_stream("prod", key)):
                event = read_event(recorded)
                if isinstance(event, AssetStarted):
                    begun.setdefault(key, recorded.position)
                elif isinstance(event, AssetPublished):
                    found.setdefault(key, []).append((event.partition, event.data_version))
                    done[key] = recorded.position
        except StreamNotFound:
            continue
    if "parts" in begun:
        assert begun["parts"] > done["left"]
    if "whole" in begun:
        assert begun["whole"] > max(done["parts"], done["right"])
    return {key: sorted(each) for key, each in found.items()}


async def undisturbed(world: World, folder: Path) -> tuple[dict[str, list[tuple[str, str]]], int]:
    handle = await world.store()
    store = FaultyStore(handle)
    report = await perform(world, folder, store)
    assert report.counts == {"published": 4}
    expected = await published(handle)
    await world.release(handle)
    return expected, len(store.calls)


async def crash(world: World, folder: Path, number: int, fault: Fault, expected: Any) -> bool:
    """Crash at that call, and go on. Whether it came to that."""
    handle = await world.store()
    store = FaultyStore(handle, at_call(number, fault))
    try:
        await perform(world, folder, store)
    except (StoreUnavailable, EngineFailed):
        assert store.faults
    if not store.dead:
        store.die()
    before = list(made)
    there = await published(handle)
    await world.release(handle)
    handle = await world.store()
    await perform(world, folder, handle)
    after = made[len(before) :]
    where = f"{fault} call {number} ({store.calls[-1]})"
    assert await published(handle) == expected, where
    for key, versions in there.items():
        for partition, _ in versions:
            name = f"{key}[{partition}]" if partition else key
            assert name not in after, f"{where}: {name} was published, and is computed again"
    await world.release(handle)
    return store.faults > 0


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
async def test_a_crash_at_every_call(fault: Fault, worlds: Callable[..., World], tmp_path: Path) -> None:
    expected, calls = await undisturbed(worlds(), tmp_path / "undisturbed")
    for number in numbers(CALLS_MAX, offset=len(fault)):
        made.clear()
        if not await crash(worlds(), tmp_path / str(number), number, fault, expected):
            break
    else:
        pytest.fail(f"more than {CALLS_MAX} calls")
    assert number > calls // 2


async def test_a_crash_at_some_commits_on_sqlite(worlds: Callable[..., World], tmp_path: Path) -> None:
    expected, calls = await undisturbed(worlds("sqlite"), tmp_path / "undisturbed")
    for number in range(12, calls, max(calls // 6, 1)):
        made.clear()
        fault: Fault = "die after" if number % 2 else "die before"
        await crash(worlds("sqlite"), tmp_path / str(number), number, fault, expected)
