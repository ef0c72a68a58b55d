"""Limits that everything on one store shares: a pool, a rate, priorities and turns.

    .venv/bin/python examples/limits.py [limits.db]

Three customers have their orders exported at the same time, one of them very many. The warehouse takes two at once, the
mail server four letters in half a second. Nobody waits behind the thousand orders of somebody else, and what is urgent
goes first. Start it twice on one file, at once: the limits hold for both together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from engine import Engine, task, workflow


class Warehouse:
    """Counts how many work with it at once."""

    now = 0
    most = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """It is unhappy about more than two."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.005)
            yield
        finally:
            self.now -= 1


warehouse = Warehouse()
exported: list[str] = []


def of_customer(customer: str, _order: int) -> str:
    """Orders of one customer share its turns."""
    return customer


@task(pool="warehouse", fairness_key=of_customer)
async def export(customer: str, order: int) -> str:
    """Export an order."""
    async with warehouse.connection():
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


async def main(file: str) -> None:
    """Export the orders of three customers."""
    url = f"sqlite:///{file}"
    pools, rates = {"warehouse": 2}, {"mail": "4/0.5s"}
    async with Engine(url, workflows=[export_all], pools=pools, rates=rates) as engine:
        runs = [await engine.start(export_all(name, orders)) for name, orders in (("ann", 60), ("bob", 5), ("cy", 5))]
        await runs[1].result()
        bobs_last = len(exported) - exported[::-1].index("Bob")
        print(f"bob is done long before ann: {bobs_last < 50}; at most {warehouse.most} at once")
        await engine.set_pool("warehouse", 8, by="ops", reason="the night shift has gone home")
        print(sum([await run.result() for run in runs]), "orders")
        for limit in await engine.limits():
            window = "at once" if limit.seconds is None else f"in {limit.seconds:g} s"
            print(f"{limit.name}: {limit.limit} {window} {limit.reason}".rstrip())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
