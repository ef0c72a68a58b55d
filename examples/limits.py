"""Limits that everything on one store shares: a pool, a rate, priorities and turns.

    python -m examples.limits [sqlite:///limits.db]

Three customers have their orders exported at the same time, one of them very many. The warehouse takes two at once, the
mail server four letters in half a second. Nobody waits behind the thousand orders of somebody else, and what is urgent
goes first. Start it twice on one file, at once: the limits hold for both together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Engine, task, workflow

open_now = 0
most = 0
exported: list[str] = []


@asynccontextmanager
async def connection() -> AsyncIterator[None]:
    """A connection to the warehouse, which is unhappy about more than two."""
    global open_now, most
    open_now += 1
    most = max(most, open_now)
    try:
        await asyncio.sleep(0.005)
        yield
    finally:
        open_now -= 1


@task(pool="warehouse", fairness_key=lambda customer, order: customer)
async def export(customer: str, order: int) -> str:
    """Export an order."""
    async with connection():
        exported.append(customer)
        return f"{customer}-{order}"


@task(rate="mail")
async def tell(customer: str) -> None:
    """Write a letter."""


@task(rate="100/min")
async def look_up(customer: str) -> str:
    """Ask somebody else's service, which allows so many questions of ours."""
    return customer.title()


@workflow
async def export_all(customer: str, orders: int) -> int:
    """Export the orders of a customer, the first of them before others."""
    name = await look_up(customer)
    first = export.options(priority=1)(name, 0)
    rest = [export(name, order) for order in range(1, orders)]
    done = await asyncio.gather(first, *rest)
    await tell(name)
    return len(done)


async def main(url: str) -> None:
    pools, rates = {"warehouse": 2}, {"mail": "4/0.5s"}
    async with Engine(url, workflows=[export_all], pools=pools, rates=rates) as engine:
        runs = [await engine.start(export_all(name, orders)) for name, orders in (("ann", 60), ("bob", 5), ("cy", 5))]
        await runs[1].result()
        print(f"bob is done after {len(exported)} of 70 orders; at most {most} at once")
        await engine.set_pool("warehouse", 8, by="ops", reason="the night shift has gone home")
        print(sum([await run.result() for run in runs]), "orders")
        for limit in await engine.limits():
            window = "at once" if limit.seconds is None else f"in {limit.seconds:g} s"
            print(f"{limit.name}: {limit.limit} {window} {limit.reason}".rstrip())


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or ["sqlite:///limits.db"])))
