"""Whoever opens the store goes on with what others left; one run has one owner, and who is not the owner changes nothing."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from engine import Engine, attempt, task, workflow
from engine.core.events import TaskCompleted, TaskStarted
from eventstore import EventStore
from eventstore.memory import MemoryLease
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import (
    LONG_TTL_SECONDS,
    World,
    at_rest,
    events_of,
    settle,
    soon,
    until,
)

effects: Counter[str] = Counter()
workers: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _no_effects() -> None:
    effects.clear()
    workers.clear()


@task
async def step(run: int, n: int) -> int:
    effects[attempt().idempotency_key] += 1
    for _ in range(3):
        await asyncio.sleep(0)
    return n


@workflow
async def steps(run: int, count: int) -> int:
    total = 0
    for n in range(count):
        total += await step(run, n)
    return total


class Gate:
    """A task that tells who is inside it, and lets out when told to."""

    def __init__(self) -> None:
        self.inside: list[int] = []  # attempt numbers
        self.open = asyncio.Event()
        gate = self

        @task
        async def enter(run: int) -> int:
            effects[attempt().idempotency_key] += 1
            gate.inside.append(attempt().number)
            await gate.open.wait()
            return run

        @workflow
        async def entering(run: int) -> int:
            await enter(run)
            return await enter(run)

        self.workflow = entering


async def test_every_unfinished_run_goes_on_when_an_engine_opens(world: World) -> None:
    gate = Gate()

    @workflow
    async def resting(n: int) -> int:
        await asyncio.sleep(1_000)
        return n

    @workflow
    async def fresh(n: int) -> int:
        return n

    async with world.engine(gate.workflow, resting, fresh, grace=0, runs=8) as engine:
        for n in range(5):
            await engine.start(gate.workflow(n), id=f"busy-{n}")
            await engine.start(resting(n), id=f"rests-{n}")
        for n in range(5):
            await at_rest(engine.store, f"rests-{n}")
        for n in range(10):
            await engine.start(gate.workflow(n), id=f"waits-{n}")  # more than there is room for
        await until(lambda: len(gate.inside) >= 8)
    gate.open.set()
    async with world.engine(gate.workflow, resting, fresh) as engine:
        busy = [engine.run(f"busy-{n}") for n in range(5)] + [engine.run(f"waits-{n}") for n in range(10)]
        assert await soon(asyncio.gather(*(run.result() for run in busy))) == [*range(5), *range(10)]
        world.clock.advance(1_000)
        results = await soon(asyncio.gather(*(engine.run(f"rests-{n}").result() for n in range(5))))
        assert results == list(range(5))
        assert (await engine.runs(status="running")).items == ()
        await check_store(engine.store, gate.workflow, resting, fresh)


async def crash_one(world: World, store: EventStore) -> None:
    """The owner dies without a word; whatever it still tries, the store refuses."""
    assert isinstance(store, FaultyStore)
    store.die()


async def test_a_dead_workers_runs_go_on_while_others_live(world: World) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        living = await stack.enter_async_context(world.engine(gate.workflow))
        handle = await world.store()
        doomed_store = FaultyStore(handle)
        doomed = Engine(doomed_store, workflows=[gate.workflow], clock=world.clock, grace=0)
        await doomed.__aenter__()
        runs = [await doomed.start(gate.workflow(n), id=f"run-{n}") for n in range(6)]
        await until(lambda: len(gate.inside) == 6)
        doomed_store.die()
        gate.open.set()
        handles = [living.run(run.id) for run in runs]
        assert await soon(asyncio.gather(*(run.result() for run in handles))) == list(range(6))
        await doomed.__aexit__(None, None, None)
        await world.release(handle)
        await check_store(living.store, gate.workflow)
    for count in effects.values():
        assert count <= 2


async def test_engines_share_the_work_and_every_run_has_one_owner(world: World) -> None:
    gate = Gate()
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(world.engine(steps, gate.workflow, worker=f"w{n}", runs=5))
            for n in range(3)
        ]
        held = [await engines[0].start(gate.workflow(n), id=f"held-{n}") for n in range(15)]
        await until(lambda: len(gate.inside) == 15)  # all at once: no engine has more than five
        gate.open.set()
        assert await soon(asyncio.gather(*(run.result() for run in held))) == list(range(15))
        runs = [await engines[0].start(steps(n, 4), id=f"run-{n}") for n in range(60)]
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == [6] * 60
        for run in (*held, *runs):
            events = await check_history(engines[0].store, run.id, gate.workflow if run in held else steps)
            (worker,) = {event.worker for event in events if isinstance(event, TaskStarted)}
            workers[worker] += run in held
    assert all(count == 1 for count in effects.values())
    assert len(effects) == 2 * 15 + 4 * 60
    assert workers == {"w0": 5, "w1": 5, "w2": 5}


async def test_workers_come_and_go(world: World) -> None:
    """Engines open and close all the time, on purpose and not; nothing is lost, nothing recorded is done again."""
    recorded: set[str] = set()
    total = 24

    async def shift(n: int, *, dies: bool) -> None:
        handle = await world.store()
        store = FaultyStore(handle)
        engine = Engine(store, workflows=[steps], clock=world.clock, grace=0, worker=f"w{n}")
        async with asyncio.timeout(30):
            await engine.__aenter__()
            for _ in range(15 + n % 7):
                await asyncio.sleep(0.0005)
            if dies:
                store.die()
            await engine.__aexit__(None, None, None)
        await world.release(handle)

    async with world.engine(steps, grace=0) as engine:
        for n in range(total):
            await engine.start(steps(n, 5), id=f"run-{n}")
    async with world.engine() as office:
        n = 0
        while (await office.runs(status="running", limit=1)).items:
            n += 1
            assert n < 200
            await asyncio.gather(shift(n, dies=n % 2 == 0), shift(n + 1, dies=n % 3 == 0))
        for run in range(total):
            assert await soon(office.run(f"run-{run}").result()) == 10
            events = await check_history(office.store, f"run-{run}", steps)
            recorded |= {event.id for event in events if isinstance(event, TaskCompleted)}


async def test_a_stalled_worker_begins_nothing_after_a_takeover(worlds) -> None:
    """A pause longer than the lease: what it goes on with is refused, and no attempt begins on its side."""
    world = worlds(lease_ttl=10)
    gate = Gate()
    async with world.engine(gate.workflow, worker="first") as first:
        run = await first.start(gate.workflow(1), id="a")
        await until(lambda: gate.inside == [1])
        (lease,) = world.data._leases.values()
        lease.stall()
        async with world.engine(gate.workflow, worker="second") as second:
            await settle(50)
            assert gate.inside == [1]
            world.clock.advance(11)
            await until(lambda: gate.inside == [1, 2])
            gate.open.set()  # now both sides have an outcome; only the owner may write it
            assert await soon(second.run("a").result()) == 1
            assert await soon(run.result()) == 1
            events = await check_history(world.data, "a", gate.workflow)
            completed = [event for event in events if isinstance(event, TaskCompleted)]
            assert [event.attempt for event in completed] == [2, 1]
            starts = [(event.worker, event.attempt) for event in events if isinstance(event, TaskStarted)]
            assert starts == [("first", 1), ("second", 2), ("second", 1)]
            assert gate.inside == [1, 2, 1]


async def test_a_stalled_worker_recovers_and_works_on(worlds) -> None:
    """It finds that it was held dead, takes a new lease, and is a worker as any other."""
    world = worlds(lease_ttl=10)
    gate = Gate()
    async with world.engine(gate.workflow, worker="first") as first:
        await first.start(gate.workflow(1), id="a")
        await until(lambda: gate.inside == [1])
        for lease in list(world.data._leases.values()):
            lease.stall()
        world.clock.advance(11)
        await until(lambda: len(gate.inside) == 2)  # taken up again, by itself, under a new lease
        gate.open.set()
        assert await soon(first.run("a").result()) == 1
        run = await first.start(gate.workflow(2), id="b")
        assert await soon(run.result()) == 2
        await check_store(world.data, gate.workflow)


async def test_a_lapsed_lease_is_noticed_soon_on_sqlite(worlds) -> None:
    """A machine that slept: the one worker there is must not wait for long until it takes a new lease."""
    world = worlds("sqlite", lease_ttl=5)
    gate = Gate()
    gate.open.set()
    async with world.engine(gate.workflow) as engine:
        assert await soon((await engine.start(gate.workflow(1), id="a")).result()) == 1
        await settle(100)
        world.clock.advance(3_600)  # both clocks: no beat for an hour
        run = await soon(engine.start(gate.workflow(2), id="b"), seconds=10)
        assert await soon(run.result(), seconds=10) == 2
        await check_store(engine.store, gate.workflow)


@task(executor="threads")
def in_a_thread() -> int:
    inside.append(attempt().number)
    return 1


@task(executor="processes")
def in_a_process() -> int:
    return attempt().number


@task
async def on_the_loop() -> int:
    inside.append(attempt().number)
    return 1


inside: list[int] = []


@workflow
async def one_of(where: str) -> int:
    return await {"loop": on_the_loop, "threads": in_a_thread, "processes": in_a_process}[where]()


@pytest.mark.parametrize("where", ["loop", "threads", "processes"])
async def test_who_stands_still_between_the_last_look_and_the_attempt_begins_nothing(
    worlds, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start is on record, the lease was fresh; then the process is stopped for an hour, on the way to the attempt."""
    world = worlds(lease_ttl=10)
    inside.clear()
    asked: list[int] = []
    original = MemoryLease.fresh

    def fresh(lease: MemoryLease) -> bool:
        answer = original(lease)
        if sys._getframe(1).f_code.co_filename.endswith("pen.py") and not asked:
            asked.append(lease.token)
            lease.stall()  # from here on no beat comes
            world.clock.advance(3_600)
        return answer

    monkeypatch.setattr(MemoryLease, "fresh", fresh)
    async with world.engine(one_of) as engine:
        run = await engine.start(one_of(where), id="a")
        assert await soon(run.result()) == (2 if where == "processes" else 1)
        assert inside == ([] if where == "processes" else [2])  # under a new lease; the first attempt never began
        started = [event for event in await events_of(run) if isinstance(event, TaskStarted)]
        assert [event.attempt for event in started] == [1, 2]
        assert engine._worker is not None
        assert engine._worker.dispatcher.running == set()
        await check_history(world.data, "a", one_of)
    assert asked


