"""Who is next: by priority, then in turn between fairness keys, then by arrival; for pools, rates and slots."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import durable, task, workflow
from engine.errors import TaskError
from engine.runtime.lines import WAITING_MAX
from tests.runtime.invariants import check_store
from tests.runtime.rooms import Room, held_in, nothing_held, waiting_in
from tests.runtime.worlds import MemoryWorld, World, soon, until, until_async

room = Room()


@pytest.fixture(autouse=True)
def _an_empty_room() -> None:
    room.__init__()  # type: ignore[misc]


def customer(who: str) -> str:
    return who.partition("-")[0]


@task(pool="room")
async def visit(who: str) -> str:
    return await room.visit(who)


@task(pool="room", fairness_key=customer)
async def export(who: str) -> str:
    return await room.visit(who)


@task
async def local(who: str) -> str:
    return await room.visit(who)


@workflow
async def blocking(pooled: bool) -> str:
    return await (visit if pooled else local)("blocker")


@workflow
async def visiting(names: list[str], priority: int, pooled: bool) -> None:
    chosen = (visit if pooled else local).options(priority=priority)
    await asyncio.gather(*(chosen(name) for name in names))


@workflow
async def exporting(names: list[str]) -> None:
    await asyncio.gather(*(export(name) for name in names))


@workflow
async def parent(names: list[str]) -> None:
    """Its children visit, one name each."""
    await asyncio.gather(*(visiting([name], 0, True) for name in names))


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{n}" for n in range(count)]


async def in_line(store: Any, count: int) -> None:
    async def so_many() -> bool:
        return waiting_in(store)["room"] == count

    await until_async(so_many)


@pytest.mark.parametrize("pooled", [True, False])
async def test_higher_priority_first(pooled: bool, world: World) -> None:
    options: dict[str, Any] = {"pools": {"room": 1}} if pooled else {"concurrency": 1, "pools": {"room": 1}}
    async with world.engine(blocking, visiting, **options) as engine:
        runs = [await engine.start(blocking(pooled))]
        await room.holds(1)
        for n, (name, priority) in enumerate([("low", -5), ("usual", 0), ("high", 7), ("higher", 8), ("last", -6)], 1):
            runs.append(await engine.start(visiting([name], priority, pooled), id=name))
            if pooled:
                await in_line(engine.store, n)
            else:
                await until_async(lambda name=name: scheduled(engine, name))
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(engine.store)
    assert room.order == ["blocker", "higher", "high", "usual", "low", "last"]
    assert room.most == 1


async def scheduled(engine: Any, run_id: str) -> bool:
    return bool((await engine.run(run_id).state()).tasks)


@pytest.mark.parametrize("pooled", [True, False])
async def test_runs_take_turns(pooled: bool, world: World) -> None:
    """One with very many waiting calls keeps nobody with few out."""
    many = 60
    options: dict[str, Any] = {"pools": {"room": 1}} if pooled else {"concurrency": 1, "pools": {"room": 1}}
    async with world.engine(blocking, visiting, **options) as engine:
        runs = [await engine.start(blocking(pooled))]
        await room.holds(1)
        runs.append(await engine.start(visiting(names("many", many), 0, pooled), id="many"))
        await (in_line(engine.store, many) if pooled else until_async(lambda: scheduled(engine, "many")))
        runs.append(await engine.start(visiting(names("few", 3), 0, pooled), id="few"))
        await (in_line(engine.store, many + 3) if pooled else until_async(lambda: scheduled(engine, "few")))
        runs.append(await engine.start(visiting(["one"], 0, pooled), id="one"))
        await (in_line(engine.store, many + 4) if pooled else until_async(lambda: scheduled(engine, "one")))
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(engine.store)
    assert room.order.index("one") <= 4, room.order[:12]
    assert room.order.index("few-2") <= 8, room.order[:12]
    kept = [name for name in room.order if name.startswith("many")]
    assert kept == names("many", many), "those of one run in their order"


async def test_ten_thousand_before_one(memory: MemoryWorld) -> None:
    async with memory.engine(exporting, pools={"room": 1}) as engine:
        await engine.start(exporting(names("big", 10_000)), id="big")
        await in_line(engine.store, WAITING_MAX)
        run = await engine.start(exporting(names("small", 1)), id="small")
        await in_line(engine.store, WAITING_MAX + 1)
        for _ in range(3):
            await room.holds(1)
            if room.inside == ["small-0"]:
                break
            room.let_go(*room.inside)
            await until(lambda seen=len(room.order): len(room.order) > seen)
        room.let_go("small-0")
        await soon(run.result())
        await engine.run("big").terminate()


async def test_keys_within_a_run_and_between_runs(world: World) -> None:
    """The keys of two runs are the same keys: who shares turns is the author's to say."""
    async with world.engine(blocking, exporting, pools={"room": 1}) as engine:
        runs = [await engine.start(blocking(True))]
        await room.holds(1)
        runs.append(await engine.start(exporting(names("ann", 6) + names("bob", 2)), id="1"))
        await in_line(engine.store, 8)
        runs.append(await engine.start(exporting(["ann-x", "cy-0"]), id="2"))
        await in_line(engine.store, 10)
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
    order = room.order[1:]
    assert {name.partition("-")[0] for name in order[:3]} == {"ann", "bob", "cy"}
    assert order.index("bob-1") <= 5
    assert order[-1] == "ann-x", "behind the others of its key, whatever run it is of"


