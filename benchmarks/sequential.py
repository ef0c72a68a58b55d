"""Whether a sequential step costs one commit.

One run awaits one task after the other. Beside it, the same number of the same rows is written by hand, one commit to
a row. The ratio is steps per second over raw commits per second: 1 would be a step that costs its commit and nothing
else. A step writes three rows (completed, scheduled, started) in its one commit.

`--on-loop 1` has the store write on the loop's own thread, as ``sqlite:///runs.db?writes_on=loop`` does.

Rounds are short and many, because a disk may be slow in one second and fast in the next.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raw import event_rows, rows_written_per_second
from report import ON_LOOP, Aim, Option, Report, options, publish, spread
from workloads import steps_seconds

SIZES = (
    Option("steps", 200, "steps of the run in each round"),
    ON_LOOP,
    Option("rounds", 15, "times that engine and baseline are measured, in turn"),
)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Sequential steps against raw single commits.", SIZES, arguments)
    ratios, engine, raw = [], [], []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(steps_seconds(directory / "warm.db", count=min(given.steps, 50)))
        for index in range(given.rounds):
            store = directory / f"engine-{index}.db"
            seconds = asyncio.run(steps_seconds(store, count=given.steps, on_loop=bool(given.on_loop)))
            engine.append(given.steps / seconds)
            rows = event_rows(store)[: given.steps]
            raw.append(rows_written_per_second(rows, directory / f"raw-{index}.db", rows_per_commit=1))
            ratios.append(engine[-1] / raw[-1])
        return publish(
            given,
            benchmark="sequential",
            question="Does a sequential step cost one commit?",
            ratio=ratios,
            ratio_of="steps per second / raw commits per second, one row to a commit",
            aim=Aim(at_least=0.4),
            directory=directory,
            measured={"engine_steps_per_second": spread(engine), "raw_commits_per_second": spread(raw)},
        )


if __name__ == "__main__":
    main()
