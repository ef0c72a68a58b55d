"""Runs that have to wait for their turn, in a process that may be killed at any moment: ``python -m tests.crash.turns``.

Those with one key come one after the other, one begins late, and of the calls that are debounced the last one counts.
With the argument ``beside`` it is another process on the same file, which calls nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from engine import Engine, task, workflow

FOLDER = Path(os.environ.get("TURNS_FOLDER", "."))
NAMES = ("a", "b", "c", "d")
LATE_SECONDS = 0.5


@task
async def work(name: str, part: int) -> str:
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{name} {part}\n")
    await asyncio.sleep(0.15)  # the outside takes its time: kills fall into the middle of it
    return name


@workflow
async def in_turn(name: str) -> str:
    for part in range(3):
        await work(name, part)
    return name


@workflow
async def late() -> str:
    return await work("late", 0)


@workflow
async def last(number: int) -> int:
    await work("last", number)
    return number


async def main(*, beside: bool) -> None:
    async with Engine(f"sqlite:///{FOLDER / 'runs.db'}", workflows=[in_turn, late, last]) as engine:
        runs = [await engine.start(in_turn(name), id=name, singleton="the key", on_conflict="queue") for name in NAMES]
        later = await engine.start(late(), id="late", delay=LATE_SECONDS)
        if beside:
            print([await run.result() for run in runs], await later.result())
            return
        for number in range(5):
            debounced = await engine.debounce(last(number), key="the calls", seconds=0.3)
        print([await run.result() for run in runs], await later.result(), await debounced.result())


if __name__ == "__main__":
    asyncio.run(main(beside=sys.argv[1:] == ["beside"]))
