"""Pools: attempts at once, shared by all runs and all engines on a store, whatever becomes of those who wait or hold."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Transaction, attempt, durable, task, workflow
from engine.core.events import TaskCancelled, TaskFailed, TaskStarted
from engine.errors import (
    EngineFailed,
    RunCancelledError,
    RunFailedError,
    RunTerminatedError,
    TaskTimeout,
)
from engine.runtime.lines import WAITING_MAX
from eventstore import EventStoreError
from eventstore.port import COMMIT_PERMITS_MAX, GRANT_SECONDS
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history, check_store
from tests.runtime.rooms import Room, held_in, nothing_held, permits_in, waiting_in
from tests.runtime.worlds import MemoryWorld, SqliteWorld, World, at_rest, events_of, settle, soon, until, until_async

room = Room()


@pytest.fixture(autouse=True)
def _an_empty_room() -> None:
    room.__init__()  # type: ignore[misc]


@task(pool="room")
async def visit(who: str) -> str:
    return await room.visit(who)


@task
async def mark(n: int) -> int:
    return n


@workflow
async def several(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*(visit(name) for name in names)))


@workflow
async def one(name: str) -> str:
    return await visit(name)


@workflow
async def free(n: int) -> int:
    return await mark(n)


async def test_transactions_one_after_another_do_not_wait_for_themselves(sqlite: SqliteWorld) -> None:
    """The permit of one is returned before the next asks for it: in a pool they cost no commit more."""

    @task(effect="transactional")
    def book(tx: Transaction, name: str) -> str:
        return tx.execute("SELECT ?", (name,))[0][0]

    @task(pool="room", effect="transactional")
    def book_in_room(tx: Transaction, name: str) -> str:
        return tx.execute("SELECT ?", (name,))[0][0]

    @workflow
    async def booking(names: list[str], pooled: bool) -> list[str]:
        return [await (book_in_room if pooled else book)(name) for name in names]

    store = FaultyStore(await sqlite.store())
    async with Engine(store, workflows=[booking], pools={"room": 1}, clock=sqlite.clock) as engine:
        commits = []
        for pooled in (False, True):
            before = store.calls.count("commit")
            assert await soon((await engine.start(booking([*"abcde"], pooled))).result()) == [*"abcde"]
            await settle()
            commits.append(store.calls.count("commit") - before)
        await nothing_held(engine.store)
        assert commits[0] == commits[1]


async def in_line(store: Any, count: int, pool: str = "room") -> None:
    """Wait until so many wait in the store."""

    async def so_many() -> bool:
        return waiting_in(store)[pool] == count

    await until_async(so_many)


async def nothing_happens(engine: Any) -> None:
    """Another run, from its start to its end: whatever was about to happen has happened."""
    for _ in range(3):
        await soon((await engine.start(free(1))).result())
        await settle()


async def test_no_more_than_its_slots(world: World) -> None:
    async with world.engine(several, free, pools={"room": 2}) as engine:
        names = [f"guest-{n}" for n in range(7)]
        run = await engine.start(several(names), id="a")
        for gone in range(5):
            inside = await room.holds(2)
            await nothing_happens(engine)
            assert room.inside == inside
            assert held_in(engine.store)["room"] == 2
            room.let_go(inside[0])
            await until(lambda gone=gone: len(room.order) == gone + 3)
        room.let_all_go()
        assert await soon(run.result()) == names
        assert room.order == names, "first come, first served"
        await nothing_held(engine.store)
        await check_store(engine.store, several, free)
    assert room.most == 2


async def test_runs_and_engines_share_it(world: World) -> None:
    """Two engines, a third that only declares it: more than its slots are never inside."""
    async with (
        world.engine(one, several, free, pools={"room": 3}, worker="a") as first,
        world.engine(one, several, free, pools={"room": 3}, worker="b") as second,
    ):
        runs = [await engine.start(one(f"{engine._worker_name}-{n}")) for engine in (first, second) for n in range(6)]
        runs += [await second.start(several([f"s-{n}" for n in range(6)]))]
        while len(room.order) < 18:
            await room.holds(3)
            room.let_go(room.inside[0])
            await until(lambda seen=len(room.order): len(room.order) > seen or seen == 18)
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(first.store)
        await check_store(first.store, one, several)
    assert (room.most, len(room.order)) == (3, 18)


async def test_a_permit_is_taken_with_the_record_of_the_start(world: World) -> None:
    """Whenever an attempt is recorded as begun and has no end, a permit is held for it; and the other way round."""
    async with world.engine(several, pools={"room": 2}) as engine:
        run = await engine.start(several([f"guest-{n}" for n in range(4)]), id="a")
        await room.holds(2)
        started = [event.id for event in await events_of(run) if isinstance(event, TaskStarted)]
        assert len(started) == 2
        assert (held_in(engine.store)["room"], waiting_in(engine.store)["room"]) == (2, 2)
        room.let_all_go()
        await soon(run.result())
        await nothing_held(engine.store)


async def test_who_waits_holds_no_slot_of_an_executor(world: World) -> None:
    """One slot on the loop: the one who waits for the pool leaves it to others."""
    async with world.engine(one, free, pools={"room": 1}, concurrency=2) as engine:
        runs = [await engine.start(one(f"guest-{n}")) for n in range(4)]
        await room.holds(1)
        await in_line(engine.store, 3)
        assert await soon((await engine.start(free(5))).result()) == 5
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))


@pytest.mark.parametrize("cached", [0, 100])
async def test_a_run_that_waits_need_not_be_in_memory(cached: int, world: World) -> None:
    async with world.engine(one, free, pools={"room": 1}, cached=cached) as engine:
        first = await engine.start(one("first"), id="first")
        await room.holds(1)
        others = [await engine.start(one(f"guest-{n}"), id=f"run-{n}") for n in range(5)]
        for run in others:
            await at_rest(engine.store, run.id)
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in (first, *others))))
        await nothing_held(engine.store)
        await check_store(engine.store, one)


async def test_more_waiting_runs_than_an_engine_has_in_memory(world: World) -> None:
    """The one inside is not kept from its end by those who wait, however few runs an engine may hold."""
    async with world.engine(one, free, pools={"room": 1}, runs=1, cached=0) as engine:
        runs = [await engine.start(one(f"guest-{n}"), id=f"run-{n}") for n in range(4)]
        await room.holds(1)
        room.let_all_go()
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(engine.store)
    assert room.most == 1


async def test_a_failure_returns_it(world: World) -> None:
    @task(pool="room")
    async def fail(who: str) -> None:
        await room.visit(who)
        raise ValueError(who)

    @workflow
    async def failing(names: list[str]) -> list[str]:
        found = await asyncio.gather(*(fail(name) for name in names), return_exceptions=True)
        return [str(each) for each in found]

    async with world.engine(failing, pools={"room": 1}) as engine:
        room.let_all_go()
        assert await soon((await engine.start(failing(["a", "b", "c"]))).result()) == ["a", "b", "c"]
        await nothing_held(engine.store)
    assert room.most == 1


async def test_between_two_attempts_others_have_it(world: World) -> None:
    """An attempt that failed gives its slot back, while it waits for its next; then it stands in line as any other."""

    @task(pool="room", stop=stop_after_attempt(3), wait=wait_fixed(50))
    async def stubborn(who: str) -> int:
        await room.visit(f"{who}-{attempt().number}")
        if attempt().number < 3:
            raise ConnectionError(who)
        return attempt().number

    @workflow
    async def trying() -> int:
        return await stubborn("it")

    async with world.engine(trying, one, pools={"room": 1}) as engine:
        run = await engine.start(trying(), id="a")
        assert await room.holds(1) == ["it-1"]
        room.let_go("it-1")
        other = await engine.start(one("other"), id="b")
        await until(lambda: room.inside == ["other"])
        world.clock.advance(60)
        await in_line(engine.store, 1)
        assert room.order == ["it-1", "other"]
        room.let_go("other")
        await until(lambda: room.inside == ["it-2"])
        room.let_go("it-2", "it-3")
        await until(lambda: not room.inside)
        await nothing_held(engine.store)

        async def third() -> bool:
            world.clock.advance(50)
            return await run.status() == "completed"

        await until_async(third)
        assert await soon(run.result()) == 3
        assert await soon(other.result()) == "other"
        await nothing_held(engine.store)
        await check_store(engine.store, trying, one)


async def test_timed_out_attempts_return_it(world: World) -> None:
    """A timeout counts from the start of the attempt, not while it waits."""

    @task(pool="room", timeout=10)
    async def short(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def timed(who: str) -> str:
        try:
            return await short(who)
        except TaskTimeout:
            return f"{who} took too long"

    async with world.engine(timed, free, pools={"room": 1}) as engine:
        runs = [await engine.start(timed(name), id=name) for name in ("a", "b")]
        await room.holds(1)
        await in_line(engine.store, 1)
        world.clock.advance(10)
        await until(lambda: len(room.order) == 2)
        await room.holds(1)
        world.clock.advance(9)
        await nothing_happens(engine)
        room.let_all_go()
        first, second = room.order
        found = {run.id: await soon(run.result()) for run in runs}
        assert found == {first: f"{first} took too long", second: second}
        await nothing_held(engine.store)


async def test_a_deadline_counts_while_it_waits(world: World) -> None:
    @task(pool="room", deadline=100)
    async def hurried(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def in_time(who: str) -> str:
        try:
            return await hurried(who)
        except TaskTimeout:
            return "too late"

    async with world.engine(in_time, one, free, pools={"room": 1}) as engine:
        first = await engine.start(one("first"))
        await room.holds(1)
        late = await engine.start(in_time("late"), id="late")
        await in_line(engine.store, 1)
        await at_rest(engine.store, "late")
        world.clock.advance(101)
        assert await soon(late.result()) == "too late"
        await in_line(engine.store, 0)
        room.let_all_go()
        assert await soon(first.result()) == "first"
        assert room.order == ["first"]
        await nothing_held(engine.store)
        await check_store(engine.store, in_time, one)


# -- changes ----------------------------------------------------------------------------------------------------------


async def test_a_pool_without_slots_opens_when_it_gets_some(world: World) -> None:
    async with (
        world.engine(several, free, pools={"room": 0}) as engine,
        world.engine(one, free, pools={"room": 0}) as other,
    ):
        run = await engine.start(several(["a", "b", "c"]), id="run")
        apart = await other.start(one("d"), id="apart")
        await in_line(engine.store, 4)
        await nothing_happens(engine)
        assert room.order == []
        await other.set_pool("room", 2, by="ops", reason="opening time")
        await room.holds(2)
        await engine.set_pool("room", 4)
        await room.holds(4)
        room.let_all_go()
        await soon(asyncio.gather(run.result(), apart.result()))
        await nothing_held(engine.store)


async def test_with_fewer_slots_what_runs_goes_on(world: World) -> None:
    async with world.engine(several, free, pools={"room": 3}) as engine:
        run = await engine.start(several([f"guest-{n}" for n in range(6)]), id="a")
        inside = await room.holds(3)
        await engine.set_pool("room", 1)
        await nothing_happens(engine)
        assert room.inside == inside
        room.let_go(*inside[:2])
        await room.holds(1)
        await nothing_happens(engine)
        assert len(room.order) == 3
        room.let_go(inside[2])
        await until(lambda: len(room.order) == 4)
        for _ in range(2):
            await room.holds(1)
            room.let_go(room.inside[0])
            await until(lambda seen=len(room.order): len(room.order) > seen)
        await room.holds(1)
        room.let_all_go()
        await soon(run.result())
        await nothing_held(engine.store)


async def test_a_pool_that_is_shut_and_opened_again(world: World) -> None:
    async with world.engine(several, free, pools={"room": 1}) as engine:
        run = await engine.start(several([f"guest-{n}" for n in range(4)]), id="a")
        await room.holds(1)
        await engine.set_pool("room", 0)
        room.let_go(*room.inside)
        await room.holds(0)
        await nothing_happens(engine)
        assert len(room.order) == 1
        room.open = True
        await engine.set_pool("room", 1)
        await soon(run.result())
        await nothing_held(engine.store)
    assert room.most == 1


# -- ends and pauses of those who wait or hold -------------------------------------------------------------------------


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
async def test_a_task_that_is_cancelled_while_it_waits(on_cancel: Any, world: World) -> None:
    """It leaves the line, whatever cancelling its await means; the next in line gets in."""
    patient = visit.options(on_cancel=on_cancel)

    @workflow
    async def giving_up(who: str) -> str:
        try:
            async with asyncio.timeout(20):
                return await patient(who)
        except TimeoutError:
            return "gave up"

    async with world.engine(giving_up, one, pools={"room": 1}) as engine:
        first = await engine.start(one("first"))
        await room.holds(1)
        run = await engine.start(giving_up("second"), id="second")
        await in_line(engine.store, 1)
        third = await engine.start(one("third"))
        await in_line(engine.store, 2)
        world.clock.advance(20)
        assert await soon(run.result()) == "gave up"
        await in_line(engine.store, 1)
        cancelled = [event for event in await events_of(run) if isinstance(event, TaskCancelled)]
        assert len(cancelled) == 1
        room.let_go("first")
        await until(lambda: room.inside == ["third"])
        room.let_all_go()
        await soon(asyncio.gather(first.result(), third.result()))
        await nothing_held(engine.store)
        await check_store(engine.store, giving_up, one)


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
async def test_the_first_that_ends_calls_the_others_off(on_cancel: Any, world: World) -> None:
    """What the first gives back is not for those that are called off with its end: they never begin."""
    patient = visit.options(on_cancel=on_cancel)

    @workflow
    async def race(names: list[str]) -> str:
        branches = [asyncio.create_task(patient(name)) for name in names]
        done, others = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        await asyncio.wait(branches)
        await visit("last")
        return done.pop().result()

    async with world.engine(race, pools={"room": 1}) as engine:
        run = await engine.start(race(["a", "b", "c"]), id="race")
        await room.holds(1)
        await in_line(engine.store, 2)
        room.let_go("a")
        await until(lambda: room.inside == ["last"])
        assert held_in(engine.store)["room"] == 1
        room.let_go("last")
        assert await soon(run.result()) == "a"
        assert room.order == ["a", "last"]
        assert room.most == 1
        await nothing_held(engine.store)
        await check_store(engine.store, race)


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
async def test_a_task_that_is_cancelled_while_it_runs(on_cancel: Any, world: World) -> None:
    """Its permit is returned when its attempt has ended."""
    leaving, gone = asyncio.Event(), asyncio.Event()

    @task(pool="room", on_cancel=on_cancel)
    async def slow_to_leave(who: str) -> str:
        try:
            return await room.visit(who)
        except asyncio.CancelledError:
            room.inside.append(who)
            leaving.set()
            await gone.wait()
            room.inside.remove(who)
            raise

    @workflow
    async def giving_up(who: str) -> str:
        try:
            async with asyncio.timeout(20):
                return await slow_to_leave(who)
        except TimeoutError:
            return "gave up"

    async with world.engine(giving_up, one, free, pools={"room": 1}) as engine:
        run = await engine.start(giving_up("first"), id="first")
        await room.holds(1)
        second = await engine.start(one("second"))
        await in_line(engine.store, 1)
        world.clock.advance(20)
        await soon(leaving.wait())
        await nothing_happens(engine)
        assert room.inside == ["first"], "it is still inside, whatever its workflow thinks"
        gone.set()
        await until(lambda: room.inside == ["second"])
        room.let_all_go()
        assert await soon(run.result()) == "gave up"
        assert await soon(second.result()) == "second"
        await nothing_held(engine.store)
    assert room.most == 1


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_run_that_is_ended(how: str, inside: bool, world: World) -> None:
    """What it had goes to those who wait behind it, at once and without time passing."""
    async with world.engine(several, one, free, pools={"room": 1}) as engine:
        first = await engine.start(one("first"), id="first")
        await room.holds(1)
        many = await engine.start(several(["a", "b", "c"]), id="many")
        await in_line(engine.store, 3)
        last = await engine.start(one("last"), id="last")
        await in_line(engine.store, 4)
        if inside:
            await getattr(first, how)()
            with pytest.raises((RunCancelledError, RunTerminatedError)):
                await soon(first.result())
            await until(lambda: room.inside == ["a"])
            await getattr(many, how)()
        else:
            await getattr(many, how)()
            await in_line(engine.store, 1)
            room.let_go("first")
        with pytest.raises((RunCancelledError, RunTerminatedError)):
            await soon(many.result())
        await until(lambda: room.inside == ["last"])
        room.let_all_go()
        assert await soon(last.result()) == "last"
        await nothing_held(engine.store)
        await check_store(engine.store, one, several)
    assert room.most == 1


async def test_a_run_that_fails_beside_those_who_wait(world: World) -> None:
    """The workflow ends by an exception: what is left of it, waiting or inside, keeps nothing."""

    @workflow
    async def ends_early() -> None:
        left = [asyncio.create_task(visit(name)) for name in "abc"]  # noqa: F841
        await mark(1)
        raise ValueError("early")

    async with world.engine(ends_early, one, pools={"room": 1}) as engine:
        run = await engine.start(ends_early(), id="early")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        room.let_go("next")
        assert await soon((await engine.start(one("next"))).result()) == "next"
        await nothing_held(engine.store)
        await check_store(engine.store, ends_early, one)
    assert room.most <= 1


async def test_a_paused_run_begins_nothing_and_keeps_nobody_out(world: World) -> None:
    """What it is granted lapses; when it goes on it is served."""
    async with world.engine(one, free, pools={"room": 1}) as engine:
        first = await engine.start(one("first"), id="first")
        await room.holds(1)
        run = await engine.start(one("paused"), id="paused")
        await in_line(engine.store, 1)
        await run.pause()
        await until_async(lambda: is_status(run, "paused"))
        behind = await engine.start(one("behind"), id="behind")
        room.let_go("first", "behind")
        await soon(first.result())

        async def let_in() -> bool:
            world.clock.advance(1)
            return "behind" in room.order

        before = world.clock.now()
        await until_async(let_in)
        assert (world.clock.now() - before) / 1e6 < GRANT_SECONDS * 3
        await soon(behind.result())
        assert "paused" not in room.order
        await run.unpause()

        async def served() -> bool:
            world.clock.advance(1)
            return "paused" in room.order

        await until_async(served)
        room.let_go("paused")
        assert await soon(run.result()) == "paused"
        await nothing_held(engine.store)
        await check_store(engine.store, one)


async def is_status(run: Any, status: str) -> bool:
    return await run.status() == status


async def test_a_paused_run_lets_others_have_what_its_attempts_give_back(world: World) -> None:
    async with world.engine(several, one, pools={"room": 1}) as engine:
        run = await engine.start(several(["a", "b"]), id="paused")
        await room.holds(1)
        await run.pause()
        await until_async(lambda: is_status(run, "paused"))
        other = await engine.start(one("other"), id="other")
        room.let_go("a", "other", "b")

        async def passed() -> bool:
            world.clock.advance(1)
            return "other" in room.order

        await until_async(passed)
        assert await soon(other.result()) == "other"
        await run.unpause()

        async def over() -> bool:
            world.clock.advance(1)
            return await is_status(run, "completed")

        await until_async(over)
        await nothing_held(engine.store)
        await check_store(engine.store, several, one)
    assert room.most == 1


async def test_a_task_that_was_in_line_for_a_slot_twice(world: World) -> None:
    """Paused and let go on, it is given two slots: it uses one, with its permit, and gives that back when it has ended."""

    @task
    async def block(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def blocking() -> None:
        await asyncio.gather(block("x"), block("y"))

    @workflow
    async def two_things() -> None:
        await asyncio.gather(block("z"), visit("a"))

    async with world.engine(blocking, two_things, pools={"room": 1}, concurrency=3) as engine:
        blocker = await engine.start(blocking(), id="blocker")
        await room.holds(2)
        run = await engine.start(two_things(), id="a")
        await room.holds(3)
        for _ in range(2):
            await run.pause()
            await until_async(lambda: is_status(run, "paused"))
            await run.unpause()
            await until_async(lambda: is_status(run, "running"))
        room.let_go("x", "y")
        await soon(blocker.result())
        await until(lambda: room.inside == ["z", "a"])
        await settle()
        assert held_in(engine.store)["room"] == 1
        room.let_go("a")
        await until(lambda: room.inside == ["z"])
        await nothing_held(engine.store)
        room.let_go("z")
        await soon(run.result())
        await check_store(engine.store, blocking, two_things)


async def test_a_paused_workflow(world: World) -> None:
    """As a paused run, for all of its runs."""
    async with world.engine(one, several, pools={"room": 1}) as engine:
        first = await engine.start(several(["first"]), id="first")
        await room.holds(1)
        runs = [await engine.start(one(f"guest-{n}"), id=f"run-{n}") for n in range(3)]
        await in_line(engine.store, 3)
        await engine.pause_workflow(one)
        other = await engine.start(several(["x"]), id="other")
        room.let_all_go()

        async def passed() -> bool:
            world.clock.advance(5)
            return await is_status(other, "completed")

        await until_async(passed)
        await soon(first.result())
        assert room.order == ["first", "x"]
        await engine.unpause_workflow(one)

        async def over() -> bool:
            world.clock.advance(5)
            return all([await is_status(run, "completed") for run in runs])

        await until_async(over)
        await nothing_held(engine.store)
        await check_store(engine.store, one, several)
    assert room.most == 1


async def test_continuing_as_new_leaves_nothing_in_line(world: World) -> None:
    """Calls of one epoch that were given up, waiting or inside, are none of the next, which has the same ids."""

    @workflow
    async def again(epoch: int) -> list[str]:
        left = [asyncio.create_task(visit(f"{epoch}-{name}")) for name in "ab"]
        await mark(1)
        if epoch < 2:
            await durable.continue_as_new(again(epoch + 1))
        return [await each for each in left]

    async with world.engine(again, one, pools={"room": 1}) as engine:
        run = await engine.start(again(0), id="a")
        room.let_go("2-a", "2-b", "next")
        assert await soon(run.result()) == ["2-a", "2-b"]
        assert await soon((await engine.start(one("next"))).result()) == "next"
        await nothing_held(engine.store)
        await check_history(engine.store, "a", again)
    assert room.most == 1


# -- engines that go ---------------------------------------------------------------------------------------------------


async def test_an_engine_that_closes_gives_back_what_it_has(world: World) -> None:
    async with world.engine(one, pools={"room": 1}) as other:
        async with world.engine(several, pools={"room": 1}, grace=0) as engine:
            await engine.start(several(["a", "b"]), id="a")
            await room.holds(1)
            run = await other.start(one("other"), id="other")
            await in_line(other.store, 2)
        room.let_go("other")
        assert await soon(run.result()) == "other"
    room.let_all_go()
    async with world.engine(several, pools={"room": 1}) as engine:
        assert await soon(engine.run("a").result()) == ["a", "b"]
        await nothing_held(engine.store)
        await check_store(engine.store, several, one)
    assert room.most == 1


async def test_a_worker_that_dies_frees_what_it_had(world: World) -> None:
    """Its lease is over: another engine has the slot at once, and goes on with its runs."""
    store = await world.store()
    faulty = FaultyStore(store)
    async with world.engine(one, several, pools={"room": 1}) as living:
        with suppress(EventStoreError, EngineFailed):
            async with Engine(
                faulty, workflows=[several], pools={"room": 1}, clock=world.clock, grace=0, worker="doomed"
            ) as doomed:
                await doomed.start(several(["a", "b"]), id="a")
                await room.holds(1)
                run = await living.start(one("other"), id="other")
                await in_line(living.store, 2)
                faulty.die()
        await world.release(store)
        room.let_all_go()
        assert await soon(run.result()) == "other"
        assert await soon(living.run("a").result()) == ["a", "b"]
        await nothing_held(living.store)
        await check_store(living.store, one, several)


async def test_a_worker_that_dies_beside_strangers(world: World) -> None:
    """Nobody who lives knows its workflow, or names the pool: those who wait for what it had are told within seconds."""
    store = await world.store()
    faulty = FaultyStore(store)
    async with world.engine(one, free, pools={"room": 1}) as living:
        with suppress(EventStoreError, EngineFailed):
            async with Engine(
                faulty, workflows=[several], pools={"room": 1}, clock=world.clock, grace=0, worker="doomed"
            ) as doomed:
                await doomed.start(several(["a"]), id="a")
                await room.holds(1)
                run = await living.start(one("other"), id="other")
                await in_line(living.store, 1)
                await at_rest(living.store, "other")
                faulty.die()
        await world.release(store)
        await nothing_happens(living)
        assert "other" not in room.order
        for _ in range(3):
            world.clock.advance(2)
            await nothing_happens(living)
        await until(lambda: "other" in room.order)
        room.let_go("other")
        assert await soon(run.result()) == "other"


@pytest.mark.parametrize("inside", [True, False])
async def test_at_most_once_behind_a_limit(inside: bool, world: World) -> None:
    """Cut off inside: it is never run again, and its permit is free. Cut off in line: it had not begun, so it runs."""
    from engine.errors import TaskInterrupted

    @task(pool="room", effect="at_most_once")
    async def charge(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def paying() -> str:
        try:
            return await charge("charge")
        except TaskInterrupted:
            return "interrupted"

    async with world.engine(paying, one, pools={"room": 1}, grace=0) as engine:
        if not inside:
            await engine.start(one("first"), id="first")
            await room.holds(1)
        await engine.start(paying(), id="a")
        if inside:
            await room.holds(1)
        else:
            await in_line(engine.store, 1)
    room.let_all_go()
    async with world.engine(paying, one, pools={"room": 1}, grace=0) as engine:
        assert await soon(engine.run("a").result()) == ("interrupted" if inside else "charge")
        if not inside:
            await soon(engine.run("first").result())
        await nothing_held(engine.store)
        await check_store(engine.store, paying, one)
    assert room.most == 1


@pytest.mark.parametrize("happened", [True, False])
async def test_asking_the_outside_needs_no_permit(happened: bool, world: World) -> None:
    from engine import Happened, NotHappened

    asked: list[int] = []

    async def ask(who: str) -> Any:
        asked.append(attempt().number)
        return Happened("found") if happened else NotHappened()

    @task(pool="room", reconcile=ask)
    async def charge(who: str) -> str:
        return await room.visit(who)

    @workflow
    async def paying() -> str:
        return await charge("charge")

    async with world.engine(paying, pools={"room": 1}, grace=0) as engine:
        await engine.start(paying(), id="a")
        await room.holds(1)
    async with world.engine(one, pools={"room": 1}) as blocker:
        full = await blocker.start(one("blocker"), id="blocker")
        await until(lambda: room.inside == ["blocker"])
        async with world.engine(paying, pools={"room": 1}) as engine:
            run = engine.run("a")
            await until(lambda: asked)
            if happened:
                assert await soon(run.result()) == "found"
            else:
                await in_line(engine.store, 1)
                assert room.order == ["charge", "blocker"]
                room.let_all_go()
                assert await soon(run.result()) == "charge"
            room.let_all_go()
            await soon(full.result())
            await nothing_held(engine.store)
            await check_store(engine.store, paying, one)
    assert asked == [1]


async def test_a_task_that_is_handed_out_and_ended_while_its_next_attempt_waits(world: World) -> None:
    """The token comes back while the task stands in line for another attempt: it is over, and out of the line."""
    tokens: list[str] = []

    @task(pool="room", stop=stop_after_attempt(5), wait=wait_fixed(10))
    async def ask(who: str) -> str:
        tokens.append(attempt().token)
        await room.visit(f"{who}-{attempt().number}")
        raise ConnectionError(who)

    @workflow
    async def asking() -> str:
        return await ask("ask")

    async with world.engine(asking, one, pools={"room": 1}) as engine:
        run = await engine.start(asking(), id="a")
        await room.holds(1)
        other = await engine.start(one("other"), id="b")
        await in_line(engine.store, 1)
        room.let_go("ask-1")
        await until(lambda: room.inside == ["other"])
        world.clock.advance(11)
        await in_line(engine.store, 1)
        await engine.complete(tokens[0], "answered")
        assert await soon(run.result()) == "answered"
        await in_line(engine.store, 0)
        room.let_all_go()
        assert await soon(other.result()) == "other"
        await nothing_held(engine.store)
        await check_history(engine.store, "b", one)


async def test_a_task_that_is_handed_out_leaves_the_room(world: World) -> None:
    """Its attempt has ended; who ends the task is somebody else, perhaps in a year."""
    tokens: list[str] = []

    @task(pool="room")
    async def hand_out(who: str) -> str:
        tokens.append(attempt().token)
        attempt().later()

    @workflow
    async def handing_out() -> str:
        return await hand_out("it")

    async with world.engine(handing_out, one, pools={"room": 1}) as engine:
        room.let_all_go()
        run = await engine.start(handing_out(), id="a")
        await until(lambda: tokens)
        assert await soon((await engine.start(one("other"))).result()) == "other"
        await engine.complete(tokens[0], "done")
        assert await soon(run.result()) == "done"
        await nothing_held(engine.store)
        await check_store(engine.store, handing_out, one)


# -- sizes -------------------------------------------------------------------------------------------------------------


async def test_more_in_line_than_one_commit_may_name(memory: MemoryWorld) -> None:
    """They join, get in all at once, and end together, in more than one commit where need be."""
    width = COMMIT_PERMITS_MAX * 2 + 100
    async with memory.engine(several, free, pools={"room": 1}, concurrency=5_000) as engine:
        run = await engine.start(several([f"guest-{n}" for n in range(width)]), id="a")
        await in_line(engine.store, WAITING_MAX)
        await engine.set_pool("room", width)
        await until(lambda: len(room.inside) == width)
        assert held_in(engine.store)["room"] == width
        room.let_all_go()
        assert len(await soon(run.result(), seconds=60)) == width
        await nothing_held(engine.store)
        await check_store(engine.store, several)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_more_in_line_than_one_commit_may_name_leave(how: str, memory: MemoryWorld) -> None:
    width = COMMIT_PERMITS_MAX + 500
    async with memory.engine(several, one, pools={"room": 1}) as engine:
        run = await engine.start(several([f"guest-{n}" for n in range(width)]), id="a")
        await in_line(engine.store, WAITING_MAX)
        await getattr(run, how)()
        with pytest.raises((RunCancelledError, RunTerminatedError)):
            await soon(run.result(), seconds=60)
        room.let_all_go()
        assert await soon((await engine.start(one("next"))).result()) == "next"
        await nothing_held(engine.store)
        await check_store(engine.store, several, one)


async def test_names_of_any_length(world: World) -> None:
    """Ids of runs and calls as long as they may be are holders, too."""

    async def deep(levels: int) -> str:
        if levels:
            return await asyncio.create_task(deep(levels - 1), name="a-rather-long-name-of-a-branch" * 2)
        return (await asyncio.gather(visit("x"), visit("y")))[1]

    @workflow
    async def nested() -> str:
        return await deep(12)

    async with world.engine(nested, pools={"room": 1}) as engine:
        room.let_all_go()
        run = await engine.start(nested(), id="r" * 200)
        assert await soon(run.result()) == "y"
        await nothing_held(engine.store)
    assert room.most == 1


async def test_nothing_is_left_when_all_engines_are_gone(world: World) -> None:
    async with world.engine(several, pools={"room": 2}, grace=0) as engine:
        await engine.start(several([f"guest-{n}" for n in range(5)]), id="a")
        await room.holds(2)
    held, _ = await permits_in(world)
    assert held["room"] <= 2
    room.let_all_go()
    async with world.engine(several, pools={"room": 2}, grace=0) as engine:
        await soon(engine.run("a").result())
        await nothing_held(engine.store)
        failed = [event for event in await events_of(engine.run("a")) if isinstance(event, TaskFailed)]
        assert not failed
    assert room.most <= 2


async def test_a_transaction_gives_its_permit_back(sqlite: SqliteWorld) -> None:
    """Also when its task's completion is written by a commit of its own, and the run goes on."""

    @task
    async def linger(who: str) -> str:
        return await room.visit(who)

    @task(pool="room", effect="transactional")
    def book(tx: Transaction, name: str) -> str:
        tx.execute("CREATE TABLE IF NOT EXISTS books (name TEXT)")
        tx.execute("INSERT INTO books VALUES (?)", (name,))
        return name

    @workflow
    async def booking(names: list[str]) -> list[str]:
        found = await asyncio.gather(*(book(name) for name in names))
        await linger("z")
        return list(found)

    async with sqlite.engine(booking, pools={"room": 1}) as engine:
        run = await engine.start(booking(["a", "b", "c"]), id="a")
        await until(lambda: room.inside == ["z"])
        await nothing_held(engine.store)
        room.let_go("z")
        assert await soon(run.result()) == ["a", "b", "c"]
        await check_store(engine.store, booking)
