"""An engine opens, closes and fails tidily: nothing is left behind, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest
import uvloop

from engine import Engine, attempt, durable, task, workflow
from engine.errors import DefinitionError, EngineClosed, EngineFailed, HoldfastError, UnknownWorkflow
from eventstore import EventStoreError, NotAStore, StoreClosed
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, at_rest, kinds_of, settle, soon, until, until_async


@task
async def double(n: int) -> int:
    return 2 * n


@task
def half(n: int) -> float:
    return n / 2


@workflow
async def both(n: int) -> list[float]:
    await asyncio.sleep(0.001)
    return await asyncio.gather(double(n), half(n))


class Gate:
    """A task that says when it began and ends when it is told to; counts how often."""

    def __init__(self) -> None:
        self.began = 0
        self.ended = 0
        self.keys: list[str] = []
        self.open = asyncio.Event()

    def workflow(self):
        gate = self

        @task
        async def pass_through() -> str:
            gate.began += 1
            gate.keys.append(attempt().idempotency_key)
            await gate.open.wait()
            gate.ended += 1
            return "through"

        @workflow
        async def gated() -> str:
            return await pass_through()

        return gated


async def test_a_url_is_opened_and_closed(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine(url, workflows=[both]) as engine:
        run = await engine.start(both(3), id="a")
        assert await soon(run.result()) == [6, 1.5]
    async with Engine(url, workflows=[both]) as engine:
        assert await soon(engine.run("a").result()) == [6, 1.5]
    store = await SqliteStore.open(tmp_path / "runs.db", read_only=True)
    await check_store(store, both)
    await store.aclose()


async def test_a_given_store_stays_open() -> None:
    store = MemoryStore()
    async with Engine(store, workflows=[both]) as engine:
        await soon((await engine.start(both(3), id="a")).result())
    assert (await store.head("run:a")).closed
    await store.aclose()


async def test_two_engines_on_one_store(world: World) -> None:
    async with world.engine(both) as one, world.engine(both) as other:
        first = [await one.start(both(n), id=f"one-{n}") for n in range(5)]
        second = [await other.start(both(n), id=f"other-{n}") for n in range(5)]
        world.clock.advance(1)
        results = await soon(asyncio.gather(*(run.result() for run in first + second)))
        assert results == [[2 * n, n / 2] for n in range(5)] * 2
        crossed = await soon(asyncio.gather(*(one.run(run.id).result() for run in second)))
        assert crossed == results[5:]
    store = await world.store()
    await check_store(store, both)
    await world.release(store)


async def test_two_engines_on_two_stores(worlds) -> None:
    here, there = worlds(), worlds()
    async with here.engine(both) as one, there.engine(both) as other:
        mine, theirs = await one.start(both(1), id="same"), await other.start(both(2), id="same")
        here.clock.advance(1)
        assert await soon(mine.result()) == [2, 0.5]
        await settle()
        assert await theirs.status() == "running"
        there.clock.advance(1)
        assert await soon(theirs.result()) == [4, 1.0]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_every_loop(factory, tmp_path) -> None:
    """The program's own loop, whichever; engines one after the other, each in a loop of its own."""

    async def main(n: int) -> list[float]:
        async with Engine(f"sqlite:///{tmp_path}/runs.db", workflows=[both]) as engine:
            return await soon((await engine.start(both(n), id=f"run-{n}")).result())

    for n in range(2):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main(n)) == [2 * n, n / 2]


