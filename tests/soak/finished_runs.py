"""Whether memory stays flat over finished runs in one process: ``python -m tests.soak.finished_runs [RUNS]``.

Starts runs of two tasks each, in waves, on a SQLite file (or ``--memory``, whose store grows by design, so only what the
engine holds is judged there); after each tenth it prints the resident memory and the number of objects that the
collector knows. Exits with 1 if the objects of the engine's own types grow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine import Engine, task, workflow
from eventstore import EventStore
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore

WAVE = 200
"""Runs that are under way at once."""
SLACK = 300
"""Objects of the engine's types that may come and go between two looks."""


@task
async def add(a: int, b: int) -> int:
    return a + b


@task
async def double(a: int) -> int:
    return 2 * a


@workflow
async def sum_twice(a: int, b: int) -> int:
    return await double(await add(a, b))


def engine_objects() -> Counter[str]:
    """How many objects of the engine's own types live now, by type."""
    gc.collect()
    names = (f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.get_objects())
    return Counter(name for name in names if name.startswith("engine."))


def resident_kib() -> int:
    """Resident memory of this process, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def waves(store: EventStore, runs: int, look: Callable[[int], None], *, looks: int = 10) -> None:
    """Start and finish that many runs; look at the process `looks` times on the way, nothing being under way."""
    async with Engine(store, workflows=[sum_twice]) as engine:
        every, done = max(WAVE, runs // looks // WAVE * WAVE), 0
        while done < runs:
            wave = min(WAVE, runs - done)
            handles = await asyncio.gather(*(engine.start(sum_twice(n, 1), id=f"run-{done + n}") for n in range(wave)))
            results = await asyncio.gather(*(handle.result() for handle in handles))
            assert results == [2 * (n + 1) for n in range(wave)]
            done += wave
            del handles, results
            if done % every == 0 or done == runs:
                await asyncio.sleep(0)
                look(done)


async def main(runs: int, *, memory: bool) -> int:
    begun = time.perf_counter()
    seen: list[dict[str, int]] = []

    def look(done: int) -> None:
        objects = engine_objects()
        seen.append(
            {
                "runs": done,
                "resident_kib": resident_kib(),
                "engine_objects": objects.total(),
                "objects": len(gc.get_objects()),
            }
        )
        print(json.dumps(seen[-1]), flush=True)

    if memory:
        store: EventStore = MemoryStore()
        await waves(store, runs, look)
        await store.aclose()
    else:
        with tempfile.TemporaryDirectory() as folder:
            store = await SqliteStore.open(Path(folder) / "runs.db", synchronous="NORMAL")
            await waves(store, runs, look)
            await store.aclose()
    grown = seen[-1]["engine_objects"] - seen[0]["engine_objects"]
    print(json.dumps({"seconds": round(time.perf_counter() - begun, 1), "engine_objects_grown": grown}))
    return 1 if grown > SLACK else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=100_000)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.runs, memory=arguments.memory)))
