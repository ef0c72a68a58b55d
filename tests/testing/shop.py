"""Workflows that the tests of `engine.testing` test."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tenacity import stop_after_attempt, wait_fixed

from engine import Memo, Request, Signal, State, durable, task, workflow

approve = Signal("approve", bool)
price = Request("price", str, int)
phase = State("phase", str, initial="new")


@task
async def charge(customer: str, cents: int = 100) -> str:
    raise AssertionError("no test is to pay")


@task
def pack(what: str) -> int:
    return len(what)


@task(stop=stop_after_attempt(4), wait=wait_fixed(60))
async def ship(what: str) -> str:
    raise AssertionError("no test is to ship")


@workflow
async def order(customer: str) -> str:
    """Charges, waits for an approval, ships."""
    receipt = await charge(customer)
    await phase.publish("charged")
    try:
        async with asyncio.timeout(timedelta(days=3).total_seconds()):
            approved = await approve.receive()
    except TimeoutError:
        approved = False
    if not approved:
        return "not approved"
    return f"{receipt}, {await ship(customer)}"


@workflow
async def daily(days: int) -> list[int]:
    """One thing a day."""
    found = []
    for day in range(days):
        await asyncio.sleep(86_400)
        found.append(await pack("x" * day))
    return found


@workflow
async def both(what: str) -> list[str]:
    """Two at a time."""
    return list(await asyncio.gather(charge(what, 1), charge(what, 2)))


@workflow
async def parent(customers: list[str]) -> list[str]:
    """Orders as child runs."""
    return list(await asyncio.gather(*(order(customer) for customer in customers)))


@workflow
async def seller() -> int:
    """Serves a request, but only after an hour."""
    await asyncio.sleep(3_600)
    received = await price.receive()
    received.answer(len(received.value))
    await approve.receive()
    return len(received.value)


@task(memo=Memo(expires=timedelta(days=1)))
async def rate(currency: str) -> int:
    raise AssertionError("no test is to ask the bank")


@workflow
async def converted(cents: int) -> int:
    """Asks for the same rate twice, with a wait between."""
    first = cents * await rate("EUR")
    await asyncio.sleep(3_600)
    return first + cents * await rate("EUR")


@workflow
async def chance() -> str:
    return f"{durable.uuid4()} {durable.random().random()}"
