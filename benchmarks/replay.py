"""How much more it costs to rebuild a run from its history than to read it.

A long history (`steps`: one task after the other) and a wide one (`fan_out`: all tasks at once) are written by the
engine. Then, in turn, each is read and decoded by hand, and rebuilt from the store as by a worker that takes the run
over. The ratio is the time to rebuild over the time to read and decode by hand; the worse shape of a round counts.

Beside it stands the same ratio of processor time, which a busy machine disturbs less; the ratio to reading the events
through the store's own `read`, which shows how much lies in the store's reading and how much in the replay; and how
the time to rebuild grows with the history (an exponent of 1 is linear).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from raw import read_and_decode
from report import Aim, Option, Report, exponent, options, publish, spread
from workloads import fan_out, fan_out_seconds, steps, steps_seconds

from engine import Workflow
from engine.core.events import decode_header
from engine.runtime.recovery import Rebuilt, rebuild_run
from eventstore import EventStore, StreamHead
from eventstore.sqlite import SqliteStore

SIZES = (
    Option("tasks", 10_000, "tasks of each of the two runs; growth is looked at from a tenth of it"),
    Option("rounds", 5, "times that engine and baseline are measured, in turn"),
)
PARTS = (0.1, 0.3, 1.0)
"""Lengths of the histories whose growth is looked at, in parts of `tasks`."""
TIMES = 3
"""How often reading by hand is repeated in a round: one time is soon over, and the median of a few is steadier."""

Write = Callable[..., Coroutine[Any, Any, float]]
SHAPES: tuple[tuple[str, Workflow[..., Any], Write], ...] = (
    ("steps", steps, steps_seconds),
    ("fan_out", fan_out, fan_out_seconds),
)


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Rebuilding runs against reading and decoding their rows.", SIZES, arguments)
    sizes = [max(1, round(part * given.tasks)) for part in PARTS]
    measured: dict[str, Any] = {}
    ratios: list[list[float]] = []
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        for shape, definition, write in SHAPES:
            paths = [directory / f"{shape}-{size}.db" for size in sizes]
            for size, path in zip(sizes, paths, strict=True):
                asyncio.run(write(path, count=size))
            rounds = [asyncio.run(measure(paths[-1], shape, definition)) for _ in range(given.rounds)]
            growth = [_rebuild_seconds(path, shape, definition) for path in paths]
            ratios.append([each["ratio"] for each in rounds])
            measured[shape] = {
                **{key: spread(each[key] for each in rounds) for key in rounds[0]},
                "growth": [{"tasks": size, "seconds": round(s, 4)} for size, s in zip(sizes, growth, strict=True)],
                "exponent_of_seconds": exponent(sizes, growth),
            }
        return publish(
            given,
            benchmark="replay",
            question="How much more does it cost to rebuild a run from its history than to read it?",
            ratio=[max(of_round) for of_round in zip(*ratios, strict=True)],
            ratio_of="seconds to rebuild a run / seconds to read and decode its rows by hand; less is better",
            aim=Aim(at_most=4.0),
            directory=directory,
            measured=measured,
        )


async def measure(path: Path, run_id: str, definition: Workflow[..., Any]) -> dict[str, float]:
    """One round: by hand, through the store's `read`, and rebuilt; each with wall and processor time."""
    by_hand = [_timed(lambda: read_and_decode(path, f"run:{run_id}")) for _ in range(TIMES)]
    hand, hand_processor = (median(each[index] for each in by_hand) for index in (0, 1))
    store = await SqliteStore.open(path, read_only=True)
    try:
        head = await store.head(f"run:{run_id}")
        reading = time.perf_counter()
        await _read_through(store, head.stream)
        read = time.perf_counter() - reading
        processor, started = time.process_time(), time.perf_counter()
        rebuilt = await rebuild_run(store, head, definition, versions=None)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        _finish(rebuilt)
    finally:
        await store.aclose()
    return {
        "ratio": seconds / hand,
        "ratio_of_processor_time": processor / hand_processor,
        "ratio_to_store_read": seconds / read,
        "rebuilt_events_per_second": head.version / seconds,
        "by_hand_events_per_second": head.version / hand,
        "store_read_events_per_second": head.version / read,
    }


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of a call. What it returns is freed after the clocks have stopped."""
    processor, started = time.process_time(), time.perf_counter()
    kept = work()
    found = time.perf_counter() - started, time.process_time() - processor
    del kept
    return found


async def _read_through(store: EventStore, stream: str) -> None:
    kept = [(decode_header(event.header), event.payload) async for event in store.read(stream)]
    assert kept


def _rebuild_seconds(path: Path, run_id: str, definition: Workflow[..., Any]) -> float:
    async def once() -> float:
        store = await SqliteStore.open(path, read_only=True)
        try:
            head: StreamHead = await store.head(f"run:{run_id}")
            started = time.perf_counter()
            rebuilt = await rebuild_run(store, head, definition, versions=None)
            seconds = time.perf_counter() - started
            _finish(rebuilt)
            return seconds
        finally:
            await store.aclose()

    return median(asyncio.run(once()) for _ in range(TIMES))


def _finish(rebuilt: Rebuilt) -> None:
    """It must be the run, at its end; and it is put away."""
    assert rebuilt.replayer.instance.outcome is not None
    assert rebuilt.backlog == []
    rebuilt.replayer.instance.evict()


if __name__ == "__main__":
    main()
