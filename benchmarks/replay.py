"""How much more it costs to rebuild a run from its history than to read it.

A long history (one task after the other) and a wide one (all tasks at once) are written by the engine. Then, in turn,
each is read and decoded by hand, and rebuilt from the store as a worker does it that takes the run over. The ratio is
the time to rebuild over the time to read and decode by hand; of the two shapes' ratios in a round, the worse counts.

Rebuilding is also timed against reading the same events through the store's own `read`, which shows how much of the
difference lies in the store's reading and how much in the replay.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raw import read_and_decode_seconds
from report import Aim, Option, Report, Spread, options, publish, spread
from workloads import fan_out, fan_out_seconds, steps, steps_seconds

from engine import Workflow
from engine.core.events import decode_header
from engine.runtime.recovery import rebuild_run
from eventstore import EventStore
from eventstore.sqlite import SqliteStore

SIZES = (
    Option("tasks", 10_000, "tasks of each of the two runs"),
    Option("rounds", 5, "times that engine and baseline are measured, in turn"),
)
SHAPES: tuple[tuple[str, Workflow[..., Any]], ...] = (("steps", steps), ("fan_out", fan_out))


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Rebuilding runs against reading and decoding their rows.", SIZES, arguments)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(steps_seconds(directory / "steps.db", count=given.tasks))
        asyncio.run(fan_out_seconds(directory / "fan_out.db", count=given.tasks))
        rounds: dict[str, list[dict[str, float]]] = {
            shape: [asyncio.run(measure(directory / f"{shape}.db", shape, definition)) for _ in range(given.rounds)]
            for shape, definition in SHAPES
        }
        worst = [max(a["ratio"], b["ratio"]) for a, b in zip(rounds["steps"], rounds["fan_out"], strict=True)]
        return publish(
            given,
            benchmark="replay",
            question="How much does rebuilding a run from its history cost, above reading it?",
            ratio=worst,
            ratio_of="seconds to rebuild a run / seconds to read and decode its rows by hand; less is better",
            aim=Aim(at_most=4.0),
            directory=directory,
            measured={shape: _spreads(of_shape) for shape, of_shape in rounds.items()},
        )


async def measure(path: Path, run_id: str, definition: Workflow[..., Any]) -> dict[str, float]:
    """One round: by hand, through the store's `read`, and rebuilt."""
    by_hand, events = read_and_decode_seconds(path, f"run:{run_id}")
    store = await SqliteStore.open(path, read_only=True)
    try:
        head = await store.head(f"run:{run_id}")
        assert head.version == events
        through_store = await _read_through(store, head.stream)
        started = time.perf_counter()
        rebuilt = await rebuild_run(store, head, definition)
        seconds = time.perf_counter() - started
        assert rebuilt.replayer.instance.outcome is not None
        assert rebuilt.backlog == []
        rebuilt.replayer.instance.evict()
    finally:
        await store.aclose()
    return {
        "ratio": seconds / by_hand,
        "rebuilt_events_per_second": events / seconds,
        "by_hand_events_per_second": events / by_hand,
        "store_read_events_per_second": events / through_store,
        "ratio_to_store_read": seconds / through_store,
    }


async def _read_through(store: EventStore, stream: str) -> float:
    started = time.perf_counter()
    kept = [(decode_header(event.header), event.payload) async for event in store.read(stream)]
    assert kept
    return time.perf_counter() - started


def _spreads(rounds: list[dict[str, float]]) -> dict[str, Spread]:
    return {name: spread(each[name] for each in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
