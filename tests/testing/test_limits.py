"""Limits in the lab: they hold there as elsewhere, on the turned clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Breaker, task, testing, workflow
from engine.errors import DefinitionError


@task(rate="1/h", pool="desk")
async def letter(number: int) -> int:
    return number


@workflow
async def letters(count: int) -> int:
    return sum(await asyncio.gather(*(letter(number) for number in range(count))))


@task(breaker="bank", stop=stop_after_attempt(2), wait=wait_fixed(1))
async def pay(number: int) -> int:
    return number


@workflow
async def payments(count: int) -> list[int]:
    return await asyncio.gather(*(pay(number) for number in range(count)))


async def test_a_rate_waits_on_the_turned_clock() -> None:
    async with testing.engine(letters, pools={"desk": 2}) as lab:
        before = lab.now
        assert await lab.run(letters(5)) == 10
        assert lab.now - before == timedelta(hours=4)
        assert len(lab.calls(letter)) == 5


async def test_what_a_task_names_must_be_declared_in_the_lab_too() -> None:
    with pytest.raises(DefinitionError, match=r"Engine\(pools={'desk': ...}\)"):
        async with testing.engine(letters):
            pytest.fail("it opened")


async def test_an_outage_is_waited_for() -> None:
    breakers = {"bank": Breaker(failures=2, seconds=60)}
    async with testing.engine(payments, breakers=breakers, concurrency=1) as lab:
        lab.fake(pay, outcomes=[ConnectionError("down"), 7], takes=1)
        assert await lab.run(payments(3)) == [7, 7, 7]
        assert lab.engine.circuits()[0].until is None
