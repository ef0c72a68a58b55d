"""What runs publish, as read from the log: states and feeds. No worker, and no code of the workflow, is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from msgspec import UNSET

from engine.core.events import FeedPublished, StatePublished
from engine.errors import HistoryError, NotPublished
from engine.runtime.histories import HistoryEvent, read_events
from engine.runtime.streams import run_id_of, state_attribute
from engine.workflows import Feed, State
from eventstore import EventStore, StreamHead

__all__ = ["follow_feed", "read_published"]

T = TypeVar("T")


async def read_published(store: EventStore, head: StreamHead, state: State[T]) -> T:
    """The value published last. The stream says at which version; one event is read."""
    run_id = run_id_of(head.stream)
    version = head.attributes.get(state_attribute(state.name))
    if version is None:
        if state.initial is UNSET:
            raise NotPublished(f"run {run_id!r} has published no state {state.name!r} yet")
        return state.initial
    assert isinstance(version, int)
    async for item in read_events(store, run_id, after=version - 1, until=version):
        if isinstance(item.event, StatePublished) and item.event.name == state.name:
            if item.payload is None:
                raise HistoryError(f"the value of state {state.name!r} of run {run_id!r} was destroyed")
            value: T = state.codec.decode(item.payload)
            return value
    raise HistoryError(f"version {version} of run {run_id!r} does not publish state {state.name!r}")


async def follow_feed(events: AsyncIterator[HistoryEvent], feed: Feed[T]) -> AsyncIterator[T]:
    """The values of one feed among the events of a run; those that were destroyed are left out."""
    async for item in events:
        event = item.event
        if isinstance(event, FeedPublished) and event.name == feed.name and item.payload is not None:
            value: T = feed.codec.decode(item.payload)
            yield value
