"""Rates: any window of W seconds holds at most N starts, whoever begins them, and however they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Rate, attempt, task, workflow
from engine.errors import TaskTimeout
from tests.runtime.invariants import check_store
from tests.runtime.rooms import Room, held_in, most_in_a_window, nothing_held, started_at, waiting_in
from tests.runtime.worlds import LOOK_SECONDS, PATIENCE_SECONDS, World, settle, soon, until, until_async

room = Room()


@pytest.fixture(autouse=True)
def _an_open_room() -> None:
    room.__init__(open_=True)  # type: ignore[misc]


@task(rate="mail")
async def send(n: int) -> int:
    return await room.visit(n)


@task(rate="3/10s")
async def look_up(n: int) -> int:
    return await room.visit(n)


@task(rate="mail", pool="room")
async def both(n: int) -> int:
    return await room.visit(n)


@task
async def mark(n: int) -> int:
    return n


@workflow
async def sending(numbers: list[int]) -> list[int]:
    return list(await asyncio.gather(*(send(n) for n in numbers)))


@workflow
async def looking_up(numbers: list[int]) -> list[int]:
    return list(await asyncio.gather(*(look_up(n) for n in numbers)))


@workflow
async def doing_both(numbers: list[int]) -> list[int]:
    return list(await asyncio.gather(*(both(n) for n in numbers)))


@workflow
async def free(n: int) -> int:
    return await mark(n)


async def passing(world: World, awaited: Any, *, step: float = 0.25) -> Any:
    """Let time pass, a step whenever everybody had a turn, until that is done."""
    task_ = asyncio.ensure_future(awaited)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not task_.done():
            await asyncio.sleep(LOOK_SECONDS if world.kind == "sqlite" else 0)
            await settle(30)
            world.clock.advance(step)
    return await task_


async def test_no_window_holds_more(world: World) -> None:
    async with world.engine(sending, rates={"mail": "3/2s"}) as engine:
        begun = world.clock.now()
        run = await engine.start(sending(list(range(14))), id="a")
        assert await passing(world, run.result()) == list(range(14))
        times = await started_at(engine.store)
        assert len(times) == 14
        assert most_in_a_window(times, 2) == 3, "nor fewer: what may begin begins"
        if world.kind == "memory":  # in SQLite's threads real time passes, and the turned clock runs ahead
            assert (times[-1] - begun) / 1e6 < 2 * 5 + 4, "and soon"
        await check_store(engine.store, sending)


async def test_first_a_windowful_then_none_until_it_has_moved(world: World) -> None:
    async with world.engine(sending, free, rates={"mail": "2/10s"}) as engine:
        await engine.start(sending([1, 2, 3, 4, 5]), id="a")
        await until(lambda: len(room.order) == 2)
        world.clock.advance(9.999)
        await soon((await engine.start(free(1))).result())
        await settle(200)
        assert len(room.order) == 2
        world.clock.advance(0.001)
        await until(lambda: len(room.order) == 4)
        world.clock.advance(10)
        await until(lambda: len(room.order) == 5)


async def test_two_engines_and_a_restart(world: World) -> None:
    """The window is the store's: it knows nothing of engines, nor of their ends."""
    options: dict[str, Any] = {"rates": {"mail": Rate(4, seconds=3)}, "grace": 0}
    async with world.engine(sending, **options) as first, world.engine(sending, **options) as second:
        for n in range(3):
            await first.start(sending([n * 10 + k for k in range(4)]), id=f"first-{n}")
            await second.start(sending([n * 10 + k for k in range(4)]), id=f"second-{n}")
        await until(lambda: len(room.order) == 4)
        world.clock.advance(3)
        await until(lambda: len(room.order) == 8)
    async with world.engine(sending, **options) as third:
        names = [f"{name}-{n}" for name in ("first", "second") for n in range(3)]
        await passing(world, asyncio.gather(*(third.run(name).result() for name in names)))
        times = await started_at(third.store)
        assert len(times) >= 24
        assert most_in_a_window(times, 3) <= 4
        await check_store(third.store, sending)


async def test_every_attempt_is_a_start(world: World) -> None:
    @task(rate="mail", stop=stop_after_attempt(4), wait=wait_fixed(0.1))
    async def stubborn(n: int) -> int:
        if attempt().number < 4:
            raise ConnectionError(n)
        return n

    @workflow
    async def trying() -> list[int]:
        return list(await asyncio.gather(stubborn(1), stubborn(2)))

    async with world.engine(trying, rates={"mail": "2/5s"}) as engine:
        assert await passing(world, (await engine.start(trying())).result()) == [1, 2]
        times = await started_at(engine.store)
        assert (len(times), most_in_a_window(times, 5)) == (8, 2)
        await check_store(engine.store, trying)


async def test_a_rate_of_the_tasks_own(world: World) -> None:
    async with world.engine(looking_up) as engine:
        limits = {limit.name: limit for limit in await engine.limits()}
        assert (limits["task/look_up"].limit, limits["task/look_up"].seconds) == (3, 10)
        run = await engine.start(looking_up(list(range(5))))
        await until(lambda: len(room.order) == 3)
        assert await passing(world, run.result()) == list(range(5))
        assert most_in_a_window(await started_at(engine.store), 10) == 3