async def test_effects_begin_on_one_side_only(worlds) -> None:
    """The commit of TaskStarted is slow, the lease dies meanwhile, another takes over: the first begins nothing."""
    world = worlds(lease_ttl=10)
    gate = Gate()
    gate.open.set()
    held, let_go = asyncio.Event(), asyncio.Event()

    async def slow_reply(name: str, argument: Any) -> None:
        if name == "commit" and any(b"TaskStarted" in event.header for event in argument.events) and not held.is_set():
            held.set()
            await let_go.wait()

    store = FaultyStore(world.data)
    store.after = slow_reply
    async with Engine(store, workflows=[gate.workflow], clock=world.clock, worker="first") as first:
        starting = asyncio.create_task(first.start(gate.workflow(1), id="a"))
        await held.wait()
        (lease,) = world.data._leases.values()
        lease.stall()
        async with world.engine(gate.workflow, worker="second") as second:
            world.clock.advance(11)
            await until(lambda: gate.inside)
            assert await soon(second.run("a").result()) == 1
            let_go.set()
            run = await soon(starting)
            assert await soon(run.result()) == 1
            await settle(100)
            assert gate.inside == [2, 1]  # the second's attempts; the first attempt never began
            events = await check_history(world.data, "a", gate.workflow)
            assert [event.worker for event in events if isinstance(event, TaskStarted)] == ["first", "second", "second"]


