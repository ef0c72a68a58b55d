"""Whether one process stays as it is under mixed load: ``python -m tests.soak.mixed [--minutes M] [--rate R]``.

Fan-outs under a pool, retries, signals, requests, children, lives in epochs, cancellations and failures, on one SQLite
file, R runs a second; what has ended is pruned as it would be in a service. Every result is held against what it must
be. Each minute it prints, as JSON: resident memory, open file descriptors, threads, asyncio tasks, objects of the engine,
the sizes of the file and of its WAL, and how many runs of each kind have ended.

Exits with 1 if any of these is larger at the end than at its warm state by more than the slack below, if a result was
wrong, or if the log does not verify.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Request, Retention, Signal, attempt, durable, task, workflow
from engine.audit import prune, verify
from engine.errors import RunCancelledError, RunFailedError
from eventstore.sqlite import SqliteStore
from tests.soak.finished_runs import engine_objects, resident_kib

SLACK: Final = {
    "resident_kib": 40_000,
    "descriptors": 5,
    "threads": 3,
    "tasks": 200,  # of runs that happen to be under way
    "engine_objects": 20_000,  # likewise
    "wal_kib": 32_000,
}
"""By how much a figure may be larger in the last quarter of the time than in the second, highest against highest."""
UNDER_WAY_MAX: Final = 400
"""Runs at once: when the machine is slower than the rate, it is the machine that sets the pace."""
KEPT: Final = timedelta(minutes=2)
"""How long runs are kept that have ended."""

word = Signal("word", str)
add = Request("add", int, int)


@task(pool="room", stop=stop_after_attempt(5), wait=wait_fixed(0.05))
async def square(n: int) -> int:
    if attempt().number == 1 and n % 7 == 0:
        raise ConnectionError("once")
    return n * n


@task
def in_a_thread(n: int) -> int:
    return n + 1


@task
async def breaks(n: int) -> int:
    raise ValueError(f"no {n}")


@workflow
async def fan_out(n: int) -> int:
    return sum(await asyncio.gather(*(square(each) for each in range(n, n + 12))))


@workflow
async def steps(n: int) -> int:
    for _ in range(5):
        n = await in_a_thread(n)
        await asyncio.sleep(0.01)
    return n


@workflow
async def told(n: int) -> str:
    async with asyncio.timeout(600):
        return "-".join([await word.receive() for _ in range(n)])


@workflow
async def counter(start: int) -> int:
    total, full = start, asyncio.Event()

    async def take(n: int) -> int:
        nonlocal total
        total += n
        if total >= start + 3:
            full.set()
        return total

    async with add.serve(take):
        await full.wait()
    return total


@workflow
async def family(n: int) -> list[int]:
    return list(await asyncio.gather(*(steps(each) for each in range(n, n + 3))))


@workflow
async def lives(n: int, left: int) -> int:
    n = await square(n)
    if left:
        await asyncio.sleep(0.2)
        await durable.continue_as_new(lives(n % 100 + 1, left - 1))
    return n


@workflow
async def sleeps(n: int) -> int:
    try:
        await asyncio.sleep(3_600)
    finally:
        await in_a_thread(n)
    return n


@workflow
async def fails(n: int) -> int:
    return await breaks(n)


WORKFLOWS = [fan_out, steps, told, counter, family, lives, sleeps, fails]
Play = Callable[[Engine, int], Awaitable[bool]]


async def a_fan_out(engine: Engine, n: int) -> bool:
    return await (await engine.start(fan_out(n))).result() == sum(each * each for each in range(n, n + 12))


async def some_steps(engine: Engine, n: int) -> bool:
    return await (await engine.start(steps(n))).result() == n + 5


async def signals(engine: Engine, n: int) -> bool:
    run = await engine.start(told(3))
    for each in "abc":
        await run.signal(word, f"{each}{n}")
    return await run.result() == f"a{n}-b{n}-c{n}"


async def requests(engine: Engine, n: int) -> bool:
    run = await engine.start(counter(n))
    answers = [await run.ask(add, 1) for _ in range(3)]
    return answers == [n + 1, n + 2, n + 3] and await run.result() == n + 3


async def children(engine: Engine, n: int) -> bool:
    return await (await engine.start(family(n))).result() == [n + 5, n + 6, n + 7]


async def epochs(engine: Engine, n: int) -> bool:
    expected = n
    for left in range(4, -1, -1):
        expected = expected * expected
        expected = expected % 100 + 1 if left else expected
    return await (await engine.start(lives(n, 4))).result() == expected


async def a_cancellation(engine: Engine, n: int) -> bool:
    run = await engine.start(sleeps(n))
    await run.cancel(by="soak")
    try:
        await run.result()
    except RunCancelledError:
        return True
    return False


async def a_failure(engine: Engine, n: int) -> bool:
    try:
        await (await engine.start(fails(n))).result()
    except RunFailedError as error:
        return str(n) in str(error)
    return False


PLAYS: tuple[Play, ...] = (
    a_fan_out,
    some_steps,
    signals,
    requests,
    children,
    epochs,
    a_cancellation,
    a_failure,
)


class Load:
    """What is under way, and what has come of it."""

    def __init__(self, engine: Engine, rate: float, seed: int) -> None:
        self._engine = engine
        self._rate = rate
        self._chance = random.Random(seed)
        self._under_way: set[asyncio.Task[None]] = set()
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def go_on(self, until: float) -> None:
        """Begin runs until then, and wait for all."""
        number = 0
        while time.monotonic() < until:
            if len(self._under_way) < UNDER_WAY_MAX:
                number += 1
                playing = asyncio.create_task(self._play(self._chance.choice(PLAYS), number % 1_000))
                self._under_way.add(playing)
                playing.add_done_callback(self._under_way.discard)
            await asyncio.sleep(1 / self._rate)
        await asyncio.gather(*self._under_way)

    async def _play(self, play: Play, n: int) -> None:
        try:
            right = await play(self._engine, n)
        except Exception as error:
            self.wrong.append(f"{play.__name__}({n}): {type(error).__name__}: {error}")
            return
        if not right:
            self.wrong.append(f"{play.__name__}({n}): another result")
        self.ended[play.__name__] += 1


def figures(file: Path) -> dict[str, int]:
    """What must not grow."""
    wal = file.with_name(file.name + "-wal")
    return {
        "resident_kib": resident_kib(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "engine_objects": engine_objects().total(),
        "wal_kib": (wal.stat().st_size if wal.exists() else 0) // 1024,
    }


async def tidy(store: SqliteStore, load: Load) -> None:
    """Take away what has ended, as a service would."""
    while True:
        await asyncio.sleep(20)
        done = await prune(store, [Retention(keep=KEPT)], by="soak", reason="kept long enough")
        load.ended["pruned events"] += done.events


async def watch(file: Path, load: Load, seen: list[dict[str, int]], every: float) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(every)
        seen.append(figures(file))
        line = {"minutes": round((time.monotonic() - begun) / 60, 1), **seen[-1]}
        size = file.stat().st_size // 1024
        print(json.dumps({**line, "file_kib": size, "ended": dict(load.ended), "wrong": len(load.wrong)}), flush=True)


def grown(seen: list[dict[str, int]]) -> dict[str, int]:
    """What grew by more than the slack from the second quarter to the last."""
    quarter = max(1, len(seen) // 4)
    warm, last = seen[quarter : 2 * quarter] or seen[:1], seen[-quarter:]
    highest = {name: max(each[name] for each in last) - max(each[name] for each in warm) for name in SLACK}
    return {name: more for name, more in highest.items() if more > SLACK[name]}


async def main(minutes: float, rate: float, seed: int) -> int:
    seen: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "soak.db"
        store = await SqliteStore.open(file)
        try:
            async with Engine(store, workflows=WORKFLOWS, pools={"room": 20}) as engine:
                load = Load(engine, rate, seed)
                beside = [
                    asyncio.create_task(tidy(store, load)),
                    asyncio.create_task(watch(file, load, seen, min(60.0, minutes * 60 / 8))),
                ]
                await load.go_on(time.monotonic() + minutes * 60)
                for each in beside:
                    each.cancel()
                for each in await asyncio.gather(*beside, return_exceptions=True):
                    if isinstance(each, Exception):
                        load.wrong.append(f"beside the load: {type(each).__name__}: {each}")
            verdict = await verify(store)
        finally:
            await store.aclose()
    more = grown(seen)
    print(
        json.dumps(
            {
                "minutes": minutes,
                "runs": sum(count for name, count in load.ended.items() if name != "pruned events"),
                "ended": dict(load.ended),
                "wrong": load.wrong[:20],
                "grown": more,
                "verifies": verdict.holds,
            }
        )
    )
    return 1 if more or load.wrong or not verdict.holds else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0, help="runs begun a second")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.minutes, arguments.rate, arguments.seed)))
