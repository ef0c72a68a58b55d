"""What a sleeping run costs.

Ten thousand runs sleep for an hour, in a process of its own, and the process is looked at: how much memory it has come
to hold above what it held with the engine open, per run, and how much of a processor it uses while nothing happens.
The raw baseline is ten thousand plain asyncio tasks that sleep, in another process: they hold everything in memory and
nothing on disk. The ratio is memory per run over memory per task.

An engine keeps the live instances of the last runs that went to rest, so that they need no replay when they wake
(`cached`), and gives the others up to the store. Measured with the default, and with all of them kept (`all_cached`).
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import in_fresh_process, resident_bytes
from report import Option, Report, Spread, options, publish, spread
from workloads import url_of

from engine import Engine, workflow

SIZES = (
    Option("runs", 10_000, "runs that sleep"),
    Option("rounds", 3, "times that engine and baseline are measured, in turn"),
    Option("idle_seconds", 3, "how long the sleeping process is watched"),
)
AT_ONCE = 500
"""Runs started together."""


@workflow
async def nap(seconds: float) -> None:
    """A run that only sleeps."""
    await asyncio.sleep(seconds)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Memory and idle processor time of sleeping runs.", SIZES, arguments)
    engine: list[dict[str, float]] = []
    all_cached: list[dict[str, float]] = []
    raw: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        for index in range(given.rounds):
            raw.append(in_fresh_process(measure_tasks, given.runs, given.idle_seconds))
            path = directory / f"engine-{index}.db"
            engine.append(in_fresh_process(measure_runs, path, given.runs, given.idle_seconds, None))
            path = directory / f"cached-{index}.db"
            all_cached.append(in_fresh_process(measure_runs, path, given.runs, given.idle_seconds, given.runs))
        return publish(
            given,
            benchmark="sleeping",
            question="What does a sleeping run cost?",
            ratio=[a["memory_bytes_each"] / b["memory_bytes_each"] for a, b in zip(engine, raw, strict=True)],
            ratio_of="memory per sleeping run / memory per sleeping asyncio task; less is better",
            directory=directory,
            measured={"engine": _spreads(engine), "engine_all_cached": _spreads(all_cached), "raw": _spreads(raw)},
        )


def measure_runs(path: Path, runs: int, idle_seconds: float, cached: int | None) -> dict[str, float]:
    """Memory and idle processor time with so many runs asleep."""
    return asyncio.run(_measure_runs(path, runs, idle_seconds, {} if cached is None else {"cached": cached}))


async def _measure_runs(path: Path, runs: int, idle_seconds: float, limits: dict[str, Any]) -> dict[str, float]:
    async with Engine(url_of(path), workflows=[nap], **limits) as engine:
        await engine.start(nap(3_600.0), id="warm")  # what is made once, at the first use, is not counted
        before = _settled_bytes()
        started = time.perf_counter()
        for first in range(0, runs, AT_ONCE):
            await asyncio.gather(*(engine.start(nap(3_600.0)) for _ in range(first, min(runs, first + AT_ONCE))))
        seconds = time.perf_counter() - started
        after = _settled_bytes()
        idle = await _idle_share(idle_seconds)
    return {
        "memory_bytes_each": max(0, after - before) / runs,
        "idle_processor_share": idle,
        "started_per_second": runs / seconds,
    }


def measure_tasks(tasks: int, idle_seconds: float) -> dict[str, float]:
    """The same of plain asyncio tasks."""
    return asyncio.run(_measure_tasks(tasks, idle_seconds))


async def _measure_tasks(tasks: int, idle_seconds: float) -> dict[str, float]:
    async with asyncio.TaskGroup() as group:
        before = _settled_bytes()
        started = time.perf_counter()
        asleep = [group.create_task(asyncio.sleep(3_600.0)) for _ in range(tasks)]
        await asyncio.sleep(0)
        seconds = time.perf_counter() - started
        after = _settled_bytes()
        idle = await _idle_share(idle_seconds)
        for each in asleep:
            each.cancel()
    return {
        "memory_bytes_each": max(1, after - before) / tasks,
        "idle_processor_share": idle,
        "started_per_second": tasks / seconds,
    }


def _settled_bytes() -> int:
    gc.collect()
    return resident_bytes()


async def _idle_share(seconds: float) -> float:
    """Processor time used by all threads of this process per second that passes."""
    used, started = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time() - used) / (time.perf_counter() - started)


def _spreads(rounds: list[dict[str, float]]) -> dict[str, Spread]:
    return {name: spread(each[name] for each in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
