"""Runs that are cut: ``python -m tests.power.engine_work STORE MARKS``, to be run under a recorder.

An engine with a storage for large values: tasks side by side, results and arguments that lie in the storage, closed and
opened again in between. Marks say which runs were started, which tasks have begun to touch the world, and which results were
given out: of each there must be a record on the disk at that moment (`engine_check`).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from tenacity import stop_after_attempt

from engine import Engine, attempt, task, workflow
from engine.storage import Storage
from eventstore.sqlite import checkpoints, opening
from tests.power import canaries, workload

RUNS = 3
PHASES = 2
LARGE_BYTES = 300_000
Deed = Callable[[str, str, int], None]


class World:
    """What the tasks touch: told of each attempt that begins."""

    on_begin: Deed = staticmethod(lambda run, task_id, number: None)


def begin() -> None:
    now = attempt()
    World.on_begin(now.run_id, now.task_id, now.number)


def text(n: int) -> str:
    return f"{n} is not {n + 1}; " * (LARGE_BYTES // len(f"{n} is not {n + 1}; ") + 1)


@task(stop=stop_after_attempt(9))
async def small(n: int) -> int:
    begin()
    return 7 * n


@task(stop=stop_after_attempt(9))
async def large(n: int) -> str:
    begin()
    return text(n)


@task(stop=stop_after_attempt(9))
async def weigh(words: str) -> int:
    begin()
    return len(words)


@workflow
async def day(n: int) -> str:
    one, words, two = await asyncio.gather(small(n), large(n), small(n + 1))
    return f"{one} {two} {await weigh(words)}"


def expected(n: int) -> str:
    return f"{7 * n} {7 * n + 7} {len(text(n))}"


async def work(options: argparse.Namespace) -> None:
    marks = workload.Marks(options.marks)
    World.on_begin = staticmethod(lambda run, task_id, number: marks.say(began=[run, task_id, number]))
    url = f"sqlite:///{options.store}?synchronous={canaries.plant(options.canary)}"
    for phase in range(PHASES):
        storage = Storage(options.store.parent / "values")
        async with Engine(url, workflows=[day], storage=storage, threads=1, worker="w") as engine:

            async def one(n: int, engine: Engine = engine) -> None:
                run = await engine.start(day(n), id=f"day-{n}")
                marks.say(started=n)
                await run.result()
                marks.say(result=n)

            first = 100 * options.seed + phase * RUNS
            await asyncio.gather(*(one(n) for n in range(first, first + RUNS)))
    marks.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("marks", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--canary", default="")
    checkpoints.CHECKPOINT_BYTES = workload.CHECKPOINT_BYTES
    opening.LOG_BYTES_MAX = checkpoints.LOG_BYTES_MAX = workload.LOG_BYTES
    asyncio.run(work(parser.parse_args()))
