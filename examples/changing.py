"""Changing the code of running workflows: a patch, the gate, a run that goes on by itself, and two versions.

    .venv/bin/python examples/changing.py [FILE]

Each engine stands for a deployment. All of them are on one store, and so are the runs. FILE keeps the store (a
temporary one without it). See docs/changing-code.md.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory
from typing import Any

from engine import Engine, Gate, RunHandle, Signal, durable, task, workflow
from eventstore import EventStore
from eventstore.urls import open_store

paid = Signal("paid", bool)


@task
async def reserve(item: str) -> str:
    """What the first deployment did."""
    return f"reserved {item}"


@task
async def check(item: str) -> str:
    """What later ones do before."""
    return f"checked {item}"


@workflow(name="order")
async def monday(item: str) -> list[str]:
    """The first deployment."""
    done = [await reserve(item)]
    await paid.receive()
    return done


@workflow(name="order")
async def careless(item: str) -> list[str]:
    """The second: it would break every run that has reserved something already."""
    done = [await check(item), await reserve(item)]
    await paid.receive()
    return done


@workflow(name="order")
async def tuesday(item: str) -> list[str]:
    """The second, done well: runs that are past the change go the old way."""
    done = []
    if durable.patched("check-first"):
        done.append(await check(item))
    done.append(await reserve(item))
    await paid.receive()
    return done


@workflow(name="order")
async def friday(item: str) -> list[str]:
    """The third: no run needs the old way any more."""
    durable.deprecate_patch("check-first")
    done = [await check(item), await reserve(item)]
    await paid.receive()
    return done


@workflow(name="invoice", version="1")
async def invoice(item: str) -> str:
    """The code that old runs stay on."""
    await paid.receive()
    return f"{await reserve(item)}, on the first version"


@workflow(name="invoice", version="2")
async def invoice_by_mail(item: str) -> str:
    """Too much has changed for a patch: a version of its own."""
    reserved = await reserve(item)
    await paid.receive()
    return f"{reserved}, on the second"


async def is_at_rest(store: EventStore, run: RunHandle[Any]) -> None:
    """Wait until the run waits."""
    while (await store.head(f"run:{run.id}")).owner is not None or "RunStarted" not in await kinds(run):
        await asyncio.sleep(0.01)


async def kinds(run: RunHandle[Any]) -> list[str]:
    """What stands in its history."""
    return [type(item.event).__name__ async for item in run.events()]


async def deployments_of_one_workflow(store: EventStore) -> None:
    """Patched, gated, forgotten and mended."""
    async with Engine(store, workflows=[monday]) as engine:
        old = (await engine.start(monday("a lamp"))).id
        await is_at_rest(store, engine.run(old))

    for code in (careless, tuesday):
        async with Gate(store, [code]) as gate:
            verdict = await gate.check(old)
            found = "fits" if verdict.diagnosis is None else verdict.diagnosis.message
            print(f"gate of {code.fn.__name__}: {found}")

    async with Engine(store, workflows=[careless]) as engine:  # somebody has not asked the gate
        await engine.run(old).signal(paid, True)
        while await engine.run(old).status() != "suspended":
            await asyncio.sleep(0.01)
        print("careless: old is suspended")

    async with Engine(store, workflows=[tuesday]) as engine:
        while await engine.run(old).status() == "suspended":
            await asyncio.sleep(0.01)
        print(f"tuesday: old went on by itself: {await engine.run(old).result()}")
        new = (await engine.start(tuesday("a desk"))).id
        await is_at_rest(store, engine.run(new))

    async with Engine(store, workflows=[friday]) as engine:
        await engine.run(new).signal(paid, True)
        print(f"friday: new went the new way: {await engine.run(new).result()}")


async def versions_side_by_side(store: EventStore) -> None:
    """Old runs stay on the old code, which is still there."""
    async with Engine(store, workflows=[invoice]) as engine:
        first = (await engine.start(invoice("a lamp"))).id
        await is_at_rest(store, engine.run(first))
    async with Engine(store, workflows=[invoice, invoice_by_mail]) as engine:
        second = (await engine.start(invoice_by_mail("a desk"))).id
        for name, run_id in (("first", first), ("second", second)):
            await engine.run(run_id).signal(paid, True)
            print(f"{name}: {await engine.run(run_id).result()}")


async def main(file: str) -> None:
    """All of it, on one store."""
    store = await open_store(f"sqlite:///{file}")
    await deployments_of_one_workflow(store)
    await versions_side_by_side(store)
    await store.aclose()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with TemporaryDirectory() as folder:
            asyncio.run(main(f"{folder}/runs.db"))
