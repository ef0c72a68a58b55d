"""How many bytes of log a task takes.

One run of many steps and one fan-out, on a store each; then, of each: the bytes of what is recorded (headers, payloads,
digests and salts), and of the file once it is closed, with its indexes and the pages that are not full, each per task.
The ratio is the bytes of file per task, of the larger of the two, over the 1,000 that a task's log may take: by hand
the same rows take as much.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from report import Aim, Option, Report, options, publish, spread
from workloads import fan_out_seconds, steps_seconds

SIZES = (
    Option("tasks", 10_000, "tasks of each of the two runs"),
    Option("rounds", 1, "times that it is measured; hardly anything differs between two"),
)
BYTES_PER_TASK = 1_000
"""What a task's log may take."""


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Bytes of log per task.", SIZES, arguments)
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        for index in range(given.rounds):
            found: dict[str, dict[str, float]] = {}
            for shape, write in (("steps", steps_seconds), ("fan_out", fan_out_seconds)):
                path = directory / f"{shape}-{index}.db"
                asyncio.run(write(path, count=given.tasks))
                found[shape] = measure(path, given.tasks)
            rounds.append(found)
        measured: dict[str, Any] = {
            shape: {key: spread(each[shape][key] for each in rounds) for key in rounds[0][shape]} for shape in rounds[0]
        }
        measured["limit_bytes_per_task"] = BYTES_PER_TASK
        return publish(
            given,
            benchmark="log_size",
            question="How many bytes of log does a task take?",
            ratio=[max(of["file_bytes_per_task"] for of in each.values()) / BYTES_PER_TASK for each in rounds],
            ratio_of=f"bytes of file per task / {BYTES_PER_TASK:,}; less is better",
            aim=Aim(at_most=1.0),
            directory=directory,
            measured=measured,
        )


def measure(path: Path, tasks: int) -> dict[str, float]:
    """Of a closed store: its file, and what stands in it, in bytes per task."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        headers, values, proof, rows = connection.execute(
            "SELECT sum(length(CAST(header AS BLOB))), sum(length(CAST(payload AS BLOB))),"
            " sum(length(digest) + coalesce(length(salt), 0) + coalesce(length(payload_digest), 0)), count(*)"
            " FROM events"
        ).fetchone()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    return {
        "file_bytes_per_task": (pages - free) * page_bytes / tasks,
        "header_bytes_per_task": headers / tasks,
        "value_bytes_per_task": values / tasks,
        "digest_bytes_per_task": proof / tasks,
        "rows_per_task": rows / tasks,
    }


if __name__ == "__main__":
    main()
