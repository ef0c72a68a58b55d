"""Whether a store full of unfinished runs opens in bounded time.

A process leaves many unfinished runs and is killed (`unfinished.py`). An engine is opened on its store: how long until
it is open, and until a new run that it starts has its result, while the others are claimed behind it. The same with a
tenth as many. The ratio is the time until it is open with all of them, over that with a tenth: 1 is bounded, 10 is
linear.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from report import Aim, Option, Report, options, publish, spread
from unfinished import leave_unfinished, open_ended
from workloads import steps, url_of

from engine import Engine

SIZES = (
    Option("runs", 100_000, "unfinished runs; a tenth of it is measured beside"),
    Option("rounds", 1, "times that both are measured, in turn"),
)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Opening a store with unfinished runs.", SIZES, arguments)
    ratios: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {"all": [], "a_tenth": []}
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(open_and_run(directory / "warm.db"))
        for index in range(given.rounds):
            for part, runs in (("a_tenth", max(1, given.runs // 10)), ("all", given.runs)):
                path = directory / f"{part}-{index}.db"
                leave_unfinished(path, runs=runs, tasks=1)
                found[part].append(asyncio.run(open_and_run(path)))
            ratios.append(found["all"][-1][0] / found["a_tenth"][-1][0])
        return publish(
            given,
            benchmark="opening",
            question="Does a store full of unfinished runs open in bounded time?",
            ratio=ratios,
            ratio_of="seconds until it is open / with a tenth of the runs; less is better, 10 is linear",
            aim=Aim(at_most=2.0),
            directory=directory,
            measured={
                "open_milliseconds": {part: spread(each[0] * 1_000 for each in times) for part, times in found.items()},
                "first_result_milliseconds": {
                    part: spread(each[1] * 1_000 for each in times) for part, times in found.items()
                },
            },
        )


async def open_and_run(path: Path) -> tuple[float, float]:
    """Seconds until the engine is open, and from there until a new run has its result."""
    started = time.perf_counter()
    async with Engine(url_of(path), workflows=[open_ended, steps]) as engine:
        opened = time.perf_counter()
        run = await engine.start(steps(1))
        await run.result()
        return opened - started, time.perf_counter() - opened


if __name__ == "__main__":
    main()
