"""Not everything is kept for ever: policies of retention, a person who is forgotten, and a log that still verifies.

    .venv/bin/python examples/keeping.py [runs.db]

Orders are booked, and the log is sealed. A workflow then does what is due by the policies; one order is made to forget
its customer. The seal from before still holds.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from engine import Engine, Retention, task, workflow
from engine.audit import generate_key, prune, seal, verify
from engine.errors import RunConflict
from eventstore import EventStore

POLICIES = [
    Retention(workflow="order", payloads=timedelta(0), newest=1),
    Retention(workflow="import_prices", status="completed", keep=timedelta(0)),
    Retention(keep=timedelta(days=365)),
]
stores: list[EventStore] = []


@task
async def ship(customer: str) -> str:
    """Send it."""
    return f"shipped to {customer}"


@workflow
async def order(customer: str) -> str:
    """Take an order."""
    return await ship(customer)


@workflow
async def import_prices(source: str) -> str:
    """What is done daily, and of no interest later."""
    return source


@task
async def take_away(reason: str) -> list[int]:
    """Do what is due."""
    done = await prune(stores[-1], POLICIES, by="tidy", reason=reason)
    return [done.events, done.payloads]


@workflow
async def tidy(reason: str) -> list[int]:
    """Once a day, by a schedule of yours."""
    return await take_away(reason)


async def main(path: str) -> None:
    """Book, seal, take away, verify."""
    key = generate_key("example.com/orders")
    name = uuid4().hex[:12]
    async with Engine(f"sqlite:///{path}", workflows=[order, import_prices, tidy]) as engine:
        for each in ("ann", "bob"):
            run = await engine.start(order(each), id=f"{each}-{name}")
            await run.result()
        await (await engine.start(import_prices("mill.example"), id=f"prices-{name}")).result()
        sealed = await seal(engine.store, key)

        stores.append(engine.store)
        events, values = await (await engine.start(tidy("policy 7"), id=f"tidy-{name}")).result()
        print(f"taken away: {events} events, {values} values")
        count = await engine.destroy_payloads(f"bob-{name}", children=True, by="ann", reason="request 2026-114")
        print(f"forgotten: {count} values of one order")

        print(f"the prices are {await engine.run(f'prices-{name}').status()}")
        try:
            await engine.start(import_prices("mill.example"), id=f"prices-{name}")
        except RunConflict:
            print("its id stays taken")
        verdict = await verify(engine.store, seals=[sealed.seal], key=key.public)
        print(f"verified: {verdict.holds}, against the seal {verdict.seals[0].holds}")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "runs.db")))
