"""`start` is idempotent on the id, refuses what cannot run before anything is recorded; `result` is only ever a look."""

from __future__ import annotations

import asyncio
import gc
import threading
from datetime import date

import pytest
from msgspec import Struct

from engine import RunHandle, task, workflow
from engine.errors import (
    ArgumentsError,
    HoldfastError,
    NotRecordable,
    PayloadTooLarge,
    RunCancelledError,
    RunConflict,
    RunNotFound,
    UnknownWorkflow,
)
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, forget, kinds_of, settle, soon, until

ran: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task
async def note(n: int) -> int:
    ran.append(n)
    return n


@workflow
async def noting(n: int, again: int = 1) -> int:
    for _ in range(again):
        await note(n)
    return n


@workflow
async def other(n: int) -> int:
    return n


@task
async def block() -> None:
    ran.append(0)
    await asyncio.Event().wait()


@workflow
async def blocked() -> None:
    await block()


async def test_the_same_call_is_the_same_run(world: World) -> None:
    async with world.engine(noting, blocked, grace=0) as engine:
        first = await engine.start(noting(7), id="a")
        again = await engine.start(noting(7), id="a")
        assert again.id == first.id == "a"
        assert await soon(asyncio.gather(first.result(), again.result())) == [7, 7]
        finished = await engine.start(noting(7, again=1), id="a")  # the default, written out
        assert await soon(finished.result()) == 7
        running = await engine.start(blocked(), id="b")
        await until(lambda: 0 in ran)
        assert (await engine.start(blocked(), id="b")).id == running.id
        assert ran == [7, 0]
        assert len((await engine.runs()).items) == 2
        await check_history(engine.store, "a", noting)


async def test_twenty_at_once(world: World) -> None:
    async with world.engine(noting) as engine:
        runs = await soon(asyncio.gather(*(engine.start(noting(3), id="a") for _ in range(20))))
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == [3] * 20
        assert ran == [3]
        await check_history(engine.store, "a", noting)


async def test_twenty_at_once_from_two_engines(world: World) -> None:
    async with world.engine(noting) as one, world.engine(noting) as two:
        starts = [engine.start(noting(3), id="a") for _ in range(10) for engine in (one, two)]
        runs = await soon(asyncio.gather(*starts))
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == [3] * 20
        assert ran == [3]


async def test_twenty_at_once_that_do_not_agree(world: World) -> None:
    async with world.engine(noting) as engine:
        starts = [engine.start(noting(n % 2), id="a") for n in range(20)]
        found = await soon(asyncio.gather(*starts, return_exceptions=True))
        refused = [error for error in found if isinstance(error, RunConflict)]
        attached = [run for run in found if isinstance(run, RunHandle)]
        assert len(refused) == len(attached) == 10
        assert len(set(await soon(asyncio.gather(*(run.result() for run in attached))))) == 1
        assert len(ran) == 1


async def test_another_call_under_the_id_is_a_conflict(world: World) -> None:
    async with world.engine(noting, other, blocked, grace=0) as engine:
        run = await engine.start(noting(7), id="a")
        with pytest.raises(RunConflict, match="'a'"):
            await engine.start(noting(8), id="a")
        with pytest.raises(RunConflict):
            await engine.start(other(7), id="a")
        assert await soon(run.result()) == 7
        for _ in range(3):
            with pytest.raises(RunConflict):
                await engine.start(noting(8), id="a")
            with pytest.raises(RunConflict):
                await engine.start(other(7), id="a")
        assert await run.status() == "completed"
        assert ran == [7]
        await check_history(engine.store, "a", noting)
    forget()
    async with world.engine(noting, other) as engine:
        with pytest.raises(RunConflict):
            await engine.start(other(7), id="a")
        assert await soon((await engine.start(noting(7), id="a")).result()) == 7


async def test_starting_again_costs_no_slot(world: World) -> None:
    """Every start of an existing run runs the first turn in vain; what it took must come back."""

    @task
    def in_thread() -> int:
        return 5

    @workflow
    async def threaded() -> int:
        return await in_thread()

    async with world.engine(noting, threaded, concurrency=1, threads=1) as engine:
        for _ in range(4):
            assert await soon((await engine.start(noting(1), id="a")).result()) == 1
            assert await soon((await engine.start(threaded(), id="b")).result()) == 5
            with pytest.raises(RunConflict):
                await engine.start(noting(2), id="a")
            forget()
        assert await soon((await engine.start(noting(9), id="c")).result()) == 9
        assert await soon((await engine.start(threaded(), id="d")).result()) == 5
    assert ran == [1, 9]


