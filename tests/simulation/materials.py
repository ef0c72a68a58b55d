"""A small graph of assets that some scenarios materialize beside their runs, and what must have come of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from engine import Engine
from engine.assets import AssetPublished, Assets, Definitions, Static, asset, asset_stream, read_event
from engine.errors import RunSuspendedError
from engine.storage import Storage
from eventstore import EventStore, StreamNotFound
from eventstore.memory import MemoryStore
from tests.simulation.outside import OUTSIDE

__all__ = ["RUN_ID", "judge_materials", "materialized", "offered"]

RUN_ID = "assets"


@asset
def base() -> int:
    return 3


@asset(partitions=Static(["a", "b"]))
async def parts(base: int) -> int:
    return 2 * base


@asset
def whole(parts: dict[str, int], base: int) -> int:
    return sum(parts.values()) + base


DEFINITIONS = Definitions([base, parts, whole])
PUBLISHED = Counter({("base", ""): 1, ("parts", "a"): 1, ("parts", "b"): 1, ("whole", ""): 1})


def offered(store: EventStore, folder: str, clock: Any) -> Assets:
    """The assets, as one actor has them."""
    return Assets(DEFINITIONS, store, storage=Storage(Path(folder)), clock=clock)


async def materialized(engine: Engine, these: Assets) -> None:
    """Begin the run, or find that it is there; then await its end."""
    try:
        begun = (await engine.store.head(f"run:{RUN_ID}")).version > 0
    except StreamNotFound:
        begun = False
    if not begun:
        await engine.start(these.materialize(await these.plan()), id=RUN_ID)
    while True:
        try:
            await engine.run(RUN_ID).result()
        except RunSuspendedError:  # its workers have died often enough
            await engine.run(RUN_ID).resume()
        else:
            return


async def judge_materials(store: MemoryStore) -> int:
    """Each partition was published once. Returns how many were looked at."""
    found: Counter[tuple[str, str]] = Counter()
    for key in ("base", "parts", "whole"):
        async for recorded in store.read(asset_stream("prod", key)):
            event = read_event(recorded)
            if isinstance(event, AssetPublished):
                found[key, event.partition] += 1
    if found != PUBLISHED:
        OUTSIDE.broke("assets", f"published were {dict(found)}, not {dict(PUBLISHED)}")
    return len(PUBLISHED)
