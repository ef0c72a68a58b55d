"""Child runs: a workflow that calls workflows. A harvest of many pages, a watcher, and a failure up the tree.

    .venv/bin/python examples/children.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory

from engine import Engine, Signal, durable, task, workflow
from engine.errors import RunFailedError

progress = Signal("progress", int)


@task
async def fetch(page: int) -> int:
    """Where a page would be read; one of them is broken."""
    if page == 13:
        raise LookupError("page 13 is missing")
    return 10 * page


@workflow
async def harvest_page(page: int) -> int:
    """A run of its own, on any worker that knows it."""
    return await fetch(page)


@workflow
async def watcher(pages: int) -> list[int]:
    """Hears how far the harvest is, every ten pages."""
    return [await progress.receive() for _ in range(pages // 10)]


@workflow
async def harvest(pages: int) -> str:
    """The sum of all pages."""
    watching = await durable.start(watcher(pages))  # begun, not waited for
    window = asyncio.Semaphore(10)  # so many children at once
    done = 0

    async def one(page: int) -> int:
        nonlocal done
        async with window:
            rows = await harvest_page(page)
        done += 1
        if done % 10 == 0:
            await watching.signal(progress, done)  # once, whatever crashes
        return rows

    rows = await asyncio.gather(*(one(page) for page in range(100, 100 + pages)))
    return f"{sum(rows)} rows, heard of {await watching.result()}"


@workflow
async def unlucky() -> int:
    """Fails as its child does."""
    return await harvest_page.options(id=f"{durable.run_id()}/thirteen")(13)


async def main(file: str) -> None:
    """Harvest, look at the children, and see a failure come up."""
    async with Engine(f"sqlite:///{file}", workflows=[harvest, unlucky]) as engine:
        run = await engine.start(harvest(30))
        print(await run.result())

        children = (await engine.runs(parent=run.id, limit=100)).items
        print(len(children), "children, one of them:", min(child.id for child in children).removeprefix(run.id))

        failing = await engine.start(unlucky())
        try:
            await failing.result()
        except RunFailedError as error:
            reason: BaseException | None = error
            while reason is not None:
                print(type(reason).__name__, "-", str(reason).replace(failing.id, "..."))
                reason = reason.__cause__


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
