"""Versions of a workflow side by side: each run stays on the one that it began with."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Query, Signal, durable, task, workflow
from engine.core.events import ContinuedAsNew, RunStarted
from engine.errors import DefinitionError, UnknownWorkflow
from tests.runtime.invariants import check_history, check_store
from tests.runtime.test_suspension import has_status
from tests.runtime.worlds import World, at_rest, events_of, kinds_of, settle, soon, until_async

go = Signal("go", int)
which = Query("which", None, str)


@task
async def charge(who: str) -> str:
    return f"charged {who}"


@task
async def quote(who: str) -> str:
    return f"quoted {who}"


@workflow(name="order")
async def unversioned(who: str) -> str:
    which.provide(lambda: "none")
    found = await charge(who)
    await go.receive()
    return f"{found} without a version"


@workflow(name="order", version="1")
async def first(who: str) -> str:
    which.provide(lambda: "first")
    found = await charge(who)
    await go.receive()
    return f"{found} by the first"


@workflow(name="order", version="2")
async def second(who: str) -> str:
    which.provide(lambda: "second")
    found = await quote(who)
    await go.receive()
    return f"{found} by the second"


async def test_a_run_stays_on_the_version_that_it_began_with(world: World) -> None:
    async with world.engine(first) as engine:
        await engine.start(first("ann"), id="a")
        await at_rest(engine.store, "a")
    async with world.engine(first, second) as engine:
        await engine.start(second("bob"), id="b")
        await engine.start(first("cem"), id="c")  # a call is of the version that it is of
        for run_id, expected in (("a", "first"), ("b", "second"), ("c", "first")):
            await at_rest(engine.store, run_id)
            assert await engine.run(run_id).query(which) == expected
        versions = {run.id: run.workflow_version for run in (await engine.runs()).items}
        assert versions == {"a": "1", "b": "2", "c": "1"}
        assert (await engine.run("b").state()).workflow_version == "2"
    async with world.engine(first, second) as engine:  # from the log, too
        for run_id in "abc":
            await engine.run(run_id).signal(go, 1)
        assert await soon(engine.run("a").result()) == "charged ann by the first"
        assert await soon(engine.run("b").result()) == "quoted bob by the second"
        assert await soon(engine.run("c").result()) == "charged cem by the first"
        for run_id, code in (("a", first), ("b", second), ("c", first)):
            await check_history(engine.store, run_id, code)


async def test_claims_ask_for_what_an_engine_has(world: World) -> None:
    """A worker without that version leaves its runs alone: they are not suspended, and wait."""
    async with world.engine(first, second) as engine:
        await engine.start(first("ann"), id="a")
        await engine.start(second("bob"), id="b")
        for run_id in "ab":
            await at_rest(engine.store, run_id)
            await engine.run(run_id).pause()
            await until_async(lambda r=run_id: has_status(engine.run(r), "paused"))
            await at_rest(engine.store, run_id)
    async with world.engine(second) as engine:
        for run_id in "ab":
            await engine.run(run_id).unpause()
            await engine.run(run_id).signal(go, 1)
        assert await soon(engine.run("b").result()) == "quoted bob by the second"
        await settle()
        assert await engine.run("a").status() == "paused"  # nobody has heard that it is to go on
        with pytest.raises(UnknownWorkflow, match="'order' in version '1' is not among"):
            await engine.run("a").query(which)
    async with world.engine(unversioned) as engine:
        await settle()
        assert await engine.run("a").status() == "paused"
    async with world.engine(first) as engine:
        assert await soon(engine.run("a").result()) == "charged ann by the first"


async def test_runs_from_before_there_were_versions(world: World) -> None:
    """They are of the definition without one; without such, of the first that is given."""
    async with world.engine(unversioned) as engine:
        for run_id in "ab":
            await engine.start(unversioned(run_id), id=run_id)
            await at_rest(engine.store, run_id)
    async with world.engine(unversioned, second) as engine:
        await engine.run("a").signal(go, 1)
        assert await soon(engine.run("a").result()) == "charged a without a version"
    async with world.engine(first, second) as engine:
        await engine.run("b").signal(go, 1)
        assert await soon(engine.run("b").result()) == "charged b by the first"


async def test_a_debounced_call_is_of_its_version(world: World) -> None:
    """Also for who has another one alone: that leaves its run to others."""
    async with world.engine(first, second) as engine:
        runs = {
            "charged ann by the first": (await engine.debounce(first("ann"), key="a", seconds=10)).id,
            "quoted bob by the second": (await engine.debounce(second("bob"), key="b", seconds=10)).id,
        }
        versions = {run.workflow_version for run in (await engine.runs()).items}
        assert versions == {"1", "2"}
    world.clock.advance(10)
    async with world.engine(first) as engine:
        await until_async(lambda: _has(engine, runs["charged ann by the first"], "TaskCompleted"))
        assert await engine.run(runs["quoted bob by the second"]).status() == "queued"
    async with world.engine(first, second) as engine:
        for expected, run_id in runs.items():
            await engine.run(run_id).signal(go, 1)
            assert await soon(engine.run(run_id).result()) == expected


@workflow
async def parent(who: str) -> str:
    return await first(who)


async def test_a_child_is_of_the_version_that_its_call_is_of(world: World) -> None:
    """And so after a crash of all, and where its worker has been told of others."""
    async with world.engine(parent, second) as engine:
        await engine.start(parent("ann"), id="p")
        await until_async(lambda: _has(engine, "p", "ChildStarted"))
        child = next(event for event in await events_of(engine.run("p")) if type(event).__name__ == "ChildStarted")
        assert (child.version, child.workflow) == ("1", "order")
        await until_async(lambda: _has(engine, child.run, "TaskCompleted"))
        await at_rest(engine.store, child.run)
        started = (await events_of(engine.run(child.run)))[0]
        assert started.version == "1"
    async with world.engine(parent, second) as engine:
        await engine.run(child.run).signal(go, 1)
        assert await soon(engine.run("p").result()) == "charged ann by the first"
        await check_store(engine.store, parent, first)


async def _has(engine: Any, run_id: str, kind: str) -> bool:
    return kind in await kinds_of(engine.run(run_id))


def metered(newest: bool) -> tuple[Any, Any]:
    @workflow(name="meter", version="1")
    async def one(n: int) -> str:
        await charge(f"one {n}")
        await go.receive()
        if n >= 3:
            return f"one {n}"
        await durable.continue_as_new(one(n + 1), newest=newest)

    @workflow(name="meter", version="2")
    async def two(n: int) -> str:
        await quote(f"two {n}")
        await go.receive()
        if n >= 3:
            return f"two {n}"
        await durable.continue_as_new(two(n + 1), newest=newest)

    return one, two


@pytest.mark.parametrize("newest", [True, False])
async def test_an_epoch_moves_to_the_newest_unless_told_otherwise(world: World, newest: bool) -> None:
    one, two = metered(newest)
    async with world.engine(one) as engine:
        await engine.start(one(0), id="m")
        await engine.run("m").signal(go, 1)
        await until_async(lambda: _epochs(engine, 2))
        await at_rest(engine.store, "m")
    for n in (3, 4):
        async with world.engine(one, two) as engine:  # each time from the log
            await engine.run("m").signal(go, 1)
            await until_async(lambda n=n: _epochs(engine, n))
            await at_rest(engine.store, "m")
            attributes = (await engine.store.head("run:m")).attributes
            assert attributes["version"] == ("2" if newest else "1")
    async with world.engine(one, two) as engine:
        await engine.run("m").signal(go, 1)
        assert await soon(engine.run("m").result()) == ("two 3" if newest else "one 3")
        events = await events_of(engine.run("m"))
        versions = [event.version for event in events if isinstance(event, RunStarted)]
        assert versions == (["1", "1", "2", "2"] if newest else ["1", "1", "1", "1"])
        assert {event.pinned for event in events if isinstance(event, ContinuedAsNew)} == {not newest}


async def _epochs(engine: Any, count: int) -> bool:
    return (await kinds_of(engine.run("m"))).count("RunStarted") >= count


async def test_a_crash_at_any_call_between_two_epochs_of_other_versions(worlds: Any) -> None:
    from contextlib import suppress

    from engine import Engine
    from engine.errors import EngineFailed
    from eventstore import StoreUnavailable
    from tests.runtime.faulty import FaultyStore, at_call

    for number in range(1, 25):
        for fault in ("die before", "die after"):
            one, two = metered(True)
            world: World = worlds()
            async with world.engine(one) as engine:
                await engine.start(one(2), id="m")
                await at_rest(engine.store, "m")
                await until_async(lambda: _has(engine, "m", "TaskCompleted"))
                await at_rest(engine.store, "m")
            async with world.engine() as client:
                await client.run("m").signal(go, 1)
            faulty = FaultyStore(await world.store(), at_call(number, fault))
            with suppress(StoreUnavailable, EngineFailed):
                async with Engine(faulty, workflows=[one, two], clock=world.clock, grace=0) as engine:
                    await until_async(lambda: _epochs(engine, 2))
                    await at_rest(engine.store, "m")
            if not faulty.dead:
                faulty.die()
            async with world.engine(one, two) as engine:
                await until_async(lambda: _epochs(engine, 2))
                await engine.run("m").signal(go, 2)
                assert await soon(engine.run("m").result()) == "two 3", (number, fault)


def test_what_cannot_be_served_together(world: World) -> None:
    with pytest.raises(DefinitionError, match="two workflows are named 'order' and have version '1'"):
        _engine(first, workflow(name="order", version="1")(second.fn))
    with pytest.raises(DefinitionError, match=r"another @workflow\(version=...\) if it is a newer version"):
        _engine(unversioned, workflow(name="order")(second.fn))
    for bad in ("a b", "x" * 41, 2, "a\n"):
        with pytest.raises(DefinitionError, match="version is a text of at most 40 printable characters"):
            workflow(name="order", version=bad)(second.fn)  # type: ignore[arg-type]
    assert first.options(deadline=5.0).version == "1"


def _engine(*workflows: Any) -> Any:
    from engine import Engine

    return Engine("memory:", workflows=workflows)