async def test_a_tree_of_runs_shares_turns(world: World) -> None:
    """Without a key it is the run at the top: starting children for it buys nobody more turns."""
    async with world.engine(blocking, visiting, parent, pools={"room": 1}) as engine:
        runs = [await engine.start(blocking(True))]
        await room.holds(1)
        runs.append(await engine.start(parent(names("child", 6)), id="family"))
        await in_line(engine.store, 6)
        runs.append(await engine.start(visiting(names("single", 2), 0, True), id="single"))
        await in_line(engine.store, 8)
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(engine.store)
    assert room.order.index("single-0") <= 2
    assert room.order.index("single-1") <= 4


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("wrong", ["raises", "no text"])
async def test_a_key_that_cannot_be_had(wrong: str, free: bool, world: World) -> None:
    """The call fails with what went wrong; the run lives, and nobody else is harmed."""

    def key(who: str) -> Any:
        if wrong == "raises":
            raise LookupError(who)
        return 5

    @task(pool="room", fairness_key=key)
    async def keyed(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def asking() -> str:
        try:
            return await keyed("it")
        except (LookupError, TaskError, TypeError) as error:
            return f"{type(error).__name__}: {error}"

    async with world.engine(asking, blocking, pools={"room": 1}) as engine:
        blocker = None
        if not free:
            blocker = await engine.start(blocking(True))
            await room.holds(1)
        run = await engine.start(asking(), id="a")
        if free:
            room.let_all_go()
        found = await soon(run.result())
        if not free:
            assert ("LookupError" if wrong == "raises" else "fairness_key returned 5") in found
        else:
            assert found == "it" or "LookupError" in found or "fairness_key returned 5" in found
        room.let_all_go()
        if blocker is not None:
            await soon(blocker.result())
        await nothing_held(engine.store)
        await check_store(engine.store, asking, blocking)


async def test_a_key_is_asked_for_once(world: World) -> None:
    """Of each attempt that waits for a slot of the executor, and then takes its permits."""
    asked: list[str] = []

    def key(who: str) -> str:
        asked.append(who)
        return "k"

    @task(pool="room", fairness_key=key)
    async def keyed(who: str) -> str:
        return who

    @workflow
    async def asking() -> None:
        await asyncio.gather(*(keyed(who) for who in names("a", 20)))

    async with world.engine(asking, pools={"room": 2}, concurrency=1) as engine:
        await soon((await engine.start(asking())).result())
    assert sorted(asked) == sorted(names("a", 20))


async def test_keys_of_any_form(world: World) -> None:
    keys = {"none": "", "long": "k" * 10_000, "long-2": "k" * 10_001, "odd": "a\0b", "odder": "\ud800"}

    @task(pool="room", fairness_key=keys.__getitem__)
    async def keyed(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def asking() -> list[str]:
        return list(await asyncio.gather(*(keyed(who) for who in keys)))

    async with world.engine(asking, pools={"room": 1}) as engine:
        room.let_all_go()
        assert len(await soon((await engine.start(asking())).result())) == 5
        await nothing_held(engine.store)


async def test_epochs_of_a_run_are_one_key(world: World) -> None:
    @workflow
    async def again(epoch: int) -> None:
        await visit(f"epoch-{epoch}")
        if epoch < 3:
            await durable.continue_as_new(again(epoch + 1))

    async with world.engine(again, pools={"room": 1}) as engine:
        room.let_all_go()
        await soon((await engine.start(again(0))).result())
        await nothing_held(engine.store)
        assert not held_in(engine.store)
    assert room.order == [f"epoch-{n}" for n in range(4)]


async def test_behind_more_of_its_run_than_stand_in_the_queue(memory: MemoryWorld) -> None:
    """Of one run only so many wait in the store; whoever is urgent, or of another key, passes those who line up behind."""

    @workflow
    async def crowding() -> None:
        many = [asyncio.create_task(export(name)) for name in names("many", WAITING_MAX * 2)]
        await local("now")
        few = [asyncio.create_task(export("few-0")), asyncio.create_task(export.options(priority=5)("many-urgent"))]
        await asyncio.gather(*many, *few)

    async with memory.engine(crowding, pools={"room": 1}) as engine:
        run = await engine.start(crowding(), id="a")
        await room.holds(2)
        await in_line(engine.store, WAITING_MAX)
        room.let_go("now")
        await until_async(lambda: scheduled_at_least(engine, WAITING_MAX * 2 + 3))
        room.let_all_go()
        await soon(run.result())
        await nothing_held(engine.store)
    order = [name for name in room.order if name != "now"]
    assert order.index("many-urgent") <= 3, order[:8]
    assert order.index("few-0") <= 5, order[:8]


async def scheduled_at_least(engine: Any, count: int) -> bool:
    return len((await engine.run("a").state()).tasks) >= count
