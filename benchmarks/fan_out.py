"""Whether a fan-out costs time and memory in proportion, and how much.

One run gathers ten thousand tasks. Beside it, the rows that it wrote are written by hand, 500 to a commit; the ratio
is rows per second over raw rows per second. Then fan-outs of several sizes, each in a process of its own: seconds, and
how much memory the process came to hold at most above what it held before. The exponent is the slope of a line through
their logarithms: 1 is linear, 2 would be quadratic.

`--processes 2` has two worker processes on the one store, each with a run that gathers half of the tasks.
`--on-loop 1` has the store write on the loop's own thread, but where growth is looked at.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import in_fresh_process, peak_bytes, resident_bytes
from raw import ROWS_PER_COMMIT, event_rows, rows_written_per_second
from report import ON_LOOP, Aim, Option, Report, exponent, options, publish, spread
from together import seconds_together
from workloads import fan_out_seconds

SIZES = (
    Option("tasks", 10_000, "tasks gathered in each round; the other sizes are a tenth of it to twice as many"),
    Option("processes", 1, "worker processes on the one store, each with a run and its share of the tasks"),
    ON_LOOP,
    Option("rounds", 5, "times that engine and baseline are measured, in turn"),
)
PARTS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Sizes of the fan-outs whose growth is looked at, in parts of `tasks`."""


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("A fan-out in one run against raw batched rows, and its growth.", SIZES, arguments)
    ratios, engine, raw = [], [], []
    count = given.tasks // given.processes
    on_loop = bool(given.on_loop)
    shares = [{"count": count, "run_id": f"fan_out-{index}", "on_loop": on_loop} for index in range(given.processes)]
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(fan_out_seconds(directory / "warm.db", count=min(given.tasks, 100)))
        for index in range(given.rounds):
            store = directory / f"engine-{index}.db"
            seconds = seconds_together(fan_out_seconds, store, shares)
            rows = event_rows(store)
            engine.append(len(rows) / seconds)
            raw.append(rows_written_per_second(rows, directory / f"raw-{index}.db", rows_per_commit=ROWS_PER_COMMIT))
            ratios.append(engine[-1] / raw[-1])
        sizes = [max(1, round(part * given.tasks)) for part in PARTS]
        growth = [in_fresh_process(measure, directory / f"growth-{size}.db", size) for size in sizes]
        return publish(
            given,
            benchmark="fan_out",
            question="Does a fan-out cost time and memory in proportion, and how much?",
            ratio=ratios,
            ratio_of=f"event rows per second / raw rows per second, {ROWS_PER_COMMIT} to a commit",
            aim=Aim(at_least=0.15),
            directory=directory,
            measured={
                "engine_rows_per_second": spread(engine),
                "raw_rows_per_second": spread(raw),
                "growth": growth,
                "exponent_of_seconds": exponent(sizes, [each["seconds"] for each in growth]),
                "exponent_of_memory_bytes": exponent(sizes, [each["memory_bytes"] for each in growth]),
            },
        )


def measure(store: Path, tasks: int) -> dict[str, Any]:
    """One fan-out on a new store: seconds, and the memory that it took at most."""
    asyncio.run(fan_out_seconds(store.with_name(f"warm-{store.name}"), count=min(tasks, 100)))
    before = resident_bytes()
    seconds = asyncio.run(fan_out_seconds(store, count=tasks))
    memory_bytes = max(1, peak_bytes() - before)
    return {
        "tasks": tasks,
        "seconds": round(seconds, 4),
        "milliseconds_per_task": round(seconds / tasks * 1_000, 4),
        "memory_bytes": memory_bytes,
        "memory_bytes_per_task": round(memory_bytes / tasks),
    }


if __name__ == "__main__":
    main()