async def test_a_run_lost_on_the_way_ends_elsewhere_quietly(world: World) -> None:
    """LeaseLost in the middle of a run discards it here; its waiters hear the end from there."""
    gate = Gate()
    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[gate.workflow], clock=world.clock, worker="first") as first:
        run = await first.start(gate.workflow(1), id="a")
        waiting = asyncio.create_task(run.result())
        await until(lambda: gate.inside == [1])
        await world.crash(handle)  # its lease is dead, and it does not know
        async with world.engine(gate.workflow, worker="second"):
            await until(lambda: len(gate.inside) == 2)
            gate.open.set()
            assert await soon(waiting) == 1
            await check_history(store, "a", gate.workflow)
        other = await soon(first.start(gate.workflow(2), id="b"))
        assert await soon(other.result()) == 2
    await world.release(handle)


async def test_many_engines_open_at_once_on_orphans(world: World) -> None:
    gate = Gate()
    async with world.engine(gate.workflow, grace=0) as engine:
        for n in range(20):
            await engine.start(gate.workflow(n), id=f"run-{n}")
        await until(lambda: len(gate.inside) == 20)
    gate.open.set()
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(world.engine(gate.workflow)) for _ in range(4)]
        engines = [await one for one in opening]
        results = await soon(asyncio.gather(*(engines[n % 4].run(f"run-{n}").result() for n in range(20))))
        assert results == list(range(20))
        await check_store(engines[0].store, gate.workflow)
    assert all(count <= 2 for count in effects.values())


