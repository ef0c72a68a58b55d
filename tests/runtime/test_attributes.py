"""Attributes of runs: given, set, kept by epochs, forks and reruns, taken back, and what is found by them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import Engine, Query, Signal, durable, task, workflow
from engine.core.attributes import ATTRIBUTES_MAX
from engine.core.events import AttributesGiven, AttributesSet, RunStarted
from engine.errors import (
    HoldfastError,
    QueryFailed,
    RunFailedError,
    SingletonHeld,
)
from eventstore import InvalidArgument
from tests.runtime.invariants import check_store
from tests.runtime.worlds import START, World, events_of, soon, until_async

go = Signal("go", str)
look = Query("look", None, type(None))


@task
async def one() -> int:
    return 1


@task
async def down() -> None:
    raise ConnectionError("down")


@workflow
async def order(region: str) -> str:
    durable.set_attributes(region=region, stage="begun")
    await one()
    durable.set_attributes(stage="waiting", amount=3, paid=False, rate=2.5)
    word = await go.receive()
    durable.set_attributes(stage=None, paid=True)
    return word


async def attributes_of(engine: Engine, run_id: str) -> dict[str, Any]:
    """As the store has them, which must be what the history says."""
    head = await engine.store.head(f"run:{run_id}")
    stored = {name.partition(":")[2]: v for name, v in head.attributes.items() if name.startswith("attribute:")}
    (summary,) = [each for each in (await engine.runs(limit=1000)).items if each.id == run_id]
    assert summary.attributes == stored == (await engine.run(run_id).state()).attributes
    return stored


async def ids(engine: Engine, **query: Any) -> list[str]:
    return [run.id for run in (await engine.runs(**query)).items]


async def stands(engine: Engine, run_id: str, **wanted: Any) -> None:
    async def holds() -> bool:
        return wanted.items() <= (await engine.run(run_id).state()).attributes.items()

    await until_async(holds)


async def test_they_are_found_as_soon_as_they_are_decided(world: World) -> None:
    async with world.engine(order) as engine:
        run = await engine.start(order("eu"), id="a", attributes={"who": "ann", "region": "us", "n": 7})
        await stands(engine, "a", stage="waiting")
        assert await attributes_of(engine, "a") == {
            "who": "ann",
            "region": "eu",
            "n": 7,
            "stage": "waiting",
            "amount": 3,
            "paid": False,
            "rate": 2.5,
        }
        assert await ids(engine, attributes={"region": "eu", "who": ("bob", "ann"), "amount": 3.0}) == ["a"]
        assert await ids(engine, attributes={"region": "us"}) == []
        assert await ids(engine, attributes={"paid": False, "gone": None}) == ["a"]
        assert await ids(engine, attributes={"stage": None}) == []
        await run.signal(go, "x")
        assert await soon(run.result()) == "x"
        assert (await attributes_of(engine, "a"))["paid"] is True
        assert await ids(engine, attributes={"stage": None}) == ["a"]
        at = {item.version: item.event async for item in run.events()}
        given = next(version for version, event in at.items() if isinstance(event, AttributesGiven))
        assert given == 2, "directly behind the start, in its commit"
        assert (await run.state(at=2)).attributes == {"who": "ann", "region": "us", "n": 7}
        assert (await run.state(at=3)).attributes["region"] == "eu"
    await check_store(await world.store(), order)


async def test_no_name_reaches_an_attribute_of_the_engine(world: World) -> None:
    names = {"status": "x", "workflow": "x", "parent": "x", "state:phase": "x", "attribute:a": "x", "epoch_start": 9}
    async with world.engine(order) as engine:
        run = await engine.start(order("eu"), id="a", attributes=names)
        await run.signal(go, "x")
        await soon(run.result())
        assert names.items() <= (await attributes_of(engine, "a")).items()
        assert await ids(engine, status="completed", workflow="order", attributes=names) == ["a"]
        assert await ids(engine, parent="x") == []


async def test_a_run_that_waits_has_what_it_was_given(world: World) -> None:
    async with world.engine(order) as engine:
        for id_, more in (("later", {"delay": 60}), ("told", {"signals": [go.message("y")]}), ("key", {})):
            await engine.start(order(id_), id=id_, attributes={"by": id_}, singleton=id_, **more)
        assert (await attributes_of(engine, "later")) == {"by": "later"}
        assert await ids(engine, status="queued", attributes={"by": "later"}) == ["later"]
        assert await soon(engine.run("told").result()) == "y"
        with pytest.raises(SingletonHeld):
            await engine.start(order("x"), singleton="key", attributes={"by": "other"})
        joined = await engine.start(order("x"), singleton="key", on_conflict="attach", attributes={"by": "other"})
        assert joined.id == "key"
        await stands(engine, "key", by="key", stage="waiting")
        again = await engine.start(order("later"), id="later", attributes={"by": "another"})
        assert (await again.state()).attributes == {"by": "later"}, "it exists: it keeps its own"
    await check_store(await world.store(), order)


@workflow
async def epochs(n: int) -> dict[str, int]:
    durable.set_attributes(**{f"epoch-{n}": n, "epoch": n})
    await one()
    if n < 3:
        await durable.continue_as_new(epochs(n + 1))
    await go.receive()
    return {}


async def test_epochs_keep_them_and_reruns_and_forks_carry_them(world: World) -> None:
    async with world.engine(epochs) as engine:
        run = await engine.start(epochs(0), id="a", attributes={"who": "ann"})
        everything = {"who": "ann", "epoch": 3, **{f"epoch-{n}": n for n in range(4)}}
        await stands(engine, "a", **everything)
        assert await attributes_of(engine, "a") == everything
        begun = [event for event in await events_of(run) if isinstance(event, RunStarted)]
        assert [set(event.attributes) for event in begun][-1] == everything.keys() - {"epoch-3"}
        sets = [item.version async for item in run.events() if isinstance(item.event, AttributesSet)]
        second = sets[1]
        forked = await engine.fork("a", at=second - 1, id="f")
        rerun = await engine.rerun("a", id="r")
        for each in (forked, rerun):
            await stands(engine, each.id, **everything)
        assert await ids(engine, attributes={"who": "ann"}, newest_first=False) == ["a", "f", "r"]
        await engine.fork("a", at=second + 1, id="g")
        assert (await engine.store.head("run:g")).attributes["attribute:epoch"] in (1, 3)
        for id_ in ("a", "f", "r", "g"):
            await stands(engine, id_, epoch=3)
            await engine.run(id_).signal(go, "x")
            await soon(engine.run(id_).result())
        assert sum(isinstance(event, AttributesGiven) for event in await events_of(rerun)) == 1
    await check_store(await world.store(), epochs)


@workflow
async def part() -> str:
    durable.set_attributes(of="child")
    return await go.receive()


@workflow
async def parent() -> str:
    durable.set_attributes(of="parent")
    return await part.options(id="kid")()


async def test_a_child_has_its_own(world: World) -> None:
    async with world.engine(parent, part) as engine:
        await engine.start(parent(), id="p", attributes={"who": "ann"})
        await until_async(lambda: has_run(engine, "kid"))
        await stands(engine, "kid", of="child")
        assert await attributes_of(engine, "kid") == {"of": "child"}
        assert await attributes_of(engine, "p") == {"of": "parent", "who": "ann"}


async def has_run(engine: Engine, run_id: str) -> bool:
    return run_id in await ids(engine)


@workflow
async def failing() -> None:
    durable.set_attributes(stage="begun", tries=0)
    try:
        await down()
    except Exception:
        durable.set_attributes(stage="failed", why="down", tries=None)
        raise


async def test_reopening_takes_back_what_the_last_turn_has_set(world: World) -> None:
    async with world.engine(failing) as engine:
        run = await engine.start(failing(), id="a")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        assert await attributes_of(engine, "a") == {"stage": "failed", "why": "down"}
    async with world.engine() as client:
        before = (await client.run("a").state()).version
    async with world.engine(failing) as engine:
        await engine.reopen("a")
        state = await engine.run("a").state(at=before + 1)
        assert state.attributes == {"stage": "begun", "tries": 0}
        with pytest.raises(RunFailedError):
            await soon(engine.run("a").result())
        assert await attributes_of(engine, "a") == {"stage": "failed", "why": "down"}
    await check_store(await world.store(), failing)


async def test_the_commit_that_reopens_a_run_finds_it_as_it_was(world: World) -> None:
    """Nobody has it yet who would set them again."""
    async with world.engine(failing) as engine:
        run = await engine.start(failing(), id="a")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        await engine.pause_workflow(failing)
        await engine.reopen("a")
        assert await attributes_of(engine, "a") == {"stage": "begun", "tries": 0}
        assert await ids(engine, attributes={"stage": "begun", "why": None}) == ["a"]


@workflow
async def greedy(n: int) -> str:
    try:
        durable.set_attributes(**{str(k): k for k in range(n)})
        await one()
        durable.set_attributes(**{"0": None, "one-more": 1})
        await one()
        durable.set_attributes(too="many")
    except HoldfastError as error:
        return str(error)
    return "fine"


async def test_the_number_counts_over_start_and_turns(world: World) -> None:
    async with world.engine(greedy) as engine:
        run = await engine.start(greedy(ATTRIBUTES_MAX), id="a")
        said = await soon(run.result())
        assert "durable.set_attributes: a run has at most 32 attributes, and this would make 33" in said
        assert len(await attributes_of(engine, "a")) == ATTRIBUTES_MAX
        other = await engine.start(greedy(ATTRIBUTES_MAX), id="b", attributes={"given": True})
        assert "would make 33" in await soon(other.result())
        assert await attributes_of(engine, "b") == {"given": True}
        assert await soon((await engine.start(greedy(3), id="c")).result()) == "fine"
    await check_store(await world.store(), greedy)


async def test_nothing_is_started_with_what_cannot_be(memory: World) -> None:
    async with memory.engine(order) as engine:
        for attributes, said in (
            ({"region": ["eu"]}, "attribute 'region' must be"),
            ({"region": None}, "attribute 'region' must be"),
            ({"a b": 1}, "cannot name an attribute"),
            ({str(n): n for n in range(33)}, "would make 33"),
        ):
            with pytest.raises(HoldfastError, match=said):
                await engine.start(order("eu"), id="a", attributes=attributes)  # type: ignore[arg-type]
        assert await ids(engine) == []
        for query in ({"attributes": {"a b": 1}}, {"attributes": {"a": ([],)}}, {"since": datetime(2026, 1, 1)}):
            with pytest.raises(HoldfastError, match="runs"):
                await engine.runs(**query)
        with pytest.raises(HoldfastError, match="until='now': a datetime with a zone"):
            await engine.runs(until="now")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="cursor"):
            await engine.runs(cursor="nonsense")


async def test_outside_a_workflow_there_is_none_to_set() -> None:
    with pytest.raises(HoldfastError, match=r"durable\.set_attributes"):
        durable.set_attributes(region="eu")


@workflow
async def asked() -> None:
    look.provide(lambda: durable.set_attributes(x=1))
    await go.receive()


async def test_a_query_sets_none(memory: World) -> None:
    async with memory.engine(asked) as engine:
        run = await engine.start(asked(), id="a")
        with pytest.raises(QueryFailed, match="ForbiddenInWorkflow|read, and decide nothing"):
            await soon(run.query(look))


async def test_pages_are_by_keyset_and_times_cut_them(world: World) -> None:
    """What is started between two pages repeats none, and hides none."""
    async with world.engine(order) as engine:
        for n in range(9):
            await engine.start(order("eu"), id=f"r{n}", attributes={"even": n % 2 == 0})
            world.clock.advance(60)
        found: list[str] = []
        page = await engine.runs(attributes={"even": True}, limit=2)
        while True:
            found += [run.id for run in page.items]
            await engine.start(order("us"), id=f"late-{len(found)}", attributes={"even": True})
            if page.next is None:
                break
            page = await engine.runs(attributes={"even": True}, limit=2, cursor=page.next)
        assert found == ["r8", "r6", "r4", "r2", "r0"]
        begun = datetime.fromtimestamp(START / 1_000_000, UTC)
        minute = timedelta(minutes=1)
        assert await ids(engine, since=begun + 2 * minute, until=begun + 5 * minute) == ["r4", "r3", "r2"]
        assert await ids(engine, until=begun + minute, attributes={"region": "eu"}) == ["r0"]
        assert await ids(engine, since=begun + minute / 2, until=begun + minute) == []
        other_zone = begun.astimezone(datetime.now().astimezone().tzinfo)
        assert await ids(engine, since=other_zone, until=other_zone + minute) == ["r0"]


async def test_many_at_once_each_find_their_own(world: World) -> None:
    async with world.engine(order) as engine:
        await asyncio.gather(*(engine.start(order("eu"), id=f"r{n}", attributes={"n": n}) for n in range(50)))
        for n in range(0, 50, 7):
            assert await ids(engine, attributes={"n": n}) == [f"r{n}"]
    await check_store(await world.store(), order)
