"""A run that kills its worker again and again is parked; those beside it are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, task, workflow
from engine.core.events import RunResumed, RunSuspended
from engine.errors import RunSuspendedError
from engine.runtime.suspects import CRASHES_ALONE_MAX, SUSPECT_SECONDS_MAX
from eventstore import StreamQuery
from tests.runtime.faulty import FaultyStore, leave
from tests.runtime.invariants import check_store
from tests.runtime.worlds import PATIENCE_SECONDS, World, events_of, settle, soon, until


class Mine:
    """What the tasks do: `began` lists who did; the killer's worker dies when it begins, while `loaded`."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.loaded = True
        self.open = asyncio.Event()
        mine = self

        @task
        async def explode() -> str:
            mine.began.append("killer")
            if mine.loaded:
                await asyncio.Event().wait()
            return "went on"

        @task
        async def work(name: str) -> str:
            mine.began.append(name)
            await mine.open.wait()
            return name

        @workflow
        async def killer() -> str:
            return await explode()

        @workflow
        async def bystander(name: str) -> str:
            return await work(name)

        self.killer, self.bystander = killer, bystander


@pytest.fixture
def mine() -> Mine:
    return Mine()


async def bury(engine: Engine, store: FaultyStore, world: World) -> None:
    """The process that had this engine is gone, and so is what it held."""
    await leave(engine)
    await world.crash(store.inner)
    await world.release(store.inner)


async def life(world: World, mine: Mine, *, start: Any = None, patient: bool = True) -> bool:
    """A worker that lives until the killer begins, and then dies. False: that never happened (it is parked)."""
    store = FaultyStore(await world.store())
    engine = Engine(store, workflows=[mine.killer, mine.bystander], clock=world.clock, grace=0)
    await engine.__aenter__()
    mine.began.clear()
    died = False
    try:
        if start is not None:
            await start(engine)
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not died:
            assert asyncio.get_running_loop().time() < deadline, [
                (head.stream, head.claims, head.owner, head.held, dict(head.attributes))
                for head in (await store.inner.find(StreamQuery(category="run", limit=10))).items
            ]
            if "killer" in mine.began:
                died = True
            elif await engine.run("killer").status() == "suspended":
                break
            else:
                if patient:
                    world.clock.advance(SUSPECT_SECONDS_MAX / 10)  # a bystander before it has its time
                await asyncio.sleep(0.002)
        if died:
            store.die()
    finally:
        await bury(engine, store, world)
    return died


async def start_killer(mine: Mine) -> Any:
    async def start(engine: Engine) -> None:
        await engine.start(mine.killer(), id="killer")

    return start


async def deaths_until_parked(world: World, mine: Mine, *, start: Any) -> int:
    deaths = 0
    while await life(world, mine, start=start if not deaths else None):
        deaths += 1
        assert deaths < 20, "never parked"
    return deaths


async def test_it_is_parked_after_five_deaths_while_alone(world: World, mine: Mine) -> None:
    deaths = await deaths_until_parked(world, mine, start=await start_killer(mine))
    assert deaths == 2 + CRASHES_ALONE_MAX  # with its first worker, with the one that claimed it first, and five alone
    async with world.engine(mine.killer) as engine:
        run = engine.run("killer")
        with pytest.raises(RunSuspendedError) as caught:
            await soon(run.result())
        assert (await run.state()).diagnosis.reason == "crashes"  # type: ignore[union-attr]
        assert "died 5 times" in str(caught.value)
        assert "holdfast resume" in str(caught.value)
        await check_store(engine.store, mine.killer)


async def test_a_person_lets_it_go_on_and_it_has_five_lives_again(world: World, mine: Mine) -> None:
    await deaths_until_parked(world, mine, start=await start_killer(mine))

    async def resume(engine: Engine) -> None:
        await engine.run("killer").resume(by="ann")

        async def goes_on() -> bool:
            return await engine.run("killer").status() != "suspended"

        async with asyncio.timeout(30):
            while not await goes_on():
                await asyncio.sleep(0.002)

    deaths = await deaths_until_parked(world, mine, start=resume)
    assert deaths >= 1 + CRASHES_ALONE_MAX
    mine.loaded = False
    async with world.engine(mine.killer) as engine:
        await engine.run("killer").resume()
        assert await soon(engine.run("killer").result()) == "went on"
        events = await events_of(engine.run("killer"))
        assert [type(event) for event in events if isinstance(event, RunSuspended | RunResumed)] == [
            RunSuspended, RunResumed, RunSuspended, RunResumed,
        ]  # fmt: skip
        await check_store(engine.store, mine.killer)