async def test_what_one_engine_does_not_know_another_takes(world: World) -> None:
    @workflow
    async def known(n: int) -> int:
        return await step(0, n)

    async with world.engine(known, grace=0) as engine, world.engine(steps) as other:
        run = await engine.start(known(3), id="a")
        assert await soon(other.run("a").result()) == 3
        assert await soon(run.result()) == 3


async def test_sleeping_runs_go_to_whoever_has_time(world: World) -> None:
    """A resting run is nobody's: any worker that lives when it is due takes it up."""

    @workflow
    async def napping() -> str:
        await asyncio.sleep(100)
        await step(0, 0)
        return "rested"

    async with world.engine(napping, worker="first") as first:
        await first.start(napping(), id="a")
        await at_rest(first.store, "a")
    async with world.engine(napping, worker="second") as second:
        world.clock.advance(100)
        assert await soon(second.run("a").result()) == "rested"
        events = await events_of(second.run("a"))
        assert [event.worker for event in events if isinstance(event, TaskStarted)] == ["second"]


async def test_a_run_that_wanders_between_engines(world: World) -> None:
    """It rests here, may go on there, and comes back: an instance that was kept and is of yesterday must not go on."""

    @workflow
    async def wandering(naps: int) -> list[int]:
        found = []
        for n in range(naps):
            await asyncio.sleep(100)
            found.append(await step(0, n))
        return found

    async with world.engine(wandering, worker="first") as first:
        run = await first.start(wandering(4), id="a")
        await at_rest(first.store, "a")
        for n in range(1, 4):
            async with world.engine(wandering, worker=f"visitor-{n}"):
                world.clock.advance(100)
                while (await run.state()).counts().get("completed", 0) < n:
                    await asyncio.sleep(0.001)
                await at_rest(first.store, "a")
        world.clock.advance(100)
        assert await soon(run.result()) == [0, 1, 2, 3]
        await check_history(first.store, "a", wandering)
    assert all(count == 1 for count in effects.values())


def test_the_time_to_live_of_these_tests_is_out_of_reach() -> None:
    assert LONG_TTL_SECONDS > 10 * 365 * 86_400
