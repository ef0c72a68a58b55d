"""What a run shows: a state, a feed and a query. An import that says how far it is.

    .venv/bin/python examples/state.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory

from engine import Engine, Feed, Query, Signal, State, task, workflow

phase = State("phase", str, initial="not begun")
report = Feed("report", str)
rows_so_far = Query("rows_so_far", None, dict[str, int])
publish = Signal("publish", str)


@task
async def load(table: str) -> int:
    """Where rows would be moved."""
    return 1_000 * len(table)


@workflow
async def imported(tables: list[str]) -> int:
    """The number of rows."""
    rows: dict[str, int] = {}
    rows_so_far.provide(lambda: rows)  # reads what the workflow has in its hands, and decides nothing
    await phase.publish("loading")
    for table in tables:
        rows[table] = await load(table)
        await report.publish(f"{table}: {rows[table]} rows")
    await phase.publish("waiting for a name")
    name = await publish.receive()
    await phase.publish(f"published as {name}")
    return sum(rows.values())


async def main(file: str) -> None:
    """Watch an import from outside."""
    url = f"sqlite:///{file}"
    async with Engine(url, workflows=[imported]) as engine:
        run = await engine.start(imported(["flights", "planes"]))
        async for line in run.feed(report):  # follows the run as it goes
            print("report:", line)
            if line.startswith("planes"):
                break

    async with Engine(url) as reader:  # no worker anywhere: the log is read
        print("phase:", await reader.run(run.id).read(phase))
        print("report again:", [line async for line in reader.run(run.id).feed(report, follow=False)])

    async with Engine(url, workflows=[imported]) as engine:
        same = engine.run(run.id)
        print("query:", await same.query(rows_so_far))  # replays the history here, and changes nothing
        await same.signal(publish, "flights-2013")
        print("result:", await same.result())
        print("phase:", await same.read(phase))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
