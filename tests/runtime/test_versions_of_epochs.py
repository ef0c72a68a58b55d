"""A run whose epochs are of different versions of its workflow: whoever replays it, each is replayed as what it was."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from engine import Engine, Query, Signal, durable, task, workflow
from engine.core.events import ContinuedAsNew, RunStarted, SignalReceived
from engine.errors import EngineFailed, RepairRefused, RunFailedError, UnknownWorkflow
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_store
from tests.runtime.test_suspension import has_status
from tests.runtime.worlds import World, at_rest, events_of, kinds_of, soon, until_async

go = Signal("go", int)
which = Query("which", None, str)

told: list[tuple[str, int]] = []
"""Which version's code was told to begin with which argument: version "1" with 0, version "2" with 1, never another."""


class Outside:
    """What a task depends on."""

    down = False


@pytest.fixture(autouse=True)
def _as_new() -> None:
    told.clear()
    Outside.down = False


@task
async def charge(what: str) -> str:
    return f"charged {what}"


@task
async def quote(what: str) -> str:
    if Outside.down:
        raise ConnectionError("no quotes today")
    return f"quoted {what}"


@workflow(name="moved", version="1")
async def moved_from(n: int) -> str:
    which.provide(lambda: "first")
    told.append(("1", n))
    await charge(f"one {n}")
    await go.receive()
    await durable.continue_as_new(moved_from(n + 1))


@workflow(name="moved", version="2")
async def moved_to(n: int) -> str:
    which.provide(lambda: "second")
    told.append(("2", n))
    await quote(f"two {n}")
    await go.receive()
    return f"two {n}"


BOTH = (moved_from, moved_to)


async def has_moved(world: World) -> tuple[int, int]:
    """Run "r" begins as version 1 and ends as version 2: how many events it has, and with which the second begins."""
    async with world.engine(*BOTH) as engine:
        run = await engine.start(moved_from(0), id="r")
        await run.signal(go, 1)
        await until_async(lambda: has_heard(engine, "r", 1))
        await run.signal(go, 2)
        assert await soon(run.result()) == "two 1"
        kinds = await kinds_of(run)
    return len(kinds), len(kinds) - kinds[::-1].index("RunStarted")


async def has_heard(engine: Engine, run_id: str, count: int) -> bool:
    """That many signals; and if they let it go on as new, also that its next epoch has begun."""
    kinds = await kinds_of(engine.run(run_id))
    return kinds.count("SignalReceived") >= count and kinds.count("RunStarted") >= 2


async def waits(engine: Engine, run_id: str) -> bool:
    """For a signal, its task being done, and nobody has it in memory."""
    at_rest = (await engine.store.head(f"run:{run_id}")).owner is None
    kinds = await kinds_of(engine.run(run_id))
    return at_rest and kinds.count("TaskCompleted") >= kinds.count("TaskScheduled") == kinds.count("RunStarted")


async def version_of(engine: Engine, run_id: str) -> str:
    return next(run.workflow_version for run in (await engine.runs()).items if run.id == run_id)


# -- forks -------------------------------------------------------------------------------------------------------------


async def test_a_fork_from_any_version_begins_as_its_origin_did_and_goes_on_as_it_has(world: World) -> None:
    """And so whenever it is read from the log: a fork is fed all epochs that it has copied."""
    versions, moved = await has_moved(world)
    forks = {f"f{at}": at for at in range(1, versions + 1)}
    async with world.engine(*BOTH, only=("nobody",)) as engine:
        for run_id, at in forks.items():
            await engine.fork("r", at=at, id=run_id)
            assert await version_of(engine, run_id) == ("1" if at < moved else "2")
    for round_, answer in ((1, "first"), (2, "second")):
        async with world.engine(*BOTH) as engine:
            for run_id in forks:
                if (await kinds_of(engine.run(run_id))).count("SignalReceived") < round_:
                    await until_async(lambda run_id=run_id: waits(engine, run_id))
                    assert await engine.run(run_id).query(which) == answer
                    await engine.run(run_id).signal(go, round_)
                    await until_async(lambda run_id=run_id: has_heard(engine, run_id, round_))
                await at_rest(engine.store, run_id)
    async with world.engine(*BOTH) as engine:
        for run_id in forks:
            assert await soon(engine.run(run_id).result()) == "two 1", run_id
            assert await engine.run(run_id).query(which) == "second"
            assert await version_of(engine, run_id) == "2"
        await check_store(engine.store, *BOTH)
    assert set(told) == {("1", 0), ("2", 1)}


