"""What a limit costs that all engines on a store share.

One run gathers tasks that wait for a moment, so many at once and no more. Three ways to say how many: a pool in the
store, the engine's own slots (`Engine(concurrency=)`), and plain asyncio with a semaphore, which records nothing. The
ratio is seconds with the pool over seconds with the engine's slots: what it costs that others keep to the limit, too.
Beside it: both over the plain run; a rate and a pool that nobody reaches, over no limit at all; and many runs that
wait for one pool.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from report import Aim, Option, Report, options, publish, spread
from workloads import url_of

from engine import Engine, task, workflow

SIZES = (
    Option("tasks", 1_000, "that are gathered in each round"),
    Option("milliseconds", 5, "that each of them waits"),
    Option("slots", 20, "that the limit has"),
    Option("runs", 100, "that wait for one pool together, with a tenth of a run's tasks each"),
    Option("rounds", 5, "times that each is measured, in turn"),
)


async def _wait(milliseconds: int) -> int:
    await asyncio.sleep(milliseconds / 1_000)
    return milliseconds


limited = task(name="limited", pool="slots")(_wait)
rated = task(name="rated", rate="1000000/s")(_wait)
free = task(name="free")(_wait)
KINDS = {"limited": limited, "rated": rated, "free": free}


@workflow
async def gather(kind: str, tasks: int, milliseconds: int) -> int:
    """All at once, as far as limits let them."""
    return len(await asyncio.gather(*(KINDS[kind](milliseconds) for _ in range(tasks))))


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("A pool in the store against an engine's own slots, and plain asyncio.", SIZES, arguments)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        found = asyncio.run(_measure(given, Path(name)))
        return publish(
            given,
            benchmark="limits",
            question="What does a limit cost that all engines on a store share?",
            ratio=found["seconds_pool_over_slots"],
            ratio_of="seconds with a pool in the store / seconds with as many slots of the engine",
            aim=Aim(at_most=2.0),
            directory=Path(name),
            measured={key: spread(values) for key, values in found.items()},
        )


async def _measure(given: Any, directory: Path) -> dict[str, list[float]]:
    tasks, milliseconds, slots = given.tasks, given.milliseconds, given.slots
    files = iter(range(1_000_000))

    def engine(**options: Any) -> Engine:
        return Engine(url_of(directory / f"{next(files)}.db"), workflows=[gather], **options)

    async def one(kind: str, **options: Any) -> float:
        async with engine(**options) as opened:
            return await _seconds(lambda: _ended(opened, [gather(kind, tasks, milliseconds)]))

    async def many() -> float:
        each = max(1, tasks // 10)
        async with engine(pools={"slots": slots}) as opened:
            calls = [gather("limited", each, milliseconds) for _ in range(given.runs)]
            return await _seconds(lambda: _ended(opened, calls)) / (given.runs * each)

    async def plain() -> None:
        semaphore = asyncio.Semaphore(slots)

        async def in_turn() -> int:
            async with semaphore:
                return await _wait(milliseconds)

        await asyncio.gather(*(in_turn() for _ in range(tasks)))

    pools = {"slots": slots}
    wide = {"slots": tasks}
    await one("limited", pools=pools)  # what is paid once
    found: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        bare = await _seconds(plain)
        pool, own = await one("limited", pools=pools), await one("free", pools=pools, concurrency=slots)
        unlimited, unreached = await one("free", pools=wide), await one("limited", pools=wide)
        rate = await one("rated", pools=wide)
        for key, value in {
            "seconds_pool_over_slots": pool / own,
            "seconds_pool_over_plain": pool / bare,
            "seconds_slots_over_plain": own / bare,
            "seconds_unreached_pool_over_none": unreached / unlimited,
            "seconds_unreached_rate_over_none": rate / unlimited,
            "milliseconds_per_task_of_many_runs": await many() * 1_000,
        }.items():
            found.setdefault(key, []).append(value)
    return found


async def _seconds(run: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await run()
    return time.perf_counter() - started


async def _ended(engine: Engine, calls: list[Any]) -> None:
    runs = await asyncio.gather(*(engine.start(call) for call in calls))
    await asyncio.gather(*(run.result() for run in runs))


if __name__ == "__main__":
    main()
