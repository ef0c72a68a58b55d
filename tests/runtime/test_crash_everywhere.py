"""Every play, crashed before and after every single call of the store, one crash a time, and opened again.

What must hold: the same end, a history that keeps every invariant and replays, and no effect again of a task whose
completion was recorded when it crashed.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine import Engine
from engine.core.events import RunStarted, TaskCompleted, TaskFailed, TaskStarted, decode_header
from engine.core.lineage import idempotency_key
from engine.errors import EngineFailed, RunSuspendedError
from eventstore import EventStore, StoreUnavailable, StreamQuery
from tests.runtime.faulty import Fault, FaultyStore, Plan, at_call
from tests.runtime.invariants import check_store
from tests.runtime.plays import PLAYS, Play, stage
from tests.runtime.slices import numbers, some
from tests.runtime.worlds import World, soon, until_async

CALLS_MAX = 400
"""More calls than any play makes; a play that needs more is not crashed everywhere, and fails."""


@pytest.fixture(autouse=True)
def _empty_stage() -> None:
    stage.clear()


@asynccontextmanager
async def passing_time(world: World) -> AsyncIterator[None]:
    """Time goes on by half seconds, whenever everybody had a turn.

    In memory that is once nobody has anything to do: waiting for it in real time would be most of what a crash takes.
    SQLite works in threads, which the loop does not see: they get real time.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # callbacks that are due

    async def turn() -> None:
        seconds = 0.5
        while True:
            await asyncio.sleep(0 if world.kind == "memory" else 0.0005)
            while ready:
                await asyncio.sleep(0)
            world.clock.advance(seconds)
            seconds = min(seconds * 1.4, 20_000)  # a day of waiting takes few more turns than a minute

    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        await asyncio.wait([turning])


@dataclass
class Crashed:
    """What a crash left behind."""

    faults: int
    calls: list[str]
    recorded: dict[str, int] = field(default_factory=dict)  # effects of tasks whose end is recorded, by key
    ended: str = ""


async def perform(world: World, play: Play, plan: Plan) -> Crashed:
    """Act until the planned crash, or the end."""
    handle = await world.store()
    store = FaultyStore(handle, plan)
    ended = ""
    try:
        async with Engine(store, workflows=[play.definition], clock=world.clock, grace=0) as engine:
            async with passing_time(world):
                ended = await soon(persist(play, engine))
    except (StoreUnavailable, EngineFailed):
        assert store.faults, "nothing was planned to fail"
    if not store.dead:
        store.die()  # the crash may have come behind the end
    crashed = Crashed(store.faults, store.calls, await recorded_effects(handle), ended)
    await world.release(handle)
    gc.collect()  # what an engine forgot to put away may not act any more, either
    return crashed


async def persist(play: Play, engine: Engine) -> str:
    """Act; and let a run go on that was parked, for its workers have died often enough in these tests."""
    while True:
        try:
            return await play.act(engine)
        except RunSuspendedError:
            run = engine.run("play")
            assert (await run.state()).diagnosis.reason == "crashes"  # type: ignore[union-attr]
            await run.resume()


async def recorded_effects(store: EventStore) -> dict[str, int]:
    """How often the tasks had effects whose end is in the log now."""
    found = {}
    for run_id, epoch, event in await recorded(store):
        if isinstance(event, TaskCompleted | TaskFailed) and not getattr(event, "reused_run", ""):
            key = idempotency_key(run_id, epoch, event.id)
            found[key] = stage.effects[key]
    return found


async def recorded(store: EventStore) -> list[tuple[str, int, Any]]:
    """Every event of every run, with its run's id and the epoch it stands in."""
    page = await store.find(StreamQuery(category="run", limit=500))
    assert page.next is None
    found = []
    for head in page.items:
        run_id, epoch = head.stream.partition(":")[2], 0
        async for item in store.read(head.stream):
            event = decode_header(item.header)
            epoch = event.epoch if isinstance(event, RunStarted) else epoch
            found.append((run_id, epoch, event))
    return found


async def go_on(world: World, play: Play) -> str:
    """Open again on what is left, and act to the end."""
    store = await world.store()
    async with Engine(store, workflows=[play.definition], clock=world.clock, grace=0) as engine:
        async with passing_time(world):
            ended = await soon(play.act(engine))
            # Children that died with two workers come one after the other, and nobody waits for some of them.
            await until_async(lambda: all_begun(store))
    await check_store(store, *play.definitions)
    events = await recorded(store)
    await world.release(store)
    check_written_ahead(events)
    return ended