async def test_a_fork_of_a_fork_has_lived_through_as_much(world: World) -> None:
    _, moved = await has_moved(world)
    async with world.engine(*BOTH) as engine:
        await engine.fork("r", at=moved, id="f")
        await until_async(lambda: waits(engine, "f"))
        kinds = await kinds_of(engine.run("f"))
        await engine.fork("f", at=len(kinds), id="ff")
        assert await version_of(engine, "ff") == "2"
        for run_id in ("f", "ff"):
            await engine.run(run_id).signal(go, 2)
            assert await soon(engine.run(run_id).result()) == "two 1"
        await check_store(engine.store, *BOTH)
    assert set(told) == {("1", 0), ("2", 1)}


async def test_a_fork_of_two_versions_whose_maker_dies_at_any_call(worlds: Any) -> None:
    """Asked for again it is the same fork, and named by the version that it goes on as once it is whole."""
    for number in range(1, 8):
        for fault in ("die before", "die after"):
            world: World = worlds()
            _, moved = await has_moved(world)
            faulty = FaultyStore(await world.store(), at_call(number, fault, only="commit"))
            with suppress(StoreUnavailable, EngineFailed):
                async with Engine(faulty, workflows=BOTH, clock=world.clock, grace=0) as engine:
                    await engine.fork("r", at=moved, id="f")
                    await until_async(lambda: waits(engine, "f"))
            if not faulty.dead:
                faulty.die()
            async with world.engine(*BOTH) as engine:
                await engine.fork("r", at=moved, id="f")
                assert await version_of(engine, "f") == "2"
                await engine.run("f").signal(go, 2)
                assert await soon(engine.run("f").result()) == "two 1", (number, fault)
            assert set(told) == {("1", 0), ("2", 1)}


async def test_a_fork_needs_the_versions_that_it_has_lived_through(world: World) -> None:
    versions, moved = await has_moved(world)
    async with world.engine(moved_to) as engine:
        for ask in (engine.fork, engine.what_if):
            with pytest.raises(UnknownWorkflow, match="'moved' in version '1' is not among"):
                await ask("r", at=versions)
    async with world.engine(moved_from) as engine:
        for ask in (engine.fork, engine.what_if):
            with pytest.raises(RepairRefused, match="goes on as version '2' of its workflow, which is not there"):
                await ask("r", at=moved)
        fork = await engine.fork("r", at=1)  # before it had moved: what it was to be later is nothing to this one
        await until_async(lambda: waits(engine, fork.id))
        assert (await fork.state()).workflow_version == await version_of(engine, fork.id) == "1"


async def test_a_fork_that_comes_to_who_has_not_all_its_versions_is_suspended_and_resumed(world: World) -> None:
    _, moved = await has_moved(world)
    async with world.engine(*BOTH) as engine:
        await engine.fork("r", at=moved, id="f")
        await until_async(lambda: waits(engine, "f"))
    async with world.engine(moved_to) as engine:
        run = engine.run("f")
        await run.signal(go, 2)
        await until_async(lambda: has_status(run, "suspended"))
        diagnosis = (await run.state()).diagnosis
        assert diagnosis is not None
        assert "the run began as version '1' of its workflow, which is not there" in diagnosis.message
    async with world.engine(*BOTH) as engine:
        await engine.run("f").resume()
        assert await soon(engine.run("f").result()) == "two 1"
        await check_store(engine.store, *BOTH)
    assert set(told) == {("1", 0), ("2", 1)}


# -- what if -----------------------------------------------------------------------------------------------------------


async def test_what_if_from_any_version(world: World) -> None:
    versions, _ = await has_moved(world)
    async with world.engine(*BOTH) as engine:
        for at in range(1, versions + 1):
            found = await engine.what_if("r", at=at)
            assert (found.would_be.result, found.diff.rows, found.problem) == (b'"two 1"', (), ""), at
            assert (found.was.workflow_version, found.would_be.workflow_version) == ("2", "2"), at
    assert set(told) == {("1", 0), ("2", 1)}


async def test_what_if_goes_on_as_the_newest_that_there_is_unless_the_run_said_which(world: World) -> None:
    @workflow(name="moved", version="3")
    async def newest(n: int) -> str:
        return f"three {n}"

    _, moved = await has_moved(world)
    async with world.engine(*BOTH, newest) as engine:
        found = await engine.what_if("r", at=1)
        assert (found.would_be.result, found.would_be.workflow_version) == (b'"three 1"', "3")
        started = [item.event for item in found.history if isinstance(item.event, RunStarted)]
        assert [event.version for event in started] == ["1", "3"]
        found = await engine.what_if("r", at=moved)  # that it went on as version 2 is in its past
        assert (found.would_be.result, found.would_be.workflow_version) == (b'"two 1"', "2")


