"""Data mail from clients to runs, and what they are told when it cannot be delivered."""

from __future__ import annotations

from engine.errors import EngineClosed, RunEnded, RunNotFound
from eventstore import EventStore, Message, StoreClosed, StreamClosed, StreamNotFound

__all__ = ["send_data"]


async def send_data(store: EventStore, message: Message, run_id: str) -> None:
    """Put it into the run's mailbox, durably. Raises `RunNotFound`, `RunEnded`, `EngineClosed`."""
    try:
        await store.send(message)
    except StreamNotFound:
        raise RunNotFound(f"no run {run_id!r} in this store") from None
    except StreamClosed:
        raise RunEnded(f"run {run_id!r} has ended: it takes no more messages") from None
    except StoreClosed:
        raise EngineClosed("the engine was closed") from None
