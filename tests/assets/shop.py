"""A small shop of assets for tests: everything that is materialized is told to `made`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine import Engine, RunHandle
from engine.assets import Asset, Assets, Definitions, Plan, Report
from engine.storage import Storage
from eventstore import EventStore
from tests.runtime.worlds import World, soon

made: list[str] = []
"""What was computed, in order: ``orders``, ``orders[2026-01]``."""


def tell(key: str, partition: str = "") -> None:
    """An asset's function was called."""
    made.append(f"{key}[{partition}]" if partition else key)


def told() -> list[str]:
    """What was computed since it was last asked, sorted."""
    found = sorted(made)
    made.clear()
    return found


def counts() -> Counter[str]:
    """How often each was computed so far."""
    return Counter(made)


@asynccontextmanager
async def shop(
    world: World, folder: Path, *assets: Asset[..., Any], store: EventStore | None = None, **options: Any
) -> AsyncIterator[tuple[Assets, Engine]]:
    """Definitions of these on the world's store, and an engine that makes them."""
    definitions = Definitions(assets, **options)
    handle = await world.store() if store is None else store
    try:
        offered = Assets(definitions, handle, storage=Storage(folder), clock=world.clock)
        async with Engine(handle, workflows=offered.workflows, clock=world.clock, grace=0) as engine:
            yield offered, engine
    finally:
        if store is None:
            await world.release(handle)


async def materialize(assets: Assets, engine: Engine, *select: str, **options: Any) -> Report:
    """Plan and make it."""
    plan = await assets.plan(*select, **options)
    return await run(assets, engine, plan)


async def run(assets: Assets, engine: Engine, plan: Plan) -> Report:
    """Make what is planned. Raises `RunFailedError`."""
    handle = await engine.start(assets.materialize(plan))
    return await soon(handle.result())


async def scheduled(run: RunHandle[Any]) -> AsyncIterator[Any]:
    """The tasks that were scheduled so far, in order."""
    async for each in run.events():
        if type(each.event).__name__ == "TaskScheduled":
            yield each.event


def steps(plan: Plan) -> dict[str, tuple[str, ...]]:
    """By ``node[partitions]``, why."""
    return {
        f"{step.node}[{step.partitions}]" if step.partitions not in ("", "*") else step.node: step.reasons
        for step in plan.steps
    }
