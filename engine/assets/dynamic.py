"""Keys of dynamic partitions, which are added and removed while everything runs: events in streams ``partitions:NAME``.

They are the same in all environments: they say what there is in the world, not what was made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from engine.assets.events import PartitionsAdded, PartitionsRemoved, new_event, read_event
from engine.assets.partitions import DynamicKeys
from eventstore import NEW, Clock, Commit, EventStore, StreamNotFound, StreamQuery, VersionConflict, find_all

__all__ = ["PARTITIONS_CATEGORY", "add_partitions", "read_dynamic", "remove_partitions"]

PARTITIONS_CATEGORY: Final = "partitions"

Change: TypeAlias = type[PartitionsAdded] | type[PartitionsRemoved]


async def read_dynamic(store: EventStore) -> DynamicKeys:
    """All keys, by the names of their definitions."""
    known = DynamicKeys()
    async for head in find_all(store, StreamQuery(category=PARTITIONS_CATEGORY, newest_first=False)):
        name = head.stream.partition(":")[2]
        async for recorded in store.read(head.stream):
            match read_event(recorded):
                case PartitionsAdded() as event:
                    known.add(name, event.keys)
                case PartitionsRemoved() as event:
                    known.remove(name, event.keys)
                case _:
                    pass  # of a later version
    return known


async def add_partitions(
    store: EventStore, name: str, keys: Iterable[str], *, clock: Clock, by: str = "", reason: str = ""
) -> tuple[str, ...]:
    """Add keys to the dynamic partitions of that name. Those that were not there. Raises `PartitionError`."""
    return await _change(store, name, tuple(keys), PartitionsAdded, clock=clock, by=by, reason=reason)


async def remove_partitions(
    store: EventStore, name: str, keys: Iterable[str], *, clock: Clock, by: str = "", reason: str = ""
) -> tuple[str, ...]:
    """Remove keys; what was made of them stays in the log. Those that were there."""
    return await _change(store, name, tuple(keys), PartitionsRemoved, clock=clock, by=by, reason=reason)


async def _change(
    store: EventStore, name: str, keys: tuple[str, ...], change: Change, *, clock: Clock, by: str, reason: str
) -> tuple[str, ...]:
    stream = f"{PARTITIONS_CATEGORY}:{name}"
    while True:
        there = (await read_dynamic(store)).names().get(name, ())
        new = tuple(key for key in dict.fromkeys(keys) if (key in there) == (change is PartitionsRemoved))
        if not new:
            return ()
        DynamicKeys().add(name, new)  # a key that cannot be one is refused here
        try:
            version = (await store.head(stream)).version
        except StreamNotFound:
            version = NEW
        at = clock.now()
        event = change(at=at, keys=new, by=by, reason=reason)
        commit = Commit(
            id=f"{stream}:{version}:{at}", stream=stream, expected_version=version, events=(new_event(event),)
        )
        try:
            await store.commit(commit)
        except VersionConflict:
            continue
        return new