async def test_starting_again_without_the_handle(world: World) -> None:
    """The run is in memory, but nobody holds a handle on it any more."""
    async with world.engine(blocked, grace=0) as engine:
        await engine.start(blocked(), id="a")
        await until(lambda: ran)
        forget()
        run = await engine.start(blocked(), id="a")
        await settle(200)
        assert ran == [0]
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        assert ran == [0]
        await check_history(engine.store, "a", blocked)


async def test_starting_again_while_it_is_recovered(world: World) -> None:
    """A program that is run again starts its run at once, while the engine claims what the last one left."""
    for round_ in range(1, 6):
        async with world.engine(blocked, noting, grace=0) as engine:
            await settle(round_)
            run = await soon(engine.start(blocked(), id="a"))
            await until(lambda: len(ran) == round_)
            assert await run.status() == "running"
            await check_history(engine.store, "a", blocked)
    async with world.engine(blocked, grace=0) as engine:
        run = await soon(engine.start(blocked(), id="a"))
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())


async def test_fresh_ids(memory: MemoryWorld) -> None:
    async with memory.engine(noting) as engine:
        runs = [await engine.start(noting(1)) for _ in range(50)]
        assert len({run.id for run in runs}) == 50
        assert all("noting" in run.id for run in runs)
        await soon(asyncio.gather(*(run.result() for run in runs)))
        assert len(ran) == 50


@pytest.mark.parametrize("id_", ["", "x" * 201, "a\nb", "a\x00b", "\ud800", "é" * 200 + "x", 7, b"bytes", "ü" * 201])
async def test_bad_ids(memory: MemoryWorld, id_) -> None:
    async with memory.engine(noting) as engine:
        with pytest.raises(HoldfastError, match="cannot be a run's id"):
            await engine.start(noting(1), id=id_)
        with pytest.raises(HoldfastError, match="cannot be a run's id"):
            engine.run(id_)
        assert (await engine.runs()).items == ()
    gc.collect()


@pytest.mark.parametrize("id_", ["x" * 200, "a:b", "a/b", " ", "run:a", "日本", "é" * 200, "a~b#1", "%s{}'\""])
async def test_odd_ids(world: World, id_: str) -> None:
    async with world.engine(noting) as engine:
        run = await engine.start(noting(1), id=id_)
        assert await soon(run.result()) == 1
        assert [summary.id for summary in (await engine.runs()).items] == [id_]
        await check_history(engine.store, id_, noting)


class Order(Struct):
    item: str
    count: int


async def test_arguments_are_refused_before_anything_is_recorded(world: World) -> None:
    @workflow
    async def ordering(order: Order, day: date) -> str:
        return order.item

    async with world.engine(ordering, noting) as engine:
        refusals = [
            (ArgumentsError, lambda: ordering("book", date(2026, 1, 1))),
            (ArgumentsError, lambda: ordering(Order("book", "three"), date(2026, 1, 1))),
            (ArgumentsError, lambda: ordering(Order("book", 1), "tomorrow")),
            (ArgumentsError, lambda: ordering(Order("book", 1))),
            (ArgumentsError, lambda: ordering(Order("book", 1), date(2026, 1, 1), "more")),
            (NotRecordable, lambda: ordering(Order(threading.Lock(), 1), date(2026, 1, 1))),
            (PayloadTooLarge, lambda: ordering(Order("x" * 2**20, 1), date(2026, 1, 1))),
            (UnknownWorkflow, lambda: other(1)),
        ]
        for error, call in refusals:
            with pytest.raises(error):
                await engine.start(call(), id="a")
        for nonsense in (None, noting, noting.fn, "noting"):
            with pytest.raises(HoldfastError):
                await engine.start(nonsense)
        call = note(1)
        with pytest.raises(HoldfastError):
            await engine.start(call)
        call.close()
        assert (await engine.runs()).items == ()
        forget()
        run = await engine.start(ordering(Order("book", 1), date(2026, 1, 1)), id="a")
        assert await soon(run.result()) == "book"


async def test_a_call_is_started_once(memory: MemoryWorld) -> None:
    async with memory.engine(noting) as engine:
        call = noting(1)
        await engine.start(call)
        with pytest.raises(RuntimeError):
            await call


async def test_cancelling_the_awaiter_does_not_cancel_the_run(world: World) -> None:
    released = asyncio.Event()

    @task
    async def slow() -> str:
        ran.append(1)
        await released.wait()
        return "done"

    @workflow
    async def slowly() -> str:
        return await slow()

    async with world.engine(slowly) as engine:
        run = await engine.start(slowly(), id="a")
        waiting = [asyncio.create_task(run.result()) for _ in range(5)]
        await until(lambda: ran)
        waiting[0].cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.result()
        released.set()
        results = await soon(asyncio.gather(*waiting, return_exceptions=True))
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == ["done"] * 4
        assert "CancelRequested" not in await kinds_of(run)


