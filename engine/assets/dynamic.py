"""Keys of dynamic partitions, which are added and removed while everything runs: events in streams ``partitions:NAME``.

They are the same in all environments: they say what there is in the world, not what was made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from engine.assets.events import PartitionsAdded, PartitionsRemoved, new_event, read_event
from engine.assets.partitions import Dynamic, DynamicKeys, Partitions, Product
from eventstore import NEW, Clock, Commit, EventStore, StreamNotFound, VersionConflict

__all__ = ["PARTITIONS_CATEGORY", "add_partitions", "dynamic_names", "read_dynamic", "remove_partitions"]

PARTITIONS_CATEGORY: Final = "partitions"

Change: TypeAlias = type[PartitionsAdded] | type[PartitionsRemoved]


def dynamic_names(every: Iterable[Partitions]) -> tuple[str, ...]:
    """The names of the dynamic ones among these, and among their dimensions."""
    found: dict[str, None] = {}
    for each in every:
        if isinstance(each, Dynamic):
            found[each.name] = None
        elif isinstance(each, Product):
            found |= dict.fromkeys(dynamic_names([each.first, each.second]))
    return tuple(found)


async def read_dynamic(store: EventStore, until: Mapping[str, int | None]) -> tuple[DynamicKeys, dict[str, int]]:
    """The keys of the definitions of these names, as of versions of their streams (None: now), and these versions."""
    known = DynamicKeys()
    as_of = {name: 0 for name, version in until.items() if version != 0}
    for name in as_of:
        try:
            async for recorded in store.read(f"{PARTITIONS_CATEGORY}:{name}", until=until[name]):
                as_of[name] = recorded.version
                match read_event(recorded):
                    case PartitionsAdded() as event:
                        known.add(name, event.keys)
                    case PartitionsRemoved() as event:
                        known.remove(name, event.keys)
                    case _:
                        pass  # of a later version
        except StreamNotFound:
            continue
    return known, as_of


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
        known, as_of = await read_dynamic(store, {name: None})
        there = set(known.names().get(name, ()))
        new = tuple(key for key in dict.fromkeys(keys) if (key in there) == (change is PartitionsRemoved))
        if not new:
            return ()
        DynamicKeys().add(name, new)  # a key that cannot be one is refused here
        version = as_of[name] or NEW
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
