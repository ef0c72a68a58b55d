"""Workflows that are in the middle of everything when they move, and a program that imports and is killed."""

from __future__ import annotations

import asyncio
import sys
import time

from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Signal, attempt, durable, task, workflow
from engine.moving import MoveProgress, import_from_file
from eventstore.sqlite import SqliteStore

go = Signal("go", str)
TRIES: list[int] = []
DONE: list[str] = []


@task
async def once(what: str) -> str:
    DONE.append(what)
    return what


@task(stop=stop_after_attempt(5), wait=wait_fixed(0.4))
async def flaky() -> int:
    TRIES.append(attempt().number)
    if attempt().number == 1:
        raise OSError("the first time never works")
    return attempt().number


@workflow
async def part(what: str) -> str:
    return f"{await go.receive()} {await once(f'part {what}')}"


@workflow
async def journey(what: str) -> list[str | int | float]:
    first = await once(what)

    async def slept() -> float:
        began = durable.now()
        await asyncio.sleep(0.6)
        return (durable.now() - began).total_seconds()

    rest = await asyncio.gather(slept(), flaky(), go.receive(), part(what))
    return [first, *rest]


def main(path: str, file: str, stop_at: int) -> None:
    """Import a file, and stand still on the way, in the transaction."""

    def progress(told: MoveProgress) -> None:
        if told.doing == "installing" and told.events >= stop_at:
            sys.stdout.write("installing\n")
            sys.stdout.flush()
            time.sleep(600)  # until it is killed

    async def work() -> None:
        store = await SqliteStore.open(path)
        await import_from_file(store, file, progress=progress)

    asyncio.run(work())


__all__ = ["DONE", "TRIES", "Engine", "go", "journey", "main", "once", "part"]

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
