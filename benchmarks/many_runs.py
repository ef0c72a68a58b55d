"""Whether many runs share commits.

A thousand runs of five tasks are started at once. Beside it, the rows that they wrote are written by hand, 500 to a
commit. The ratio is rows per second over raw rows per second. Each step
of each run is a commit to the store; that they share transactions is what the ratio shows.

Python looks for garbage each time that 700 more objects live than before, and a thousand runs are many. An application
may choose another number for all of its process (`gc.set_threshold`); `--gc-threshold` shows what that gains.

`--processes 2` has two worker processes on the one store, each with half of the runs: what one file takes is the limit
of all of them together. `--on-loop 1` has the store write on the loop's own thread.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raw import ROWS_PER_COMMIT, event_rows, rows_written_per_second
from report import ON_LOOP, Aim, Option, Report, options, publish, spread
from together import seconds_together
from workloads import many_runs_seconds

SIZES = (
    Option("runs", 1_000, "runs started at once"),
    Option("tasks", 5, "tasks of each run, one after the other"),
    Option("processes", 1, "worker processes on the one store, each with its share of the runs"),
    Option("gc_threshold", 0, "for gc.set_threshold in this process, baseline included; 0 for Python's own"),
    ON_LOOP,
    Option("rounds", 5, "times that engine and baseline are measured, in turn"),
)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Many short runs at once against raw batched rows.", SIZES, arguments)
    if given.gc_threshold:
        gc.set_threshold(given.gc_threshold)
    ratios, engine, raw, runs = [], [], [], []
    written = 0
    share = {"runs": given.runs // given.processes, "tasks": given.tasks, "on_loop": bool(given.on_loop)}
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(many_runs_seconds(directory / "warm.db", runs=min(given.runs, 20), tasks=given.tasks))
        for index in range(given.rounds):
            store = directory / f"engine-{index}.db"
            seconds = seconds_together(many_runs_seconds, store, [share] * given.processes)
            rows = event_rows(store)
            written = len(rows)
            engine.append(written / seconds)
            runs.append(share["runs"] * given.processes / seconds)
            raw.append(rows_written_per_second(rows, directory / f"raw-{index}.db", rows_per_commit=ROWS_PER_COMMIT))
            ratios.append(engine[-1] / raw[-1])
        return publish(
            given,
            benchmark="many_runs",
            question="Do many runs share commits?",
            ratio=ratios,
            ratio_of=f"event rows per second / raw rows per second, {ROWS_PER_COMMIT} to a commit",
            aim=Aim(at_least=0.1),
            directory=directory,
            measured={
                "rows": written,
                "engine_rows_per_second": spread(engine),
                "engine_runs_per_second": spread(runs),
                "raw_rows_per_second": spread(raw),
            },
        )


if __name__ == "__main__":
    main()