async def test_cancelling_start_at_every_point(world: World) -> None:
    """The run was recorded or not; either way the same start again is that run."""
    for steps in range(1, 11):
        ran.clear()
        async with world.engine(noting) as engine:
            starting = asyncio.create_task(engine.start(noting(steps), id=f"run-{steps}"))
            await settle(steps)
            starting.cancel()
            await asyncio.wait([starting])
            run = await soon(engine.start(noting(steps), id=f"run-{steps}"))
            assert await soon(run.result()) == steps
            assert ran == [steps]
            await check_history(engine.store, f"run-{steps}", noting)


async def test_many_wait_for_one_and_one_for_many(world: World) -> None:
    async with world.engine(noting) as engine, world.engine() as client:
        runs = [await engine.start(noting(n), id=f"run-{n}") for n in range(60)]
        here = [run.result() for run in runs for _ in range(3)]
        there = [client.run(run.id).result() for run in runs for _ in range(3)]
        results = await soon(asyncio.gather(*here, *there))
        assert results == [n for n in range(60) for _ in range(3)] * 2
        await check_store(engine.store, noting)


async def test_result_is_of_the_annotated_type(memory: MemoryWorld) -> None:
    @workflow
    async def ordering(order: Order, day: date) -> dict[date, Order]:
        return {day: order}

    async with memory.engine(ordering) as engine:
        run = await engine.start(ordering(Order("book", 2), date(2026, 1, 1)), id="a")
        assert await soon(run.result()) == {date(2026, 1, 1): Order("book", 2)}
        # Without the code: plain JSON.
        assert await soon(engine.run("a").result()) == {"2026-01-01": {"item": "book", "count": 2}}


async def test_no_such_run(world: World) -> None:
    async with world.engine(noting) as engine, world.engine() as client:
        for desk in (engine, client):
            run = desk.run("nobody")
            for ask in (run.result, run.status, run.state, run.cancel, run.resume):
                with pytest.raises(RunNotFound, match="nobody"):
                    await soon(ask())
            for follow in (False, True):
                with pytest.raises(RunNotFound, match="nobody"):
                    async for _ in run.events(follow=follow):
                        raise AssertionError("an event of nobody")


async def test_a_handle_made_before_its_run(world: World) -> None:
    async with world.engine(noting) as engine:
        early = engine.run("a")
        with pytest.raises(RunNotFound):
            await early.result()
        await engine.start(noting(4), id="a")
        assert await soon(early.result()) == 4


async def test_following_events_to_the_end(world: World) -> None:
    async with world.engine(noting) as engine, world.engine() as client:
        run = await engine.start(noting(2, again=5), id="a")

        async def follow(handle: RunHandle, after: int = 0) -> list[int]:
            return [item.version async for item in handle.events(after=after, follow=True)]

        found = await soon(asyncio.gather(follow(run), follow(client.run("a")), follow(run, after=3)))
        version = (await run.state()).version
        assert found == [list(range(1, version + 1))] * 2 + [list(range(4, version + 1))]


async def test_unfinished(world: World) -> None:
    async with world.engine(blocked, noting, grace=0) as engine:
        call = blocked()
        assert await engine.unfinished(call) is None
        run = await engine.start(call, id="a")
        await until(lambda: ran)
        done = await engine.start(noting(1), id="b")
        await soon(done.result())
        call, finished = blocked(), noting(1)
        found = await engine.unfinished(call)
        assert found is not None
        assert found.id == run.id
        assert await engine.unfinished(finished) is None
        await (await engine.start(call, id="c")).status()
        finished.close()


async def test_pages_of_runs(world: World) -> None:
    async with world.engine(noting, other) as engine:
        for n in range(7):
            world.clock.advance(1)
            await soon((await engine.start(noting(n) if n % 2 else other(n), id=f"run-{n}")).result())
        found, cursor = [], None
        while True:
            page = await engine.runs(limit=2, cursor=cursor)
            found += [summary.id for summary in page.items]
            if (cursor := page.next) is None:
                break
        assert found == [f"run-{n}" for n in reversed(range(7))]
        oldest = await engine.runs(newest_first=False, workflow="noting", status="completed")
        assert [summary.id for summary in oldest.items] == ["run-1", "run-3", "run-5"]
        assert (await engine.runs(status=("running", "failed"))).items == ()
        assert all(summary.updated_at >= summary.created_at for summary in oldest.items)


async def test_runs_that_an_engine_is_not_for(world: World) -> None:
    """An engine for some runs would drive another until its first rest, and then forget it: it refuses to start it."""
    async with world.engine(noting, only=["a"]) as engine:
        with pytest.raises(HoldfastError, match="only"):
            await engine.start(noting(1), id="b")
        with pytest.raises(HoldfastError, match="only"):
            await engine.start(noting(1))
        assert (await engine.runs()).items == ()
        assert await soon((await engine.start(noting(1), id="a")).result()) == 1
