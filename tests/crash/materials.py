"""Assets whose process kills itself, once at each of the places it is told: ``python -m tests.crash.materials FOLDER PLACE...``.

It plans and materializes, or goes on with the run that was begun, and prints what there is then: by asset and partition
the data versions that were published, in order. What is computed is a line in a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from engine import Engine
from engine.assets import AssetContext, AssetPublished, Assets, Definitions, Static, asset, check, read_event
from engine.errors import RunNotFound
from engine.storage import Storage
from eventstore import Commit, StreamHead, StreamNotFound
from eventstore.sqlite import SqliteStore

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
PLACES = sys.argv[2:]
PARTS = Static(["a", "b", "c"])


def die_at(place: str) -> None:
    """End here with SIGKILL, if that was asked and has not been done."""
    marker = FOLDER / f"killed {place}"
    if place in PLACES and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def computed(name: str) -> None:
    """A line in a file, durable."""
    with (FOLDER / "computed").open("a") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())


@asset(code_version="1")
def base() -> list[int]:
    computed("base")
    die_at("computing")
    return [1, 2, 3]


@asset(partitions=PARTS, code_version="1")
async def parts(base: list[int], context: AssetContext) -> dict[str, int]:
    computed(f"parts[{context.partition}]")
    if context.partition == "b":
        die_at("computing a part")
    return {context.partition: sum(base)}


@check(parts)
def sums(parts: dict[str, int]) -> bool:
    if "c" in parts:
        die_at("checking")
    return all(value == 6 for value in parts.values())


@asset(code_version="1")
def whole(parts: dict[str, dict[str, int]]) -> int:
    computed("whole")
    return sum(sum(each.values()) for each in parts.values())


class Dying(SqliteStore):
    """A store that dies around the commit that publishes a part, and around the last of the run."""

    async def commit(self, commit: Commit) -> StreamHead:
        headers = b"".join(each.header for each in commit.events)
        publishes = commit.stream == "asset:prod/parts" and b'"AssetPublished"' in headers
        starts = commit.stream == "asset:prod/whole" and b'"AssetStarted"' in headers
        ends = commit.stream == "run:all" and b'"RunCompleted"' in headers
        for place, here in (("publishing", publishes), ("starting", starts), ("ending", ends)):
            if here:
                die_at(f"before {place}")
        head = await super().commit(commit)
        for place, here in (("publishing", publishes), ("starting", starts), ("ending", ends)):
            if here:
                die_at(f"after {place}")
        return head


async def main() -> None:
    """Begin it, or go on."""
    store = await Dying.open(FOLDER / "assets.db")
    assets = Assets(Definitions([base, parts, whole], checks=[sums]), store, storage=Storage(FOLDER / "values"))
    async with Engine(store, workflows=assets.workflows, storage=assets.storage) as engine:
        run: Any = engine.run("all")
        try:
            await run.state()
        except RunNotFound:
            run = await engine.start(assets.materialize(await assets.plan()), id="all")
        await run.result()
    found: dict[str, list[str]] = {}
    for key in ("base", "parts", "whole"):
        try:
            async for recorded in store.read(f"asset:prod/{key}"):
                event = read_event(recorded)
                if isinstance(event, AssetPublished):
                    found.setdefault(f"{key}[{event.partition}]", []).append(event.data_version)
        except StreamNotFound:
            continue
    await store.aclose()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
