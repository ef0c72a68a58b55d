"""The lab: time that is turned, runs that end without a wait, crashes, and what is said when nothing can go on."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
import uvloop

from engine import task, testing, workflow
from engine.errors import HoldfastError, RunFailedError
from tests.testing.shop import approve, chance, charge, daily, order, pack, parent, phase, price, seller, ship


async def test_a_year_passes_day_by_day() -> None:
    began = time.perf_counter()
    async with testing.engine(daily) as lab:
        assert await lab.run(daily(365)) == list(range(365))
        assert lab.now == datetime(2027, 1, 1, tzinfo=UTC)
        first, second = lab.calls(pack)[:2]
        assert second.at - first.at == 86_400_000_000
    assert time.perf_counter() - began < 20


async def test_time_is_turned_so_far_and_no_further() -> None:
    async with testing.engine(daily) as lab:
        run = await lab.start(daily(10))
        await lab.turn(days=3, hours=23)
        assert len(lab.calls(pack)) == 3
        await lab.turn(hours=1)
        assert len(lab.calls(pack)) == 4
        await lab.turn_to(lab.now + timedelta(days=100))
        assert await run.result() == list(range(10))
        with pytest.raises(HoldfastError, match="does not go back"):
            await lab.turn(days=-1)


async def test_signals_and_timeouts() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, returns="paid")
        lab.fake(ship, returns="shipped")
        run = await lab.start(order("ann"))
        assert await run.read(phase) == "charged"
        await run.signal(approve, True)
        await lab.settle()
        assert await run.result() == "paid, shipped"
        assert lab.now == datetime(2026, 1, 1, tzinfo=UTC)
        assert await lab.run(order("ben")) == "not approved"
        assert lab.now == datetime(2026, 1, 4, tzinfo=UTC)
        assert await lab.run(order("cyd"), signals=[approve.message(True)]) == "paid, shipped"


async def test_while_auto_is_in_force_nobody_turns() -> None:
    async with testing.engine(daily, order) as lab:
        lab.fake(charge, returns="paid")
        async with lab.auto():
            first, second = await lab.start(daily(30)), await lab.start(order("ann"))
            assert await first.result() == list(range(30))
            assert await second.result() == "not approved"
        before = lab.now
        await lab.settle()
        assert lab.now == before


async def test_children_are_told_of_time_too() -> None:
    async with testing.engine(parent) as lab:
        lab.fake(charge, returns="paid")
        assert await lab.run(parent(["ann", "ben"])) == ["not approved", "not approved"]


async def test_mail_behind_a_request_that_nobody_serves_yet_is_seen() -> None:
    async with testing.engine(seller) as lab:
        run = await lab.start(seller())
        asked = asyncio.create_task(run.ask(price, "shoes"))
        await lab.settle()
        await run.signal(approve, True)
        await lab.settle()
        assert (await run.state()).signals == {"approve": 1}
        await lab.turn(hours=1)
        assert await asked == 5
        assert await run.result() == 5


async def test_what_is_stored_outlives_a_crash() -> None:
    async with testing.engine(order) as lab:
        fake = lab.fake(charge, returns="paid", takes=60)
        lab.fake(ship, returns="shipped")
        run = await lab.start(order("ann"))
        await lab.turn(seconds=30)
        await lab.crash()
        await lab.settle()
        again = lab.engine.run(run.id)
        assert (await again.state()).tasks["order/charge#1"].attempts == 2
        await again.signal(approve, True)
        assert await lab.result(again) == "paid, shipped"
        assert [call.attempt for call in fake.calls] == [1, 2]
        assert len(fake.keys) == 1
        assert len(lab.calls(ship)) == 1


async def test_runs_that_a_crash_has_made_suspects_wait_for_one_another_and_no_test_for_them() -> None:
    async with testing.engine(parent, order) as lab:
        lab.fake(charge, returns="paid", takes=60)
        run = await lab.start(parent(["ann", "ben", "cyd"]))
        for _ in range(3):
            await lab.crash()
            await lab.settle()
        assert await lab.result(lab.engine.run(run.id)) == ["not approved"] * 3


async def test_the_same_seed_is_the_same_again() -> None:
    found = []
    for seed in (1, 1, 2):
        async with testing.engine(chance, seed=seed) as lab:
            run = await lab.start(chance())
            found.append((run.id, await run.result(), [item.digest async for item in run.events()]))
    assert found[0] == found[1]
    assert found[0][:2] != found[2][:2]


@workflow
async def waiting() -> bool:
    return await approve.receive()


async def test_a_run_that_no_time_will_end_is_an_error() -> None:
    async with testing.engine(waiting, order) as lab:
        with pytest.raises(testing.Stuck, match="for a signal or a request"):
            await lab.run(waiting())
        lab.fake(charge, takes=inf)
        with pytest.raises(testing.Stuck, match=r"order/charge#1 is running, called at shop.py:\d+"):
            await lab.run(order("ann"))


@task
async def really(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@workflow
async def real(seconds: float) -> str:
    async with asyncio.timeout(1):
        return await really(seconds)


async def test_real_tasks_get_real_time_before_the_clock_is_turned() -> None:
    async with testing.engine(real, patience_seconds=10) as lab:
        assert await lab.run(real(0.02)) == "done"
    async with testing.engine(real, patience_seconds=0.01) as lab:
        with pytest.raises(RunFailedError, match="TimeoutError"):
            await lab.run(real(1e6))


def test_under_uvloop() -> None:
    async def main() -> None:
        async with testing.engine(daily, order) as lab:
            lab.fake(charge, returns="paid")
            assert await lab.run(daily(5)) == [0, 1, 2, 3, 4]
            assert await lab.run(order("ann")) == "not approved"

    uvloop.run(main())