async def test_bystanders_are_not_convicted(world: World, mine: Mine) -> None:
    async def start(engine: Engine) -> None:
        for name in ("a", "b", "c"):
            await engine.start(mine.bystander(name), id=name)
        await until(lambda: len(mine.began) == 3)
        await engine.start(mine.killer(), id="killer")

    await deaths_until_parked(world, mine, start=start)
    mine.open.set()
    async with world.engine(mine.killer, mine.bystander) as engine:
        for name in ("a", "b", "c"):
            assert await soon(engine.run(name).result()) == name
            assert not [event for event in await events_of(engine.run(name)) if isinstance(event, RunSuspended)]
        assert await engine.run("killer").status() == "suspended"


async def test_suspects_run_one_at_a_time_and_the_rest_is_not_held_up(world: World, mine: Mine) -> None:
    async def start(engine: Engine) -> None:
        for name in ("a", "b"):
            await engine.start(mine.bystander(name), id=name)
        await engine.start(mine.killer(), id="killer")

    mine.loaded = True
    assert await life(world, mine, start=start)
    assert await life(world, mine)  # from here on all three are suspects
    mine.loaded = False
    mine.began.clear()
    async with world.engine(mine.killer, mine.bystander) as engine:
        await until(lambda: mine.began)
        await settle()
        first = list(mine.began)
        if first != ["killer"]:  # else it has got somewhere, and the next one is let in
            assert len(first) == 1
        fresh = await engine.start(mine.bystander("fresh"), id="fresh")
        await until(lambda: "fresh" in mine.began)  # it is no suspect
        mine.open.set()
        assert await soon(fresh.result()) == "fresh"
        for name in ("a", "b"):
            assert await soon(engine.run(name).result()) == name
        assert await soon(engine.run("killer").result()) == "went on"


async def test_to_end_in_good_order_is_no_crash(world: World, mine: Mine) -> None:
    """A long task, and a service that is restarted ten times meanwhile."""
    for _ in range(4 + 2 * CRASHES_ALONE_MAX):
        mine.began.clear()
        async with world.engine(mine.bystander, grace=0) as engine:
            await engine.start(mine.bystander("a"), id="a")
            await until(lambda: mine.began)
    mine.open.set()
    async with world.engine(mine.bystander) as engine:
        assert await soon(engine.run("a").result()) == "a"
        assert not [event for event in await events_of(engine.run("a")) if isinstance(event, RunSuspended)]


async def test_who_gets_somewhere_is_no_suspect_any_more(world: World, mine: Mine) -> None:
    """Two deaths, a step, two deaths, a step, ...: never parked."""
    steps = 12
    gates = [asyncio.Event() for _ in range(steps)]
    began: list[int] = []

    @task
    async def step(n: int) -> int:
        began.append(n)
        await gates[n].wait()
        return n

    @workflow
    async def long() -> int:
        for n in range(steps):
            await step(n)
        return steps

    for n in range(steps):
        for _ in range(2):
            store = FaultyStore(await world.store())
            engine = Engine(store, workflows=[long], clock=world.clock, grace=0)
            await engine.__aenter__()
            await engine.start(long(), id="a")
            await until(lambda n=n: began and began[-1] == n)
            began.clear()
            store.die()
            await bury(engine, store, world)
        gates[n].set()
    async with world.engine(long) as engine:
        assert await soon(engine.run("a").result()) == steps
        assert not [event for event in await events_of(engine.run("a")) if isinstance(event, RunSuspended)]


async def test_a_child_that_was_parked_before_anything_of_it_is_recorded(world: World, mine: Mine) -> None:
    """Its workers die at the commit that would record it (simulation, seed 3)."""

    @workflow
    async def parent() -> str:
        return await mine.bystander("child")

    child = "parent/bystander#1"

    async def life_until_it_begins(*, start: bool) -> bool:
        store = FaultyStore(await world.store())
        died = asyncio.Event()

        async def die(name: str, argument: Any) -> None:
            events = argument.events if name == "commit" and argument.stream == f"run:{child}" else ()
            if any(b'"RunStarted"' in event.header for event in events) and b"RunSuspended" not in events[-1].header:
                store.die()
                died.set()
                raise store._error(name)

        store.before = die
        engine = Engine(store, workflows=[parent, mine.bystander], clock=world.clock, grace=0)
        try:
            await engine.__aenter__()
            if start:
                await engine.start(parent(), id="parent")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not died.is_set():
                    heads = (await store.inner.find(StreamQuery(category="run", streams=(f"run:{child}",)))).items
                    if heads and heads[0].attributes.get("status") == "suspended":
                        return False
                    world.clock.advance(SUSPECT_SECONDS_MAX / 10)
                    await asyncio.sleep(0.002)
        finally:
            await bury(engine, store, world)
        return True

    deaths = 0
    while await life_until_it_begins(start=not deaths):
        deaths += 1
        assert deaths < 20, "never parked"
    mine.open.set()
    async with world.engine(parent, mine.bystander) as engine:
        with pytest.raises(RunSuspendedError):
            await soon(engine.run(child).result())
        await engine.run(child).resume(by="ann")
        assert await soon(engine.run("parent").result()) == "child"
        await check_store(engine.store, parent, mine.bystander)