async def test_closing_lets_attempts_finish(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    leaving = asyncio.Event()

    async def life() -> None:
        async with world.engine(gated, grace=60) as engine:
            await engine.start(gated(), id="a")
            await until(lambda: gate.began)
            leaving.set()

    closing = asyncio.create_task(life())
    await leaving.wait()
    await settle(200)
    assert not closing.done()
    gate.open.set()
    await soon(closing)
    assert gate.began == gate.ended == 1
    async with world.engine(gated) as engine:
        run = engine.run("a")
        assert await soon(run.result()) == "through"
        assert gate.began == 1
        assert "TaskCompleted" in await kinds_of(run)


async def test_closing_lets_threads_finish(world: World) -> None:
    began, opened, calls = threading.Event(), threading.Event(), []

    @task
    def pass_through() -> str:
        calls.append(attempt().number)
        began.set()
        assert opened.wait(30)
        return "through"

    @workflow
    async def gated() -> str:
        return await pass_through()

    leaving = asyncio.Event()

    async def life() -> None:
        async with world.engine(gated, grace=60) as engine:
            await engine.start(gated(), id="a")
            await until(began.is_set)
            leaving.set()

    closing = asyncio.create_task(life())
    await soon(leaving.wait())
    await settle(200)
    assert not closing.done()
    opened.set()
    await soon(closing)
    async with world.engine(gated) as engine:
        assert await soon(engine.run("a").result()) == "through"
    assert calls == [1]


async def test_no_new_attempts_while_closing(world: World) -> None:
    gate = Gate()

    @task
    async def next_one() -> int:
        raise AssertionError("begun while closing")

    @task
    async def through() -> None:
        gate.began += 1
        await gate.open.wait()

    @workflow(name="chain")
    async def chain() -> int:
        await through()
        return await next_one()

    leaving = asyncio.Event()

    async def life() -> None:
        async with world.engine(chain, grace=60) as engine:
            await engine.start(chain(), id="a")
            await until(lambda: gate.began)
            leaving.set()

    closing = asyncio.create_task(life())
    await soon(leaving.wait())
    await settle(200)
    gate.open.set()
    await soon(closing)

    @task(name="next_one")
    async def next_now() -> int:
        return 7

    @workflow(name="chain")
    async def chain_now() -> int:
        await through()
        return await next_now()

    async with world.engine(chain_now) as engine:
        assert await soon(engine.run("a").result()) == 7
        assert gate.began == 1


async def test_beyond_grace_attempts_are_cancelled_and_run_again(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    async with world.engine(gated, grace=0) as engine:
        await engine.start(gated(), id="a")
        await until(lambda: gate.began)
    assert gate.ended == 0
    gate.open.set()
    async with world.engine(gated) as engine:
        run = engine.run("a")
        assert await soon(run.result()) == "through"
        assert gate.began == 2
        assert gate.keys[0] == gate.keys[1]
        (found,) = (await run.state()).tasks.values()
        assert found.attempts == 2
        assert found.failures == 0
        await check_history(engine.store, "a", gated)


async def test_what_an_attempt_says_while_it_is_cancelled_is_recorded(memory: MemoryWorld) -> None:
    began: list[int] = []

    @task
    async def stubborn() -> str:
        began.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "last word"
        return ""

    @workflow
    async def listening() -> str:
        return await stubborn()

    async with memory.engine(listening, grace=0) as engine:
        await engine.start(listening(), id="a")
        await until(lambda: began)
    async with memory.engine(listening) as engine:
        assert await soon(engine.run("a").result()) == "last word"
    assert len(began) == 1


async def test_closing_twice(world: World) -> None:
    store = await world.store()
    engine = Engine(store, workflows=[both], clock=world.clock)
    await engine.__aenter__()
    await engine.__aexit__(None, None, None)
    await engine.__aexit__(None, None, None)
    await world.release(store)


async def test_an_engine_may_be_opened_again(world: World) -> None:
    store = await world.store()
    engine = Engine(store, workflows=[both], clock=world.clock)
    async with engine:
        first = await engine.start(both(1), id="a")
    async with engine:
        world.clock.advance(1)
        again = await engine.start(both(1), id="a")
        assert await soon(again.result()) == [2, 0.5]
        assert await soon(first.result()) == [2, 0.5]
    await world.release(store)


async def test_opening_an_open_engine_is_refused(memory: MemoryWorld) -> None:
    async with memory.engine(both) as engine:
        with pytest.raises(HoldfastError, match="open already"):
            await engine.__aenter__()
        run = await engine.start(both(1))
        memory.clock.advance(1)
        assert await soon(run.result()) == [2, 0.5]


async def test_use_before_and_after(memory: MemoryWorld) -> None:
    engine = Engine(memory.data, workflows=[both], clock=memory.clock)
    with pytest.raises(EngineClosed):
        await engine.start(both(1))
    with pytest.raises(EngineClosed):
        await engine.runs()
    async with engine:
        run = await engine.start(both(1), id="a")
    for use in (
        lambda: engine.start(both(1), id="a"),
        lambda: engine.runs(),
        lambda: run.status(),
        lambda: run.state(),
        lambda: run.cancel(),
        lambda: run.resume(),
        lambda: engine.run("a").status(),
    ):
        with pytest.raises(EngineClosed):
            await use()
    call = both(1)
    with pytest.raises(EngineClosed):
        await engine.unfinished(call)
    call.close()
    with pytest.raises((EngineClosed, EngineFailed)):
        await run.result()
    with pytest.raises(EngineClosed):
        async for _ in run.events():
            pass
    gc.collect()


async def test_whoever_waits_while_it_closes_is_told(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    async with world.engine(gated, grace=0) as engine:
        run = await engine.start(gated(), id="a")
        waiting = [asyncio.create_task(run.result()) for _ in range(3)]

        async def follow() -> list[int]:
            return [item.version async for item in run.events(follow=True)]

        following = asyncio.create_task(follow())
        await until(lambda: gate.began)
        await settle()
    results = await soon(asyncio.gather(*waiting, following, return_exceptions=True))
    told = EngineFailed | EngineClosed | StoreClosed  # the last: a look was under way
    assert all(isinstance(result, told) for result in results), results


async def test_an_exception_in_the_body_comes_out(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    with pytest.raises(ZeroDivisionError):
        async with world.engine(gated, grace=0) as engine:
            await engine.start(gated(), id="a")
            await until(lambda: gate.began)
            raise ZeroDivisionError
    gate.open.set()
    async with world.engine(gated) as engine:
        assert await soon(engine.run("a").result()) == "through"


async def test_the_body_is_cancelled(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()

    async def life() -> None:
        async with world.engine(gated, grace=0) as engine:
            run = await engine.start(gated(), id="a")
            await run.result()

    living = asyncio.create_task(life())
    await until(lambda: gate.began)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(living)
    gate.open.set()
    async with world.engine(gated) as engine:
        assert await soon(engine.run("a").result()) == "through"


@pytest.mark.parametrize("times", [1, 3])
async def test_closing_is_cancelled(world: World, times: int) -> None:
    """Whoever has no patience for the grace period: it is cut short, and still everything is put away."""
    gate = Gate()
    gated = gate.workflow()

    leaving = asyncio.Event()

    async def life() -> None:
        async with world.engine(gated, grace=3_600) as engine:
            await engine.start(gated(), id="a")
            await until(lambda: gate.began)
            leaving.set()

    living = asyncio.create_task(life())
    await soon(leaving.wait())
    await settle(200)
    assert not living.done()
    for _ in range(times):
        living.cancel()
        await settle(3)
    with pytest.raises(asyncio.CancelledError):
        await soon(living)
    gate.open.set()
    async with world.engine(gated) as engine:
        assert await soon(engine.run("a").result()) == "through"
        assert gate.began == 2


async def test_opening_is_cancelled_at_every_point(world: World) -> None:
    for steps in range(12):
        opening = asyncio.create_task(_open_and_close(world))
        await settle(steps)
        opening.cancel()
        await soon(asyncio.wait([opening]))
    async with world.engine(both) as engine:
        run = await engine.start(both(1))
        world.clock.advance(1)
        assert await soon(run.result()) == [2, 0.5]


async def _open_and_close(world: World) -> None:
    async with world.engine(both):
        await asyncio.sleep(0)


async def test_a_client_claims_nothing_and_takes_no_lease(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    async with world.engine(gated, grace=0) as worker:
        await worker.start(gated(), id="a")
        await until(lambda: gate.began)
    leases: list[str] = []
    store = await world.store()
    real = store.lease
    store.lease = lambda name: leases.append(name) or real(name)  # type: ignore[method-assign]
    async with Engine(store, clock=world.clock) as client:
        (summary,) = (await client.runs()).items
        assert (summary.id, summary.workflow, summary.status) == ("a", "gated", "running")
        run = client.run("a")
        assert (await run.state()).counts() == {"running": 1}
        assert len([event async for event in run.events()]) == summary.version
        await run.cancel(reason="client", by="me")
        with pytest.raises(UnknownWorkflow):
            await client.start(gated())
        await settle(200)
        assert await run.status() == "running"
    assert leases == []
    del store.lease
    await world.release(store)
    async with world.engine(gated) as worker:
        await until_async(lambda: _has_status(worker, "a", "cancelled"))


async def _has_status(engine: Engine, run_id: str, status: str) -> bool:
    return await engine.run(run_id).status() == status


async def test_what_cannot_be_opened_leaves_nothing(tmp_path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are no runs" * 100)
    with pytest.raises(NotAStore):
        async with Engine(f"sqlite:///{path}", workflows=[both]):
            raise AssertionError("opened")
    assert path.read_text() == "these are no runs" * 100
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_what_cannot_be_served_is_refused_before_anything_is_opened(tmp_path) -> None:
    @workflow(name="both")
    async def another() -> None: ...

    @workflow
    async def unrecordable(lock: threading.Event) -> None: ...

    url = f"sqlite:///{tmp_path}/x.db"
    for workflows in ([both, another], [double], [unrecordable], [both.fn]):
        with pytest.raises(DefinitionError):
            Engine(url, workflows=workflows)
    for option in ("concurrency", "threads", "runs"):
        with pytest.raises(HoldfastError, match=option):
            Engine(url, workflows=[both], **{option: 0})
    assert list(tmp_path.iterdir()) == []


async def test_only_the_named_runs_are_claimed(world: World) -> None:
    gate = Gate()
    gated = gate.workflow()
    async with world.engine(gated, grace=0) as engine:
        for name in "abc":
            await engine.start(gated(), id=name)
        await until(lambda: gate.began == 3)
    gate.open.set()
    async with world.engine(gated, only=["b"]) as engine:
        assert await soon(engine.run("b").result()) == "through"
        await settle(200)
        assert await engine.run("a").status() == await engine.run("c").status() == "running"
    assert gate.began == 4


def test_a_thread_outlives_engine_and_loop(tmp_path) -> None:
    """A function that does not end within the grace period goes on unheard; nothing of it comes up afterwards."""
    leave, left, complaints = threading.Event(), threading.Event(), []

    @task
    def stuck() -> int:
        began.set()
        leave.wait(30)
        left.set()
        return 1

    @workflow
    async def sticking() -> int:
        return await stuck()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with Engine(f"sqlite:///{tmp_path}/runs.db", workflows=[sticking], grace=0) as engine:
            await engine.start(sticking(), id="a")
            await until(began.is_set)

    began = threading.Event()
    hook, threading.excepthook = threading.excepthook, lambda args: complaints.append(args)
    try:
        asyncio.run(main())
        leave.set()
        assert left.wait(30)
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(5)
    finally:
        threading.excepthook = hook
    assert complaints == []
    leave.set()

    async def again() -> int:
        async with Engine(f"sqlite:///{tmp_path}/runs.db", workflows=[sticking]) as engine:
            return await soon(engine.run("a").result())

    assert asyncio.run(again()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_what_is_collected_behind_its_loop_touches_no_other() -> None:
    """A program that drops its loop with an engine open: its end is thrown into `async with` by the collector."""
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def serve(opened: asyncio.Future[object]) -> None:
        async with Engine(MemoryStore(), workflows=[both]) as engine:
            opened.set_result(weakref.ref(engine))
            await asyncio.Event().wait()

    opened: asyncio.Future[object] = loop.create_future()
    serving = loop.create_task(serve(opened))
    engine: Any = loop.run_until_complete(opened)
    serving._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.stop()
    loop.close()
    del loop, serving, opened
    asyncio.set_event_loop(other)
    try:
        for _ in range(3):
            gc.collect()
        assert engine() is None
        assert not asyncio.all_tasks(other)
    finally:
        asyncio.set_event_loop(None)
        other.close()


@pytest.mark.parametrize("worker", ["x" * 600, "nul\x00", "\ud800"])
async def test_a_worker_that_cannot_be_named_opens_nothing(tmp_path, worker: str) -> None:
    with pytest.raises((EventStoreError, HoldfastError)):
        async with Engine(f"sqlite:///{tmp_path}/runs.db", workflows=[both], worker=worker):
            raise AssertionError("opened")


async def test_by_the_machines_own_clock(tmp_path) -> None:
    """Nothing turned by hand: a rest of more than a second, given up and claimed again in time."""

    @workflow
    async def resting() -> float:
        before = durable.now()
        await asyncio.sleep(1.1)
        return (durable.now() - before).total_seconds()

    async with Engine(f"sqlite:///{tmp_path}/runs.db", workflows=[resting]) as engine:
        run = await engine.start(resting(), id="a")
        await at_rest(engine.store, "a")
        assert 1.1 <= await soon(run.result()) < 3
        await check_history(engine.store, "a", resting)


async def test_runs_of_several_engines_do_not_share_limits(worlds) -> None:
    """Slots belong to an engine: one that is stuck does not hold up another in the same process."""
    gate = Gate()
    gated = gate.workflow()
    here, there = worlds(), worlds()
    async with here.engine(gated, concurrency=1, grace=0) as stuck, there.engine(both, concurrency=1) as free:
        await stuck.start(gated(), id="a")
        await until(lambda: gate.began)
        run = await free.start(both(2), id="a")
        there.clock.advance(1)
        assert await soon(run.result()) == [4, 1.0]
