"""Limits under crashes: at every call of the store, with one engine and beside another, in chunks, and in bad company.

What must hold each time: never more permits in the store, nor more attempts inside, than the limit; everything ends as
it would undisturbed; and when all has ended nobody has a permit or waits for one.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, attempt, durable, task, workflow
from engine.core.events import TaskStarted, decode_header
from engine.errors import EngineFailed, RunCancelledError, RunSuspendedError, TaskTimeout
from eventstore import EventStoreError, StoreUnavailable
from tests.runtime.faulty import Fault, FaultyStore, Plan, at_call
from tests.runtime.invariants import check_store
from tests.runtime.rooms import Room, all_free, held_in, most_in_a_window, nothing_held, waiting_in
from tests.runtime.slices import numbers, some
from tests.runtime.test_crash_everywhere import passing_time
from tests.runtime.worlds import World, at_rest, soon, until, until_async
from tests.soak import limits as soak

ROOM, MAIL, WINDOW_SECONDS = 2, 3, 40
CALLS_MAX = 400
FAULTS: tuple[Fault, ...] = ("die before", "die after", "lose reply", "refuse")

room = Room(open_=True)


@pytest.fixture(autouse=True)
def _an_open_room() -> None:
    room.__init__(open_=True)  # type: ignore[misc]


@task(pool="room", stop=stop_after_attempt(30), wait=wait_fixed(2))
async def visit(who: str) -> str:
    await room.visit((who, attempt().number))
    if attempt().number == 1 and who.endswith("1"):
        raise ConnectionError(who)
    return who


@task(pool="room", rate="mail", priority=1)
async def tell(who: str) -> str:
    await room.visit(who)
    return who


@task(pool="room", on_cancel="wait")
async def stay(who: str) -> str:
    await room.visit(who)
    await asyncio.sleep(0)
    return who


@task(pool="room", deadline=10_000)
async def linger(who: str) -> str:
    room.inside.append(who)
    room.most = max(room.most, len(room.inside))
    try:
        await asyncio.Event().wait()
    finally:
        room.inside.remove(who)
    return who


@workflow
async def crowd(name: str) -> list[str]:
    """Waits, holds, retries, is cancelled in line and inside, and goes on as new."""
    found = list(await asyncio.gather(*(visit(f"{name}-{n}") for n in range(3)), tell(name)))
    try:
        async with asyncio.timeout(15):
            await asyncio.gather(linger(f"{name}-a"), linger(f"{name}-b"), stay(name))
    except (TimeoutError, TaskTimeout):
        found.append("gave up")
    return found


@workflow
async def epochs(name: str, left: int) -> str:
    leaving = [asyncio.create_task(linger(f"{name}-{left}-{n}")) for n in range(2)]  # noqa: F841
    await visit(f"{name}-{left}")
    if left:
        await durable.continue_as_new(epochs(name, left - 1))
    return await tell(name)


WORKFLOWS = [crowd, epochs]
EXPECTED = [["a-0", "a-1", "a-2", "a", "gave up"], ["b-0", "b-1", "b-2", "b", "gave up"], "c"]


class Watching(FaultyStore):
    """Looks after every call that no more is held than there is."""

    def __init__(self, inner: Any, plan: Plan = lambda _number, _name: None) -> None:
        super().__init__(inner, plan)
        self.after = self._look

    async def _look(self, name: str, _argument: Any) -> None:
        if name == "commit":
            held = held_in(self.inner)
            assert held["room"] <= ROOM, f"{held['room']} permits of {ROOM}"
            assert held["mail"] <= MAIL, f"{held['mail']} stamps of {MAIL}"


@asynccontextmanager
async def opened(store: FaultyStore, world: World, **options: Any) -> AsyncIterator[Engine]:
    limits = {"pools": {"room": ROOM}, "rates": {"mail": f"{MAIL}/{WINDOW_SECONDS}s"}}
    async with Engine(store, workflows=WORKFLOWS, clock=world.clock, grace=0, **limits, **options) as engine:
        yield engine


async def act(engine: Engine) -> list[Any]:
    calls = (lambda: crowd("a"), lambda: crowd("b"), lambda: epochs("c", 2))
    runs = [await engine.start(call(), id=f"run-{n}") for n, call in enumerate(calls)]
    return list(await asyncio.gather(*(persisting(engine, run.id) for run in runs)))


async def persisting(engine: Engine, run_id: str) -> Any:
    """Its result; a run that is parked, for its workers died so often, is let go on."""
    while True:
        try:
            return await engine.run(run_id).result()
        except RunSuspendedError:
            state = await engine.run(run_id).state()
            assert state.diagnosis is None or state.diagnosis.reason == "crashes", state.diagnosis
            await engine.run(run_id).resume()
            await asyncio.sleep(0)


async def perform(world: World, plan: Plan) -> tuple[Any, FaultyStore]:
    """Act until the planned crash, or the end."""
    handle = await world.store()
    store = Watching(handle, plan)
    found = None
    try:
        async with opened(store, world) as engine, passing_time(world):
            found = await soon(act(engine))
    except (StoreUnavailable, EngineFailed):
        assert store.faults, "nothing was planned to fail"
    if not store.dead:
        store.die()
    await world.release(handle)
    gc.collect()
    assert not room.inside, "attempts that outlive their engine"
    return found, store


async def go_on(world: World) -> Any:
    handle = await world.store()
    store = Watching(handle)
    try:
        async with opened(store, world) as engine, passing_time(world):
            found = await soon(act(engine))
            await all_free(handle, "room", ROOM)
        await check_store(handle, *WORKFLOWS)
        await check_rates(handle)
        assert not any(waiting_in(handle).values())
    finally:
        await world.release(handle)
    return found


async def check_rates(store: Any) -> None:
    times = []
    async for item in store.read_all(category="run"):
        event = decode_header(item.header)
        if isinstance(event, TaskStarted) and "/tell#" in event.id:
            times.append(event.at)
    assert most_in_a_window(sorted(times), WINDOW_SECONDS) <= MAIL, times


async def undisturbed(world: World) -> list[str]:
    found, store = await perform(world, lambda _number, _name: None)
    assert found == EXPECTED
    return store.calls


async def crashed(world: World, number: int, fault: Fault, *, only: str | None = None) -> bool:
    """Whether there was such a call."""
    room.__init__(open_=True)  # type: ignore[misc]
    found, store = await perform(world, at_call(number, fault, only=only))
    assert found in (None, EXPECTED)
    where = f"{fault} call {number} ({store.calls[-1]})"
    assert await go_on(world) == EXPECTED, where
    assert room.most <= ROOM, where
    return store.faults > 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_crash_at_every_call(fault: Fault, worlds) -> None:
    calls = await undisturbed(worlds())
    for number in numbers(CALLS_MAX, offset=len(fault)):
        if not await crashed(worlds(), number, fault):
            break
    else:
        pytest.fail(f"it makes more than {CALLS_MAX} calls")
    assert number > len(calls) // 2


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_crash_at_some_commits_on_sqlite(fault: Fault, worlds) -> None:
    calls = await undisturbed(worlds("sqlite"))
    for number in some(range(1 + FAULTS.index(fault), calls.count("commit"), 7), of=4):
        await crashed(worlds("sqlite"), number, fault, only="commit")


@pytest.mark.parametrize("chunk", [1, 3])
async def test_a_crash_between_any_two_chunks(chunk: int, worlds, monkeypatch) -> None:
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)
    await undisturbed(worlds())
    for number in numbers(CALLS_MAX, offset=chunk):
        fault: Fault = "die before" if number % 2 else "die after"
        if not await crashed(worlds(), number, fault, only="commit"):
            break
    else:
        pytest.fail(f"it makes more than {CALLS_MAX} commits")


async def test_crashes_one_after_the_other(worlds) -> None:
    world = worlds()
    for number in range(6, 60):
        found, _ = await perform(world, at_call(number, "die after" if number % 2 else "die before"))
        if found is not None:
            break
    assert await go_on(world) == EXPECTED
    assert room.most <= ROOM


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_another_engine_lives(fault: Fault, kind: str, worlds) -> None:
    """Both work on the same runs; one crashes at its every few calls: the other ends what there is, within the limits."""
    for number in some(range(4 + FAULTS.index(fault), 44, 8 if kind == "sqlite" else 3), of=2):
        room.__init__(open_=True)  # type: ignore[misc]
        world = worlds(kind)
        mine, other = await world.store(), await world.store()
        doomed, living = Watching(mine, at_call(number, fault)), Watching(other)
        try:
            async with opened(living, world, worker="living") as engine, passing_time(world):
                with suppress(EventStoreError, EngineFailed):
                    async with opened(doomed, world, worker="doomed") as first:
                        await soon(act(first))
                assert await soon(act(engine)) == EXPECTED, f"{fault} at {number}"
                await all_free(other, "room", ROOM)
            await check_store(other, *WORKFLOWS)
            await check_rates(other)
        finally:
            await world.release(other)
            await world.release(mine)
        assert room.most <= ROOM


@pytest.mark.parametrize("how", ["cancel", "terminate", "pause"])
@pytest.mark.parametrize("turns", some([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]))
async def test_a_grant_that_meets_an_end(how: str, turns: int, worlds) -> None:
    """The one inside leaves, so the next is granted its permit; so many turns later that one is ended, or paused."""
    world = worlds()
    shut = Room()

    @task(pool="room")
    async def enter(who: str) -> str:
        return await shut.visit(who)

    @workflow
    async def entering(who: str) -> str:
        return await enter(who)

    async with world.engine(entering, pools={"room": 1}, grace=0) as engine:
        first = await engine.start(entering("first"), id="first")
        await shut.holds(1)
        second = await engine.start(entering("second"), id="second")
        third = await engine.start(entering("third"), id="third")

        async def in_line() -> bool:
            return waiting_in(world.data)["room"] == 2

        await until_async(in_line)
        shut.let_go("first")
        for _ in range(turns):
            await asyncio.sleep(0)
        await getattr(second, how)()
        shut.let_go("second", "third")
        async with passing_time(world):
            assert await soon(third.result()) == "third"
            assert await soon(first.result()) == "first"
            if how == "pause":
                await second.unpause()
            with suppress(RunCancelledError, Exception):
                await soon(second.result())
            await nothing_held(world.data)
    await check_store(world.data, entering)
    assert shut.most == 1


@workflow
async def visiting(who: str) -> str:
    return await visit(who)


async def test_a_grant_for_a_retry_whose_time_has_not_come_any_more(worlds) -> None:
    """It asked when its time had come; then the clock is set back, or an engine with another clock takes the run."""
    world = worlds()
    room.__init__()  # type: ignore[misc]
    async with world.engine(visiting, pools={"room": 1}, grace=0) as engine:
        run = await engine.start(visiting("a-1"), id="a")
        await room.holds(1)
        other = await engine.start(visiting("other"), id="other")
        await until_async(lambda: waits(world.data, "room"))
        room.let_go(("a-1", 1))
        await until(lambda: room.inside == [("other", 1)])
        world.clock.advance(2)  # as long as it waits between its attempts
        await until_async(lambda: waits(world.data, "room"))
        await at_rest(world.data, "a")
        world.clock.step(-1)
        room.let_go(("other", 1))
        assert await soon(other.result()) == "other"
        await nothing_held(world.data)  # though the run is there again, and its grant was told
        world.clock.advance(1)
        await until(lambda: room.inside == [("a-1", 2)])
        room.let_all_go()
        assert await soon(run.result()) == "a-1"
        await nothing_held(world.data)
    await check_store(world.data, visiting)
    assert room.order == [("a-1", 1), ("other", 1), ("a-1", 2)]


@pytest.mark.parametrize("turns", some([0, 1, 2, 3, 5, 8, 13, 21, 34]))
async def test_a_grant_that_meets_the_end_of_its_engine(turns: int, worlds) -> None:
    """The grant goes on to somebody else, or to the same run in the next engine."""
    world = worlds()
    shut = Room()

    @task(pool="room")
    async def enter(who: str) -> str:
        return await shut.visit(who)

    @workflow
    async def entering(who: str) -> str:
        return await enter(who)

    async with world.engine(entering, pools={"room": 1}, grace=0) as engine:
        await engine.start(entering("first"), id="first")
        await shut.holds(1)
        await engine.start(entering("second"), id="second")

        async def in_line() -> bool:
            return waiting_in(world.data)["room"] == 1

        await until_async(in_line)
        shut.let_go("first")
        for _ in range(turns):
            await asyncio.sleep(0)
    shut.let_all_go()
    async with world.engine(entering, pools={"room": 1}, grace=0) as engine, passing_time(world):
        assert await soon(engine.run("first").result()) == "first"
        assert await soon(engine.run("second").result()) == "second"
        await nothing_held(world.data)
    await check_store(world.data, entering)
    assert shut.most == 1


async def test_a_worker_that_loses_its_lease(worlds) -> None:
    """Paused for longer than its lease: others have its runs and its permits, and it begins nothing under the old one."""
    world = worlds(lease_ttl=5)
    shut = Room()

    @task(pool="room")
    async def enter(who: str) -> str:
        return (await shut.visit((who, attempt().number)))[0]

    @workflow
    async def entering(who: str) -> str:
        return await enter(who)

    async with world.engine(entering, pools={"room": 1}, grace=0, worker="a") as engine:
        await engine.start(entering("first"), id="first")
        await shut.holds(1)
        await engine.start(entering("second"), id="second")

        async def in_line() -> bool:
            return waiting_in(world.data)["room"] == 1

        await until_async(in_line)
        for lease in list(world.data._leases.values()):
            lease.stall()
        world.clock.advance(6)
        async with world.engine(entering, pools={"room": 1}, grace=0, worker="b") as heir, passing_time(world):
            shut.let_all_go()
            assert await soon(heir.run("first").result()) == "first"
            assert await soon(heir.run("second").result()) == "second"
            assert await soon(engine.run("first").result()) == "first"
            await nothing_held(world.data)
    await check_store(world.data, entering)


@task(rate="mail")
async def send(who: str) -> str:
    return await room.visit(who)


@task
async def hold(who: str) -> str:
    return await room.visit(who)


@workflow
async def sending_in_time(name: str) -> list[str]:
    """Sends within ten seconds, or gives that up; meanwhile something else of it runs."""
    held = asyncio.create_task(hold(f"{name}-held"))
    try:
        async with asyncio.timeout(10):
            said = await send(name)
    except TimeoutError:
        said = "gave up"
    return [said, await held]


@workflow
async def entering_in_time(name: str) -> list[str]:
    """The same of a pool."""
    held = asyncio.create_task(hold(f"{name}-held"))
    other = asyncio.create_task(hold(f"{name}-other"))
    try:
        async with asyncio.timeout(10):
            said = await visit(name)
    except TimeoutError:
        said = "gave up"
    return [said, await held, await other]


class Holding(FaultyStore):
    """Keeps the commits of one stream waiting, when told to."""

    def __init__(self, inner: Any, stream: str) -> None:
        super().__init__(inner)
        self.stream, self.gate, self.waiting = stream, asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.before = self._hold

    async def _hold(self, name: str, argument: Any) -> None:
        if name == "commit" and argument.stream == self.stream and not self.gate.is_set():
            self.waiting.set()
            await self.gate.wait()


async def test_a_rate_that_is_due_while_it_is_written_that_nobody_waits(worlds) -> None:
    room.__init__()  # type: ignore[misc]
    world = worlds()
    store = Holding(world.data, "run:a")
    async with Engine(
        store, workflows=[sending_in_time], rates={"mail": "1/20s"}, clock=world.clock, grace=0
    ) as engine:
        first = await engine.start(sending_in_time("first"), id="first")
        await room.holds(2)
        run = await engine.start(sending_in_time("a"), id="a")
        await room.holds(3)
        await until_async(lambda: waits(world.data, "mail"))
        store.gate.clear()
        world.clock.advance(10)
        await soon(store.waiting.wait())
        try:
            world.clock.advance(15)
        finally:
            store.gate.set()
        room.let_all_go()
        assert await soon(run.result()) == ["gave up", "a-held"]
        await soon(first.result())
    await check_store(world.data, sending_in_time)


async def waits(store: Any, pool: str) -> bool:
    return bool(waiting_in(store)[pool])


async def test_a_grant_behind_what_calls_it_off_in_one_step(worlds) -> None:
    room.__init__()  # type: ignore[misc]
    world = worlds()
    store = Holding(world.data, "run:a")
    async with Engine(
        store,
        workflows=[entering_in_time, epochs],
        pools={"room": 1},
        rates={"mail": "1/s"},
        clock=world.clock,
        grace=0,
    ) as engine:
        first = await engine.start(entering_in_time("first"), id="first")
        await room.holds(3)
        run = await engine.start(entering_in_time("a"), id="a")
        await room.holds(5)
        await until_async(lambda: waits(world.data, "room"))
        store.gate.clear()
        room.let_go("a-other")  # its end is being written ...
        await soon(store.waiting.wait())
        world.clock.advance(10)  # ... when its time is over,
        room.let_go(("first", 1))  # and the room is free

        async def told() -> bool:
            return bool((await world.data.head("run:a")).messages)

        await until_async(told)
        arrived = engine._worker.residents.drivers["a"].intake.arrivals  # type: ignore[union-attr]
        await until(lambda: len(arrived) == 2)
        assert arrived[1].granted is not None
        store.gate.set()
        room.let_all_go()
        assert await soon(run.result()) == ["gave up", "a-held", "a-other"]
        await soon(first.result())
        await nothing_held(world.data)
    await check_store(world.data, entering_in_time)


@pytest.mark.parametrize("seed", some(range(6)))
async def test_everything_at_once(seed: int) -> None:
    """The short version of ``python -m tests.soak.limits``."""
    found = await soak.Chaos(seed).play()
    assert found["ends"].get("completed", 0) >= soak.RUNS - 3
