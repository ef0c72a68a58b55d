"""A family of runs, in a process that may be killed at any moment: ``python -m tests.crash.families``.

A parent, children and grandchildren; each child tells its parent what it has (a message between runs), and has an effect
outside: a line in a file.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from engine import Engine, Signal, attempt, durable, task, workflow

FOLDER = Path(os.environ.get("FAMILY_FOLDER", "."))
CHILDREN, GRANDCHILDREN = 4, 3
EXPECTED = [[f"{child}.{leaf}" for leaf in range(GRANDCHILDREN)] for child in range(CHILDREN)]

heard = Signal("heard", int)


@task
async def grow(name: str) -> str:
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{attempt().idempotency_key} {name}\n")
    await asyncio.sleep(0.2)  # the outside takes its time: kills fall into the middle of it
    return name


@workflow
async def leaf(name: str) -> str:
    return await grow(name)


@workflow
async def twig(number: int, parent: str) -> list[str]:
    found = await asyncio.gather(*(leaf(f"{number}.{each}") for each in range(GRANDCHILDREN)))
    await durable.run(parent).signal(heard, number)
    return list(found)


@workflow
async def tree() -> list[list[str]]:
    branches = [asyncio.create_task(twig(number, durable.run_id())) for number in range(CHILDREN)]
    told = sorted([await heard.receive() for _ in branches])
    assert told == list(range(CHILDREN))
    return [await branch for branch in branches]


async def main() -> None:
    async with Engine(f"sqlite:///{FOLDER / 'runs.db'}", workflows=[tree]) as engine:
        run = await engine.start(tree(), id="tree")
        print(await run.result())


if __name__ == "__main__":
    asyncio.run(main())