async def all_begun(store: EventStore) -> bool:
    """Whether no run is left that a message has opened and nobody has begun."""
    page = await store.find(StreamQuery(category="run", limit=500))
    return all(head.version for head in page.items)


def check_written_ahead(events: list[tuple[str, int, Any]]) -> None:
    """Every effect was begun by an attempt that had been recorded before."""
    assert not stage.strays, f"{stage.strays} effects outside every attempt"
    begun = Counter(
        idempotency_key(run_id, epoch, event.id) for run_id, epoch, event in events if isinstance(event, TaskStarted)
    )
    for key, count in stage.effects.items():
        assert count <= begun[key], f"{count} effects of {begun[key]} recorded attempts"


async def undisturbed(world: World, play: Play) -> tuple[str, list[str], Counter[str]]:
    crashed = await perform(world, play, lambda _number, _name: None)
    store = await world.store()
    await check_store(store, *play.definitions)
    await world.release(store)
    assert crashed.ended
    assert all(count >= 1 for count in crashed.recorded.values())
    return crashed.ended, crashed.calls, Counter(stage.effects)


async def crash_and_go_on(world: World, play: Play, number: int, fault: Fault, *, expected: str) -> bool:
    """Whether the fault happened."""
    stage.clear()
    crashed = await perform(world, play, at_call(number, fault))
    assert crashed.ended in ("", expected)
    after = await go_on(world, play)
    where = f"{fault} call {number} ({crashed.calls[-1]})"
    assert after == expected, where
    for key, count in crashed.recorded.items():
        assert stage.effects[key] == count, f"{where}: a task ran again whose end was recorded"
    return crashed.faults > 0


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
async def test_a_crash_at_every_call_changes_nothing(play: Play, fault: Fault, worlds) -> None:
    expected, calls, _ = await undisturbed(worlds(), play)
    for number in numbers(CALLS_MAX, offset=len(fault) + PLAYS.index(play)):
        if not await crash_and_go_on(worlds(), play, number, fault, expected=expected):
            break
    else:
        pytest.fail(f"{play.name} makes more than {CALLS_MAX} calls")
    assert number > len(calls) // 2, f"only {number - 1} crashes: {calls}"


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
async def test_a_crash_at_some_calls_on_sqlite(play: Play, worlds) -> None:
    expected, calls, _ = await undisturbed(worlds("sqlite"), play)
    commits = [number for number, name in enumerate(calls, 1) if name == "commit"]
    for number in some(commits[1::3], of=4):
        fault: Fault = "die after" if number % 2 else "die before"
        await crash_and_go_on(worlds("sqlite"), play, number, fault, expected=expected)


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
async def test_crashes_one_after_the_other(play: Play, worlds) -> None:
    """Every engine dies at its own fifth call, sixth call, ...: the run gets on all the same."""
    expected, _, _ = await undisturbed(worlds(), play)
    stage.clear()
    world = worlds()
    for number in range(5, 100):
        crashed = await perform(world, play, at_call(number, "die after" if number % 2 else "die before"))
        if crashed.ended:
            break
    assert crashed.ended == expected
    await check_store(world.data, *play.definitions)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
async def test_a_crash_between_any_two_chunks(play: Play, chunk: int, worlds, monkeypatch) -> None:
    """Steps written in commits of one or three events: groups, and steps of several facts, are cut at every place."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)
    expected, calls, _ = await undisturbed(worlds(), play)
    for number in numbers(CALLS_MAX, offset=chunk + PLAYS.index(play)):
        fault: Fault = "die before" if number % 2 else "die after"
        stage.clear()
        world = worlds()
        crashed = await perform(world, play, at_call(number, fault, only="commit"))
        after = await go_on(world, play)
        assert after == expected, f"{fault} commit {number}"
        for key, count in crashed.recorded.items():
            assert stage.effects[key] == count, f"{fault} commit {number}: ran again although recorded"
        if not crashed.faults:
            break
    else:
        pytest.fail(f"{play.name} makes more than {CALLS_MAX} commits")
    assert number > calls.count("commit") // 2


@pytest.mark.parametrize("facts", [1, 2])
async def test_steps_of_few_facts(facts: int, worlds, monkeypatch) -> None:
    """However many facts a step may take: the same end, and a history that replays."""
    monkeypatch.setattr("engine.runtime.intake.STEP_FACTS_MAX", facts)
    for play in PLAYS:
        stage.clear()
        world = worlds()
        expected, _, _ = await undisturbed(world, play)
        assert await go_on(world, play) == expected
