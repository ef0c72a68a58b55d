"""What a workflow must not do, and what Holdfast makes of it: found, stopped, said once, broken off.

    python examples/determinism.py

Four workflows, each wrong in its own way, and one that is right. See docs/determinism.md.
"""

import asyncio
import logging
import random
import sys
import time
from pathlib import Path

from engine import Engine, durable, task, workflow
from engine.errors import DeterminismError, ForbiddenInWorkflow, RunSuspendedError
from eventstore.memory import MemoryStore

logger = logging.getLogger("shop")


@task
async def charge(customer: str, cents: int) -> str:
    """Stands for what touches the outside."""
    return f"{customer} paid {cents / 100:.2f}"


@workflow
async def careless(customers: list[str]) -> str:
    """Never runs: the check at registration names four things in it."""
    lucky = random.choice(customers)  # noqa: S311 - it is to be found
    started = time.time()
    for customer in set(customers):
        await charge(customer, 0 if customer == lucky else 500)
    return f"{lucky} was lucky after {time.time() - started:.0f} seconds"


@workflow
async def careful(customers: list[str]) -> str:
    """The same, right."""
    lucky = durable.random().choice(customers)
    started = durable.now()
    logger.info("%s is lucky", lucky)  # said once, however often this is replayed
    for customer in sorted(set(customers)):
        await charge(customer, 0 if customer == lucky else 500)
    return f"{lucky} was lucky after {(durable.now() - started).seconds} seconds"


class Settings:
    """The check does not follow methods of objects; the guard stops what they do."""

    def read(self) -> str:
        return Path(__file__).read_text(encoding="utf-8")


@workflow
async def reaching_out() -> str:
    """Gets an error where it opens a file, and tells."""
    try:
        return Settings().read()
    except ForbiddenInWorkflow as error:
        return str(error)


@workflow
async def spinning() -> None:
    """Never comes back; the other runs go on all the same."""
    await charge("ann", 1)
    while True:
        pass


async def main() -> None:
    """All four, one after the other."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    store = MemoryStore()
    try:
        Engine(store, workflows=[careless])
    except DeterminismError as error:
        print(f"-- found\n{error}\n")
    async with Engine(store, workflows=[careful, reaching_out, spinning], turn_seconds=(0.2, 0.5)) as engine:
        print("-- right")
        run = await engine.start(careful(["ann", "bob"]))
        print(f"{await run.result()}\n")
        run = await engine.start(reaching_out())
        print(f"-- stopped\n{await run.result()}\n")
        print("-- broken off")
        lost = await engine.start(spinning())
        try:
            await lost.result()
        except RunSuspendedError as error:
            print(error)
    await store.aclose()


asyncio.run(main())
