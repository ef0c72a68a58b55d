"""Stores full of unfinished runs, as a process leaves them that is killed: for `recovery.py` and `opening.py`.

Each run has done some tasks and is in the middle of one more, which does not end where the store is written and ends at
once everywhere else.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path

from workloads import echo, url_of

from engine import Engine, task, workflow

__all__ = ["leave_unfinished", "open_ended"]

AT_ONCE = 500
"""Runs started together."""
_stuck = False
_begun: asyncio.Semaphore | None = None  # counts the attempts that are stuck


@task
async def last(value: int) -> int:
    """Does not end in the process that is to be killed."""
    if _stuck and _begun is not None:
        _begun.release()
        await asyncio.Event().wait()
    return value


@workflow
async def open_ended(tasks: int) -> int:
    """Some tasks, one after the other, and one that is cut off."""
    total = 0
    for value in range(tasks):
        total += await echo(value)
    return total + await last(tasks)


def leave_unfinished(path: Path, *, runs: int, tasks: int) -> list[str]:
    """Write a new store with so many unfinished runs, in a process that then dies. Returns the ids of the runs."""
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(path, runs, tasks))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode
    return [_id(index) for index in range(runs)]


def _id(index: int) -> str:
    return f"unfinished-{index}"


def _write_and_die(path: Path, runs: int, tasks: int) -> None:
    global _stuck  # noqa: PLW0603 - of a process that does nothing else
    _stuck = True
    asyncio.run(_write(path, runs, tasks))


async def _write(path: Path, runs: int, tasks: int) -> None:
    global _begun  # noqa: PLW0603 - likewise
    _begun = asyncio.Semaphore(0)
    async with Engine(url_of(path), workflows=[open_ended], concurrency=runs + 1, runs=runs + 1) as engine:
        for first in range(0, runs, AT_ONCE):
            together = range(first, min(runs, first + AT_ONCE))
            await asyncio.gather(*(engine.start(open_ended(tasks), id=_id(index)) for index in together))
            for _ in together:  # an attempt begins once that is durable
                await _begun.acquire()
        os._exit(0)  # as kill -9: nothing is closed, nothing given up
