"""What memory very many calls cost: all at once, or a window of them.

One run makes a hundred thousand calls of a task, all gathered, or through `map` with a window; and one starts child
runs, again through `map`. Each in a process of its own: how much memory it came to hold at most above what it held
before. The ratio is memory with a window over memory gathered.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from processes import in_fresh_process, peak_bytes, resident_bytes
from report import Aim, Option, Report, options, publish
from workloads import echo, fan_out, url_of

from engine import Engine, workflow

SIZES = (
    Option("tasks", 100_000, "calls of a task in one run"),
    Option("children", 20_000, "child runs that one run starts"),
    Option("window", 100, "calls that are held at once, by `map`"),
    Option("rounds", 1, "times that each is measured"),
)


async def _numbers(count: int) -> AsyncIterator[int]:
    for value in range(count):
        yield value


@workflow
async def in_a_window(count: int, window: int) -> int:
    """As many calls as `fan_out`, never more than a window of them."""
    total = 0
    async for value in echo.map(_numbers(count), concurrency=window):
        total += value
    return total


@workflow
async def child(value: int) -> int:
    """The smallest run there is."""
    return await echo(value)


@workflow
async def children(count: int, window: int) -> int:
    """So many runs, never more than a window of them."""
    total = 0
    async for value in child.map(_numbers(count), concurrency=window):
        total += value
    return total


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("The memory of very many calls, gathered and in a window.", SIZES, arguments)
    ratios: list[float] = []
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        for index in range(given.rounds):
            for kind, count in (("gathered", given.tasks), ("window", given.tasks), ("children", given.children)):
                store = Path(name) / f"{kind}-{index}.db"
                measured[kind] = in_fresh_process(measure, store, kind, count, given.window)
            ratios.append(measured["window"]["memory_bytes"] / measured["gathered"]["memory_bytes"])
        return publish(
            given,
            benchmark="backpressure",
            question="What memory do very many calls cost, all at once or in a window?",
            ratio=ratios,
            ratio_of="memory with a window / memory gathered",
            aim=Aim(at_most=0.25),
            directory=Path(name),
            measured=measured,
        )


def measure(store: Path, kind: str, count: int, window: int) -> dict[str, Any]:
    """One run on a new store: seconds, and the memory that it took at most."""
    warm = store.with_name(f"warm-{store.name}")
    asyncio.run(_run(warm, kind, min(count, 200), window))
    before = resident_bytes()
    started = time.perf_counter()
    asyncio.run(_run(store, kind, count, window))
    seconds = time.perf_counter() - started
    memory_bytes = max(1, peak_bytes() - before)
    return {
        "calls": count,
        "seconds": round(seconds, 2),
        "memory_bytes": memory_bytes,
        "memory_bytes_per_call": round(memory_bytes / count),
    }


async def _run(store: Path, kind: str, count: int, window: int) -> None:
    call: Any = fan_out(count) if kind == "gathered" else (in_a_window if kind == "window" else children)(count, window)
    async with Engine(url_of(store), workflows=[fan_out, in_a_window, children, child]) as engine:
        run = await engine.start(call)
        assert await run.result() == count * (count - 1) // 2


if __name__ == "__main__":
    main()
