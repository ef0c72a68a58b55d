"""All that a query finds, page by page: for whoever wants each, and no page in particular."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import structs

from eventstore.port import FIND_LIMIT_MAX, EventStore, StreamHead, StreamQuery

__all__ = ["find_all"]


async def find_all(store: EventStore, query: StreamQuery) -> AsyncIterator[StreamHead]:
    """The heads of all streams that fit, in pages as large as a store gives; the query's own `limit` is not looked at.

    What is written meanwhile may be among them or not; what was there throughout is, once. Raises what `find` raises.
    """
    query = structs.replace(query, limit=FIND_LIMIT_MAX)
    while True:
        page = await store.find(query)
        for head in page.items:
            yield head
        if page.next is None:
            return
        query = structs.replace(query, cursor=page.next)
