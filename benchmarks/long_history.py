"""How long a run with a long history takes to go on, and what else could have brought it back.

A run with many tasks, fifty at a time, is written by the engine; it then waits for a signal. Its history is rebuilt as
by a worker that takes the run over, in a process of its own, whose memory is looked at. The ratio is that time over the
time to read and decode the same rows by hand.

Beside it stand the two answers that a long history suggests. The same work in epochs (`continue_as_new`): a rebuild
reads the last of them. And a snapshot of the fold (`RunState`, what status pages show): how long it takes to make by
folding, and to load, and how many bytes it has. No snapshot brings a *workflow* back, whose state is in the frames of
its coroutines; this one says how much its readers could save.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from processes import in_fresh_process, resident_bytes
from raw import read_and_decode
from report import Aim, Option, Report, options, publish, spread
from workloads import echo, url_of

from engine import Engine, RunState, Signal, durable, workflow
from engine.runtime.histories import read_state
from engine.runtime.recovery import rebuild_run
from eventstore.sqlite import SqliteStore

SIZES = (
    Option("tasks", 100_000, "tasks of the run: three events each"),
    Option("epochs", 50, "epochs of the run that does the same in epochs"),
    Option("rounds", 3, "times that engine and baseline are measured, in turn"),
)
WIDTH = 50
"""Tasks that run at once: it is the length that is asked about."""
LOOK_SECONDS = 0.02

go_on = Signal("go_on", type(None))


@workflow
async def long(tasks: int, epochs: int) -> int:
    """So many tasks in each of so many epochs; then it waits."""
    total = 0
    for first in range(0, tasks, WIDTH):
        total += sum(await asyncio.gather(*(echo(value) for value in range(first, min(tasks, first + WIDTH)))))
    if epochs > 1:
        await durable.continue_as_new(long(tasks, epochs - 1))
    await go_on.receive()
    return total


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Taking over a run with a long history.", SIZES, arguments)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        whole, parted = directory / "whole.db", directory / "parted.db"
        events = asyncio.run(write(whole, tasks=given.tasks, epochs=1))
        parted_events = asyncio.run(write(parted, tasks=max(1, given.tasks // given.epochs), epochs=given.epochs))
        hand: list[float] = []
        rebuilt: list[dict[str, float]] = []
        in_epochs: list[dict[str, float]] = []
        snapshots: list[dict[str, float]] = []
        for _ in range(given.rounds):
            hand.append(in_fresh_process(by_hand_seconds, whole))
            rebuilt.append(in_fresh_process(measure, whole))
            in_epochs.append(in_fresh_process(measure, parted))
            snapshots.append(in_fresh_process(measure_snapshot, whole))
        return publish(
            given,
            benchmark="long_history",
            question="How long does a run with a long history take to go on?",
            ratio=[each["seconds"] / by_hand for each, by_hand in zip(rebuilt, hand, strict=True)],
            ratio_of="seconds to rebuild a run / seconds to read and decode its rows by hand; less is better",
            aim=Aim(at_most=4.0),
            directory=directory,
            measured={
                "events": events,
                "rebuilt": _spreads(rebuilt),
                "by_hand_seconds": spread(hand),
                "in_epochs": {"events": parted_events, **_spreads(in_epochs)},
                "snapshot_of_the_fold": _spreads(snapshots),
            },
        )


async def write(path: Path, *, tasks: int, epochs: int) -> int:
    """The run, until it waits. Returns how many events it has."""
    async with Engine(url_of(path), workflows=[long]) as engine:
        await engine.start(long(tasks, epochs), id="long")
        while (head := await engine.store.head("run:long")).owner is not None:
            await asyncio.sleep(LOOK_SECONDS)
    return head.version


def measure(path: Path) -> dict[str, float]:
    """Rebuild it: how long that takes, and how much more memory it takes than was there."""
    return asyncio.run(_measure(path))


async def _measure(path: Path) -> dict[str, float]:
    store = await SqliteStore.open(path, read_only=True)
    try:
        head = await store.head("run:long")
        before, started = resident_bytes(), time.perf_counter()
        rebuilt = await rebuild_run(store, head, long, versions=None)
        seconds, held = time.perf_counter() - started, resident_bytes() - before
        assert rebuilt.replayer.instance.outcome is None
        assert rebuilt.backlog == []
        rebuilt.replayer.instance.evict()
    finally:
        await store.aclose()
    return {"seconds": seconds, "memory_bytes": max(0, held)}


def by_hand_seconds(path: Path) -> float:
    """Read and decode its rows by hand."""
    started = time.perf_counter()
    kept = read_and_decode(path, "run:long")
    seconds = time.perf_counter() - started
    assert kept
    return seconds


def measure_snapshot(path: Path) -> dict[str, float]:
    """Fold its history, and load what that would be if it had been kept."""
    return asyncio.run(_measure_snapshot(path))


async def _measure_snapshot(path: Path) -> dict[str, float]:
    store = await SqliteStore.open(path, read_only=True)
    try:
        started = time.perf_counter()
        state = await read_state(store, "long")
        folded = time.perf_counter() - started
    finally:
        await store.aclose()
    started = time.perf_counter()
    kept = msgspec.json.encode(state)
    encoded = time.perf_counter() - started
    started = time.perf_counter()
    loaded = msgspec.json.decode(kept, type=RunState)
    seconds = time.perf_counter() - started
    assert loaded == state
    return {"fold_seconds": folded, "encode_seconds": encoded, "load_seconds": seconds, "bytes": len(kept)}


def _spreads(rounds: list[dict[str, float]]) -> dict[str, Any]:
    return {key: spread(each[key] for each in rounds) for key in rounds[0]}


if __name__ == "__main__":
    main()