async def test_a_rate_that_is_raised(world: World) -> None:
    """What the new rate allows begins without time passing."""
    async with world.engine(looking_up) as engine, world.engine(sending, free, rates={"mail": "1/h"}) as other:
        run = await engine.start(looking_up(list(range(5))))
        await until(lambda: len(room.order) == 3)
        await other.set_rate("task/look_up", "10/10s", by="ops")
        assert await soon(run.result()) == list(range(5))
        run = await other.start(sending([10, 11]))
        await until(lambda: len(room.order) == 6)
        await engine.set_rate("mail", "1/s")  # the start was less than a second ago
        await settle(100)
        assert len(room.order) == 6
        for _ in range(5):  # whoever works looks every few seconds who may begin
            world.clock.advance(2)
            await soon((await other.start(free(1))).result())
        assert await soon(run.result()) == [10, 11]


async def test_a_rate_that_is_lowered(world: World) -> None:
    async with world.engine(sending, free, rates={"mail": "5/s"}) as engine:
        run = await engine.start(sending(list(range(12))))
        await until(lambda: len(room.order) == 5)
        await engine.set_rate("mail", "2/4s")
        lowered = world.clock.now()
        await passing(world, run.result())
        times = await started_at(engine.store, task="send")
        assert most_in_a_window([at for at in times if at > lowered], 4) == 2
        assert min(at for at in times if at > lowered) - lowered >= 4_000_000, "five had begun less than 4 s before"


async def test_none_at_all_until_somebody_says_so(world: World) -> None:
    async with world.engine(sending, free, rates={"mail": "0/s"}) as engine:
        run = await engine.start(sending([1]), id="a")
        for _ in range(5):
            world.clock.advance(100)
            await soon((await engine.start(free(1))).result())
        assert room.order == []
        await engine.set_rate("mail", "1/s")
        assert await soon(run.result()) == [1]


async def test_a_run_that_waits_for_a_rate_rests(world: World) -> None:
    """It sleeps until it may be time, and needs nothing of the engine until then."""
    async with world.engine(sending, rates={"mail": "1/h"}, cached=0) as engine:
        run = await engine.start(sending([1, 2, 3]), id="a")
        await until(lambda: len(room.order) == 1)

        async def rests() -> bool:
            return (await engine.store.head("run:a")).owner is None

        for count in (2, 3):
            await until_async(rests)
            world.clock.advance(3_600)
            await until(lambda count=count: len(room.order) == count)
        assert await soon(run.result()) == [1, 2, 3]


async def test_a_deadline_before_its_turn(world: World) -> None:
    @task(rate="mail", deadline=60)
    async def hurried(n: int) -> int:
        return await room.visit(n)

    @workflow
    async def in_time() -> list[str]:
        found = await asyncio.gather(*(hurried(n) for n in range(3)), return_exceptions=True)
        return sorted("late" if isinstance(each, TaskTimeout) else "sent" for each in found)

    async with world.engine(in_time, rates={"mail": "1/h"}) as engine:
        run = await engine.start(in_time())
        assert await passing(world, run.result(), step=5) == ["late", "late", "sent"]
        assert len(await started_at(engine.store)) == 1
        await check_store(engine.store, in_time)

        async def nobody_waits() -> bool:
            return not waiting_in(engine.store)["mail"]

        await until_async(nobody_waits)


# -- with a pool -------------------------------------------------------------------------------------------------------


async def test_a_pool_and_a_rate(world: World) -> None:
    """An attempt begins with both; neither is ever exceeded, and all of them come to their turn."""
    async with world.engine(doing_both, pools={"room": 2}, rates={"mail": "3/5s"}) as engine:
        runs = [await engine.start(doing_both([n * 10 + k for k in range(4)]), id=f"run-{n}") for n in range(3)]
        await passing(world, asyncio.gather(*(run.result() for run in runs)))
        times = await started_at(engine.store)
        assert (len(times), most_in_a_window(times, 5)) == (12, 3)
        await nothing_held(engine.store, but=["mail"])
        await check_store(engine.store, doing_both)
    assert room.most <= 2


async def test_a_full_pool_spends_no_starts(world: World) -> None:
    room.__init__()  # type: ignore[misc]
    async with world.engine(doing_both, sending, free, pools={"room": 1}, rates={"mail": "3/h"}) as engine:
        run = await engine.start(doing_both([1, 2, 3, 4]), id="a")
        await room.holds(1)
        await soon((await engine.start(free(1))).result())
        assert held_in(engine.store)["mail"] == 1
        room.let_go(7, 8)
        assert await soon((await engine.start(sending([7, 8]), id="b")).result()) == [7, 8]
        room.let_all_go()
        world.clock.advance(3_600)
        assert await passing(world, run.result(), step=60) == [1, 2, 3, 4]
        assert most_in_a_window(await started_at(engine.store, task="send#"), 3_600) <= 3


async def test_who_waits_for_a_rate_does_not_keep_the_pool_shut(world: World) -> None:
    """A pool's slots are held for those who wait for a rate for a while at most, never for good."""

    @task(pool="room")
    async def visit(n: int) -> int:
        return await room.visit(n)

    @workflow
    async def visiting(n: int) -> int:
        return await visit(n)

    async with world.engine(doing_both, visiting, pools={"room": 1}, rates={"mail": "1/d"}) as engine:
        await engine.start(doing_both([1, 2, 3]), id="a")
        await until(lambda: room.order == [1])
        run = await engine.start(visiting(9), id="b")
        before = world.clock.now()
        assert await passing(world, run.result(), step=1) == 9
        assert (world.clock.now() - before) / 1e6 < 600, "not until the rate let somebody in"