async def test_what_if_of_a_run_that_stays_on_its_version(world: World) -> None:
    @workflow(name="staying", version="1")
    async def one(n: int) -> str:
        if n:
            return f"one {n}"
        await durable.continue_as_new(one(n + 1), newest=False)

    @workflow(name="staying", version="2")
    async def two(n: int) -> str:
        return f"two {n}"

    async with world.engine(one, two) as engine:
        run = await engine.start(one(0))
        assert await soon(run.result()) == "one 1"
        found = await engine.what_if(run.id, at=1)
        assert (found.would_be.result, found.diff.rows) == (b'"one 1"', ())


# -- queries, and what has ended ---------------------------------------------------------------------------------------


async def test_a_query_of_each_epoch(world: World) -> None:
    async with world.engine(*BOTH) as engine:
        await engine.start(moved_from(0), id="r")
        await until_async(lambda: waits(engine, "r"))
    for number, answer in ((1, "first"), (2, "second")):
        async with world.engine(*BOTH) as engine:  # each time from the log
            run = engine.run("r")
            assert await run.query(which) == answer
            await run.signal(go, number)
            await until_async(lambda run=run, number=number: has_heard(engine, "r", number))
            await at_rest(engine.store, "r")
    async with world.engine(*BOTH) as engine:
        assert await engine.run("r").query(which) == "second"
    assert set(told) == {("1", 0), ("2", 1)}


async def test_a_query_of_an_epoch_that_is_of_a_version_which_is_not_there(world: World) -> None:
    await has_moved(world)
    async with world.engine(moved_from) as engine:
        with pytest.raises(UnknownWorkflow, match="'moved' in version '2' is not among"):
            await engine.run("r").query(which)


async def test_reopening_a_run_and_a_fork_of_it_that_have_failed_in_a_later_version(world: World) -> None:
    Outside.down = True
    async with world.engine(*BOTH) as engine:
        await engine.start(moved_from(0), id="r")
        await engine.run("r").signal(go, 1)
        with pytest.raises(RunFailedError, match="no quotes today"):
            await soon(engine.run("r").result())
        kinds = await kinds_of(engine.run("r"))
        await engine.fork("r", at=kinds.index("ContinuedAsNew") + 2, id="f")
        with pytest.raises(RunFailedError, match="no quotes today"):
            await soon(engine.run("f").result())
    Outside.down = False
    async with world.engine(moved_from) as engine:
        for run_id in ("r", "f"):
            with pytest.raises(UnknownWorkflow, match="'moved' in version '2' is not among"):
                await engine.reopen(run_id)
    async with world.engine(*BOTH) as engine:
        for run_id in ("r", "f"):
            await engine.reopen(run_id, by="ada")
            await engine.run(run_id).signal(go, 2)
            assert await soon(engine.run(run_id).result()) == "two 1"
        await check_store(engine.store, *BOTH)
    assert set(told) == {("1", 0), ("2", 1)}


# -- mail that comes while it ends -------------------------------------------------------------------------------------


@workflow(name="hasty", version="1")
async def hasty_from(n: int) -> str:
    told.append(("1", n))
    await go.receive()
    await durable.continue_as_new(hasty_from(n + 1))


@workflow(name="hasty", version="2")
async def hasty_to(n: int) -> str:
    told.append(("2", n))
    return f"two {n}"


@pytest.mark.parametrize("forked", [False, True])
async def test_an_epoch_of_another_version_that_is_decided_anew_for_mail(world: World, forked: bool) -> None:
    """Its end is refused, for mail has come; what is rebuilt then begins in the epoch before, or in a fork's first."""
    store = FaultyStore(await world.store())
    sent: list[str] = []

    async def mail_comes(name: str, commit: Any) -> None:
        if name == "commit" and commit.stream == f"run:{run_id}" and commit.drained and not sent:
            sent.append(commit.id)
            await client.run(run_id).signal(go, 7)

    async with (
        world.engine() as client,
        Engine(store, workflows=[hasty_from, hasty_to], clock=world.clock, grace=5.0) as engine,
    ):
        run_id = "h"
        await engine.start(hasty_from(0), id=run_id)
        if forked:
            run_id = (await engine.fork("h", at=1, id="f")).id
        await at_rest(engine.store, run_id)
        store.before = mail_comes
        await client.run(run_id).signal(go, 1)
        assert await soon(engine.run(run_id).result()) == "two 1"
        store.before = None
        assert len(sent) == 1
        events = await events_of(engine.run(run_id))
        assert [event.version for event in events if isinstance(event, RunStarted)] == ["1", "2"]
        assert sum(isinstance(event, ContinuedAsNew) for event in events) == 1
        signals = [event for event in events if isinstance(event, SignalReceived) and not event.carried]
        assert len(signals) == 2  # none was lost
    assert set(told) == {("1", 0), ("2", 1)}
