"""How long ten thousand unfinished runs take to go on.

A process starts them, each does a few tasks and is in the middle of another, and the process is killed. Then an engine
is opened on the store, in this process: what is timed is from there until every run has ended. Each is claimed, read,
replayed, and does its last task again. Beside it, new runs of the same number of tasks on a new store: they do not
read and replay, and write all of their events where the others write two. The ratio is seconds to recover over
seconds to run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from report import Option, Report, options, publish, spread
from unfinished import leave_unfinished, open_ended
from workloads import url_of

from engine import Engine

SIZES = (
    Option("runs", 10_000, "unfinished runs"),
    Option("tasks", 5, "tasks that each has done"),
    Option("rounds", 3, "times that engine and baseline are measured, in turn"),
)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Unfinished runs of a killed process go on.", SIZES, arguments)
    ratios, recovered, opened, fresh = [], [], [], []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(run_new(directory / "warm.db", runs=min(given.runs, 20), tasks=given.tasks))
        for index in range(given.rounds):
            path = directory / f"unfinished-{index}.db"
            ids = leave_unfinished(path, runs=given.runs, tasks=given.tasks)
            until_open, until_ended = asyncio.run(recover(path, ids, given.tasks))
            opened.append(until_open * 1_000)
            recovered.append(given.runs / until_ended)
            seconds = asyncio.run(run_new(directory / f"new-{index}.db", runs=given.runs, tasks=given.tasks))
            fresh.append(given.runs / seconds)
            ratios.append(until_ended / seconds)
        return publish(
            given,
            benchmark="recovery",
            question="How long do unfinished runs take to go on?",
            ratio=ratios,
            ratio_of="seconds until all have ended / seconds that as many new runs take; less is better",
            directory=directory,
            measured={
                "recovered_runs_per_second": spread(recovered),
                "new_runs_per_second": spread(fresh),
                "open_milliseconds": spread(opened),
            },
        )


async def recover(path: Path, ids: Sequence[str], tasks: int) -> tuple[float, float]:
    """Seconds until the engine is open, and until every run has ended."""
    started = time.perf_counter()
    async with Engine(url_of(path), workflows=[open_ended]) as engine:
        opened = time.perf_counter() - started
        handles = [engine.run(run_id) for run_id in ids]
        results = await asyncio.gather(*(handle.result() for handle in handles))
        seconds = time.perf_counter() - started
    assert set(results) == {tasks * (tasks + 1) // 2}
    return opened, seconds


async def run_new(path: Path, *, runs: int, tasks: int) -> float:
    """Seconds from the first start to the last result, of as many new ones."""
    async with Engine(url_of(path), workflows=[open_ended]) as engine:
        started = time.perf_counter()
        handles = await asyncio.gather(*(engine.start(open_ended(tasks)) for _ in range(runs)))
        await asyncio.gather(*(handle.result() for handle in handles))
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
