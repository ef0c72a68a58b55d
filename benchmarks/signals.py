"""What a signal costs.

One run receives many signals: all sent together, and then one at a time, each once the one before was answered for.
Beside it, the event rows that the run wrote are written by hand, 500 to a commit. The ratio is rows per second with
all sent together over raw rows per second. A signal is a row in the mailbox, with a commit that its sender waits for,
and an event in the history, with a commit of the run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from raw import ROWS_PER_COMMIT, event_rows, rows_written_per_second
from report import Option, Report, options, publish, spread
from workloads import url_of

from engine import Engine, Signal, workflow

SIZES = (
    Option("signals", 5_000, "signals sent together"),
    Option("singly", 200, "signals sent one at a time"),
    Option("rounds", 5, "times that engine and baseline are measured, in turn"),
)
number = Signal("number", int)


@workflow
async def listen(count: int) -> int:
    """Adds up so many signals."""
    total = 0
    for _ in range(count):
        total += await number.receive()
    return total


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Signals against raw batched rows.", SIZES, arguments)
    ratios, together, singly, raw = [], [], [], []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        for index in range(given.rounds):
            path = directory / f"together-{index}.db"
            seconds = asyncio.run(send_together(path, given.signals))
            rows = event_rows(path)
            together.append(given.signals / seconds)
            raw.append(rows_written_per_second(rows, directory / f"raw-{index}.db", rows_per_commit=ROWS_PER_COMMIT))
            ratios.append(len(rows) / seconds / raw[-1])
            singly.append(given.singly / asyncio.run(send_singly(directory / f"singly-{index}.db", given.singly)))
        return publish(
            given,
            benchmark="signals",
            question="What does a signal cost?",
            ratio=ratios,
            ratio_of=f"event rows per second / raw rows per second, {ROWS_PER_COMMIT} to a commit",
            directory=directory,
            measured={
                "together_signals_per_second": spread(together),
                "singly_signals_per_second": spread(singly),
                "raw_rows_per_second": spread(raw),
            },
        )


async def send_together(path: Path, count: int) -> float:
    """Seconds from the first sending to the result."""
    async with Engine(url_of(path), workflows=[listen]) as engine:
        run = await engine.start(listen(count))
        started = time.perf_counter()
        await asyncio.gather(*(run.signal(number, value) for value in range(count)))
        result = await run.result()
        seconds = time.perf_counter() - started
    assert result == count * (count - 1) // 2
    return seconds


async def send_singly(path: Path, count: int) -> float:
    """The same, of signals each of which is sent once the one before is durable."""
    async with Engine(url_of(path), workflows=[listen]) as engine:
        run = await engine.start(listen(count))
        started = time.perf_counter()
        for value in range(count):
            await run.signal(number, value)
        await run.result()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
