"""A program that prunes a store, to be killed: ``python -m tests.crash.keeping DB COMMAND``.

``fill`` makes runs that end; ``prune`` takes all of them away, again and again until nothing is due, and is as slow as
the events in them make it. It prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

from engine import Engine, Retention, task, workflow
from engine.audit import prune
from eventstore.sqlite import SqliteStore, keeping

RUNS = 12
STEPS = 30


@task
async def step(n: int) -> str:
    return f"value {n}" * 20


@workflow
async def steps(count: int) -> int:
    for n in range(count):
        await step(n)
    return count


async def fill(store: SqliteStore) -> int:
    async with Engine(store, workflows=[steps]) as engine:
        runs = [await engine.start(steps(STEPS), id=f"r{n}") for n in range(RUNS)]
        for run in runs:
            await run.result()
    return len(runs)


async def main(path: str, command: str) -> None:
    keeping.KEEP_EVENTS_MAX = 5  # so that a removal takes many transactions
    store = await SqliteStore.open(path)
    try:
        if command == "fill":
            done = await fill(store)
        else:
            done = (await prune(store, [Retention(keep=timedelta(0))], by="cron", reason="policy 7")).runs
    finally:
        await store.aclose()
    print(json.dumps(done))  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
