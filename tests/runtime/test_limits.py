"""Limits of an engine: what is over one waits, nothing hangs, and what has finished leaves nothing in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from engine import Engine, task, workflow
from engine.core.events import TaskScheduled
from engine.errors import EngineFailed, RunCancelledError
from eventstore import StoreUnavailable
from eventstore.port import COMMIT_EVENTS_MAX
from eventstore.sqlite import SqliteStore
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, at_rest, forget, settle, soon, until
from tests.soak import finished_runs

ran: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task
async def note(n: int) -> int:
    ran.append(n)
    return n


@workflow
async def napping(n: int, naps: int) -> int:
    for _ in range(naps):
        await note(n)
        await asyncio.sleep(100)
    return n


@workflow
async def short(n: int) -> int:
    return await note(n)


@pytest.mark.parametrize("cached", [0, 1, 3, 500])
@pytest.mark.parametrize("runs", [1, 4, 2_000])
async def test_every_size_of_memory(world: World, runs: int, cached: int) -> None:
    """Runs that rest and wake, in engines of every size: the same results, each effect once."""
    count = 12 if runs == 1 else 60 if world.kind == "memory" else 15
    async with world.engine(napping, runs=runs, cached=cached) as engine:
        handles = await soon(asyncio.gather(*(engine.start(napping(n, 3), id=f"run-{n}") for n in range(count))))
        for n in range(1, 4):
            await until(lambda n=n: len(ran) == n * count)
            await asyncio.gather(*(at_rest(engine.store, handle.id) for handle in handles))
            world.clock.advance(100)
        assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == list(range(count))
        await check_store(engine.store, napping)
    assert sorted(ran) == sorted(list(range(count)) * 3)


async def test_a_full_engine_still_answers_mail(world: World) -> None:
    """All places are taken by runs that are busy; a cancel for one of them gets through, and the next moves up."""
    begun: list[int] = []

    @task
    async def endless(n: int) -> None:
        begun.append(n)
        await asyncio.Event().wait()

    @workflow
    async def busy(n: int) -> None:
        await endless(n)

    async with world.engine(busy, runs=3, grace=0) as engine:
        handles = [await engine.start(busy(n), id=f"run-{n}") for n in range(6)]
        await until(lambda: len(begun) == 3)
        await settle(100)
        assert len(begun) == 3
        for gone in range(3):
            await engine.run(f"run-{begun[gone]}").cancel()
            with pytest.raises(RunCancelledError):
                await soon(handles[begun[gone]].result())
            await until(lambda gone=gone: len(begun) >= gone + 4)
        assert sorted(begun) == list(range(6))
        await check_store(engine.store, busy)


async def test_more_runs_in_memory_than_one_query_may_name(memory: MemoryWorld) -> None:
    """Full of 1,200 busy runs: looking for their mail must stay within what a store takes."""
    begun: list[int] = []

    @task
    async def endless(n: int) -> None:
        begun.append(n)
        await asyncio.Event().wait()

    @workflow
    async def busy(n: int) -> None:
        await endless(n)

    async with memory.engine(busy, runs=1_200, concurrency=1_500, grace=0) as engine:
        handles = await asyncio.gather(*(engine.start(busy(n), id=f"run-{n}") for n in range(1_205)))
        await until(lambda: len(begun) == 1_200)
        await engine.run(f"run-{begun[7]}").cancel()
        with pytest.raises(RunCancelledError):
            await soon(handles[begun[7]].result())
        await until(lambda: len(begun) == 1_201)


async def test_a_fan_out_over_the_size_of_a_commit(world: World) -> None:
    """More decisions than one commit may hold: written in chunks, read back, replayed."""
    width = COMMIT_EVENTS_MAX + 200 if world.kind == "memory" else COMMIT_EVENTS_MAX // 2 + 1_000

    @workflow
    async def wide(width: int) -> int:
        return sum(await asyncio.gather(*(note(n) for n in range(width))))

    async with world.engine(wide, concurrency=200) as engine:
        run = await engine.start(wide(width), id="a")
        assert await soon(run.result(), seconds=60) == width * (width - 1) // 2
        assert len(ran) == width
        events = await check_history(engine.store, "a", wide)
        assert sum(isinstance(event, TaskScheduled) for event in events) == width


async def test_a_crash_between_two_chunks(memory: MemoryWorld) -> None:
    """Of a group of decisions only the first chunk is recorded: recovery appends the rest."""
    width = COMMIT_EVENTS_MAX + 100

    @workflow
    async def wide(width: int) -> int:
        return sum(await asyncio.gather(*(note(n) for n in range(width))))

    store = FaultyStore(memory.data, at_call(2, "die before", only="commit"))
    with pytest.raises((StoreUnavailable, EngineFailed)):
        async with Engine(store, workflows=[wide], clock=memory.clock, grace=0) as engine:
            run = await engine.start(wide(width), id="a")
            await soon(run.result())
    assert (await memory.data.head("run:a")).version == COMMIT_EVENTS_MAX
    assert ran == []
    async with memory.engine(wide, concurrency=500) as engine:
        assert await soon(engine.run("a").result(), seconds=60) == width * (width - 1) // 2
        assert len(ran) == width
        await check_history(memory.data, "a", wide)


async def test_finished_runs_leave_nothing_behind(world: World) -> None:
    """Neither the handle's end nor the run's keeps the other, or anything of the engine, alive."""
    async with world.engine(short) as engine:
        await soon((await engine.start(short(0))).result())
        forget()
        before = finished_runs.engine_objects()
        watched = []
        for n in range(50):
            run = await engine.start(short(n))
            watched.append(weakref.ref(run))
            assert await soon(run.result()) == n
        del run
        await settle()
        grown = finished_runs.engine_objects() - before
        assert grown.total() < 50, grown
        assert all(ref() is None for ref in watched)


async def test_runs_without_waiters_leave_nothing_behind(memory: MemoryWorld) -> None:
    async with memory.engine(short) as engine:
        await soon((await engine.start(short(0))).result())
        before = finished_runs.engine_objects()
        for n in range(100):
            await engine.start(short(n), id=f"run-{n}")
        await until(lambda: len(ran) == 101)
        await settle(100)
        grown = finished_runs.engine_objects() - before
        assert grown.total() < 50, grown


async def test_memory_is_flat_over_finished_runs(tmp_path) -> None:
    """The short version of ``python -m tests.soak.finished_runs``."""
    seen: list[int] = []
    everything: list[int] = []

    def look(_done: int) -> None:
        seen.append(finished_runs.engine_objects().total())
        everything.append(len(gc.get_objects()))

    store = await SqliteStore.open(tmp_path / "runs.db", synchronous="NORMAL")
    await finished_runs.waves(store, 3_000, look, looks=5)
    await store.aclose()
    assert len(seen) >= 5
    assert seen[-1] - seen[0] < finished_runs.SLACK, seen
    assert everything[-1] - everything[1] < 3_000, everything  # less than one object a run


async def test_resting_runs_beyond_the_cache_are_put_away(memory: MemoryWorld) -> None:
    from engine.core.instance import Instance

    before = [item for item in gc.get_objects() if isinstance(item, Instance)]  # what other tests' reports still hold
    async with memory.engine(napping, cached=5) as engine:
        for n in range(100):
            await engine.start(napping(n, 1), id=f"run-{n}")
        await asyncio.gather(*(at_rest(memory.data, f"run-{n}") for n in range(100)))

        def kept() -> int:
            forget()
            mine = [item for item in gc.get_objects() if isinstance(item, Instance) and item not in before]
            return len(mine)

        await until(lambda: kept() <= 6)


async def test_more_waiting_attempts_than_slots(world: World) -> None:
    """Many runs with many tasks on two slots: first come, first served, and nobody starves."""

    @workflow
    async def several(n: int) -> int:
        return sum(await asyncio.gather(*(note(n) for _ in range(5))))

    async with world.engine(several, concurrency=2) as engine:
        handles = await asyncio.gather(*(engine.start(several(n), id=f"run-{n}") for n in range(30)))
        assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == [5 * n for n in range(30)]
        await check_store(engine.store, several)
    assert len(ran) == 150


async def test_many_runs_at_once(worlds) -> None:
    world = worlds("sqlite")
    async with world.engine(short) as engine:
        handles = await asyncio.gather(*(engine.start(short(n), id=f"run-{n}") for n in range(300)))
        assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == list(range(300))
        await check_store(engine.store, short)


async def test_starts_and_claims_share_the_room(memory: MemoryWorld) -> None:
    """A claim is on its way for all the room there is while new runs are started: together they stay within the limit."""
    begun: list[int] = []
    claiming, let_go = asyncio.Event(), asyncio.Event()

    @task
    async def endless(n: int) -> None:
        begun.append(n)
        await asyncio.Event().wait()

    @workflow
    async def busy(n: int) -> None:
        await endless(n)

    async with memory.engine(busy, grace=0) as engine:
        for n in range(5):
            await engine.start(busy(n), id=f"old-{n}")
        await until(lambda: len(begun) == 5)
    begun.clear()
    store = FaultyStore(memory.data)

    async def hold(name: str, _argument: object) -> None:
        if name == "claim" and not claiming.is_set():
            claiming.set()
            await let_go.wait()

    store.before = hold
    async with Engine(store, workflows=[busy], clock=memory.clock, runs=3, grace=0) as engine:
        await soon(claiming.wait())
        starting = [asyncio.create_task(engine.start(busy(10 + n), id=f"new-{n}")) for n in range(3)]
        await settle(100)
        let_go.set()
        await soon(asyncio.gather(*starting))
        await settle(300)
        assert len(begun) <= 3, begun
