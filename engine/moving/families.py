"""Runs and their child runs, as a store knows them now; and pausing all of them.

It deliberately does not know what becomes of them then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from engine import Engine
from engine.errors import RunNotFound
from eventstore import EventStore, StreamHead, StreamNotFound, StreamQuery, find_all

__all__ = ["Family", "family_of", "pause_all", "stream_of"]

_PARENT: Final = "parent"  # the attribute of a child run's stream that names its parent
_SETTLED: Final = frozenset({"completed", "failed", "cancelled", "terminated", "suspended", "paused", "pruned"})
_WITHIN_SECONDS: Final = 5.0
"""How long it is waited, in the store's own time, that whoever works on the runs takes a pause up."""
_LOOK_SECONDS: Final = 0.05

Family = dict[str, str]
"""By the id of a run, that of its parent; empty for none."""


def stream_of(run_id: str) -> str:
    """The name of a run's stream."""
    return f"run:{run_id}"


async def family_of(store: EventStore, run_ids: Sequence[str]) -> Family:
    """These runs and all below them. Raises `RunNotFound`."""
    found: Family = {}
    waiting = list(dict.fromkeys(run_ids))
    for run_id in waiting:
        found[run_id] = await _parent_of(store, run_id)
    while waiting:
        async for head in _children(store, waiting.pop()):
            child = head.stream.partition(":")[2]
            if child not in found:
                found[child] = str(head.attributes[_PARENT])
                waiting.append(child)
    return found


async def _parent_of(store: EventStore, run_id: str) -> str:
    try:
        head = await store.head(stream_of(run_id))
    except StreamNotFound:
        raise RunNotFound(f"no run {run_id!r} in this store") from None
    return str(head.attributes.get(_PARENT) or "")


async def _children(store: EventStore, run_id: str) -> AsyncIterator[StreamHead]:
    async for head in find_all(store, StreamQuery(category="run", attributes={_PARENT: run_id})):
        yield head


async def pause_all(store: EventStore, run_ids: Sequence[str], *, by: str, reason: str) -> tuple[str, ...]:
    """Pause these runs and all below them, those they start meanwhile too.

    The runs that nobody has paused yet when the time is over: nobody works on them, or is slow; the request waits.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _WITHIN_SECONDS
    asked: set[str] = set()
    async with Engine(store) as client:
        while True:
            family = await family_of(store, run_ids)
            moving = [run for run in family if await client.run(run).status() not in _SETTLED]
            for run in moving:
                if run not in asked:
                    asked.add(run)
                    await client.run(run).pause(by=by, reason=reason)
            if not moving or loop.time() >= deadline:
                return tuple(moving)
            await asyncio.sleep(_LOOK_SECONDS)
