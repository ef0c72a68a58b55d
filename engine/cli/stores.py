"""The store a command works on: opened once, closed at the end, and never created by a command that only looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from eventstore import EventStore
from eventstore.urls import open_store

__all__ = ["DEFAULT_STORE", "opened"]

DEFAULT_STORE: Final = "sqlite:///holdfast.db"


@asynccontextmanager
async def opened(url: str, *, read_only: bool = False) -> AsyncIterator[EventStore]:
    """The store of a URL. With `read_only` nothing is changed or created, and a missing file is an error."""
    store = await open_store(url, read_only=read_only)
    try:
        yield store
    finally:
        await store.aclose()
