"""Which objects of a storage a store names, for whoever sweeps it: all that reads like a key, wherever it stands.

Not only large values lie in a storage. A materialization of an asset says by a `Stored` where it lies; a task may have
written an object itself, and returned its `Stored`, alone or in a list that is a large value on its own. So keys are
looked for in every header, every payload, all that waits in mailboxes, and in the JSON objects that are found so. What
merely looks like a key keeps an object that nobody needs, which costs space; the other way round would cost data.

It deliberately does not know what any of it means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from engine.storage import Storage, keys_in
from eventstore import EventStore, RecordedEvent, StreamQuery, find_all
from eventstore.moving import MovingStore, StoredMessage

__all__ = ["keys_of"]


async def keys_of(store: EventStore, storage: Storage) -> set[str]:
    """The keys. In memory in proportion to their number. Raises what both raise."""
    found: set[str] = set()
    async for data in _written(store):
        found |= keys_in(data)
    waiting = [key for key in found if key.endswith(".json")]
    while waiting:
        within = await storage.keys_within(waiting.pop())
        waiting += [key for key in within - found if key.endswith(".json")]
        found |= within
    return found


async def _written(store: EventStore) -> AsyncIterator[bytes]:
    """Every header and payload in a store."""
    if "moving" in store.capabilities and isinstance(store, MovingStore):
        async with aclosing(store.dump()) as items:
            async for item in items:
                if isinstance(item, RecordedEvent | StoredMessage):
                    yield item.header
                    yield item.payload or b""
        return
    async for recorded in store.read_all():
        yield recorded.header
        yield recorded.payload or b""
    async for head in find_all(store, StreamQuery()):
        for message in (await store.head(head.stream)).messages:
            yield message.header
            yield message.payload or b""
