"""Whether long histories open in bounded memory: ``python -m tests.soak.long_history [EVENTS]``.

Writes one run with that many events (tasks, fifty at a time; in one epoch, or with ``--epochs N`` in N) on a SQLite
file, by the engine itself. Then, each in a process of its own:
rebuilds it from the log, folds its state, and reads its history. Prints seconds per 100,000 events and the memory that
the process came to hold, as JSON. Exits with 1 if reading the history, which keeps nothing, holds more with its length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine import Engine, Signal, durable, task, workflow
from engine.runtime.histories import read_events, read_state
from engine.runtime.recovery import rebuild_run
from eventstore.sqlite import SqliteStore
from tests.soak.finished_runs import resident_kib

PER_TASK = 3
"""Events of one task: scheduled, started, completed."""
READING_KIB_MAX = 60_000
"""What reading a history may come to hold, however long it is."""
WIDTH = 50
"""Tasks that run at once while the history is written: it is its length that is asked about."""

done = Signal("done", type(None))


@task
async def step(n: int) -> int:
    return n


@workflow
async def long(tasks: int, epochs: int) -> int:
    """So many tasks in each of so many epochs; then it waits."""
    total = 0
    for first in range(0, tasks, WIDTH):
        total += sum(await asyncio.gather(*(step(n) for n in range(first, min(tasks, first + WIDTH)))))
    if epochs > 1:
        await durable.continue_as_new(long(tasks, epochs - 1))
    await done.receive()
    return total


async def write(path: Path, events: int, epochs: int) -> dict[str, float]:
    tasks = max(1, events // PER_TASK // epochs)
    begun = time.perf_counter()
    store = await SqliteStore.open(path, synchronous="NORMAL")
    async with Engine(store, workflows=[long]) as engine:
        run = await engine.start(long(tasks, epochs), id="long")
        while (head := await store.head("run:long")).owner is not None or head.version < 2:
            await asyncio.sleep(0.2)
        version = head.version
        assert await run.status() == "running"
    await store.aclose()
    return {"events": version, "seconds": time.perf_counter() - begun}


async def look(path: Path, what: str) -> dict[str, float]:
    store = await SqliteStore.open(path, synchronous="NORMAL")
    head = await store.head("run:long")
    before, begun, used = resident_kib(), time.perf_counter(), time.process_time()
    kept: Any = None
    match what:
        case "rebuild":
            kept = await rebuild_run(store, head, long, versions=None)
        case "state":
            kept = await read_state(store, "long")
        case "history":
            kept = 0
            async for _ in read_events(store, "long"):
                kept += 1
            assert kept == head.version
    seconds, used, held = time.perf_counter() - begun, time.process_time() - used, resident_kib() - before
    if what == "rebuild":
        kept.replayer.instance.evict()
    await store.aclose()
    return {
        "seconds": seconds,
        "seconds_per_100_000_events": seconds * 100_000 / head.version,
        "processor_seconds_per_100_000_events": used * 100_000 / head.version,
        "memory_kib": held,
        "memory_bytes_per_event": held * 1024 / head.version,
    }


def main(events: int, epochs: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        written = asyncio.run(write(path, events, epochs))
        report: dict[str, Any] = {"epochs": epochs, "written": written}
        for what in ("rebuild", "state", "history"):
            command = [sys.executable, "-m", "tests.soak.long_history", "--look", what, "--path", str(path)]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            report[what] = json.loads(out.stdout)
            print(json.dumps({what: report[what]}), flush=True)
        print(json.dumps(report))
        return 1 if report["history"]["memory_kib"] > READING_KIB_MAX else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--look", choices=("rebuild", "state", "history"))
    parser.add_argument("--path", type=Path)
    arguments = parser.parse_args()
    if arguments.look:
        print(json.dumps(asyncio.run(look(arguments.path, arguments.look))))
        sys.exit(0)
    sys.exit(main(arguments.events, arguments.epochs))
