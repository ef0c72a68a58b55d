"""What to do about runs that went wrong: reopen, run again, fork, and see beforehand what would come of it.

    .venv/bin/python examples/repair.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory

from engine import Engine, HistoryEvent, RunHandle, task, workflow
from engine.errors import RepairRefused, RunFailedError

warehouse = {"up": False}  # what the tasks depend on


@task
async def extract(day: int) -> list[int]:
    """The rows of a day."""
    print(f"    extract({day})")
    return [day, day + 1]


@task
async def load(rows: list[int]) -> int:
    """Needs the warehouse."""
    print(f"    load({rows})")
    if not warehouse["up"]:
        raise ConnectionError("the warehouse is down")
    return sum(rows)


@workflow
async def nightly(day: int) -> str:
    """Extract, then load."""
    rows = await extract(day)
    loaded = await load(rows)
    return f"loaded {loaded} from {len(rows)} rows"


async def said(run: RunHandle[str]) -> str:
    """How it ends."""
    try:
        return await run.result()
    except RunFailedError as error:
        return str(error).replace(run.id, "...")


async def version_of(run: RunHandle[str], type_: str) -> int:
    """Where the first event of this type stands in the history."""
    events: list[HistoryEvent] = [item async for item in run.events()]
    return next(item.version for item in events if type(item.event).__name__ == type_)


async def main(file: str) -> None:
    """Let a run fail, and repair it in every way."""
    warehouse["up"] = False
    async with Engine(f"sqlite:///{file}", workflows=[nightly]) as engine:
        run = await engine.start(nightly(1))
        print("failed:", await said(run))

        print("what if load had returned 30?")
        at = await version_of(run, "TaskCompleted")
        found = await engine.what_if(run.id, at=at, substitute={"nightly/load#1": 30})
        print("   ", found.was.status, "->", (found.would_be.result or b"").decode())

        print("reopen: the failed task is tried anew, what was completed stays")
        warehouse["up"] = True
        reopened = await engine.reopen(run.id, by="ann", reason="the warehouse is back")
        print("   ", await said(reopened))
        try:
            await engine.reopen(run.id)
        except RepairRefused as error:
            print("   ", str(error).replace(run.id, "..."))

        print("rerun: a new run, from the start, with the same arguments")
        again = await engine.rerun(run.id, by="ann", reason="the source was wrong")
        print("   ", await said(again))
        differing = [row for row in (await engine.diff(run.id, again.id)).rows if not row.alike]
        print("    facts and decisions that differ:", len(differing))

        print("fork: a new run that begins with what this one has lived through")
        fork = await engine.fork(run.id, at=at, substitute={"nightly/extract#1": [7, 8, 9]}, by="ann")
        print("   ", await said(fork))
        parted = (await engine.diff(run.id, fork.id)).rows[0]
        assert parted.left is not None
        assert parted.right is not None
        print("    they part at", type(parted.left.event).__name__, parted.left.payload, parted.right.payload)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
