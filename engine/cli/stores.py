"""The store a command works on: opened once, closed at the end, and never created by a command that only looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from eventstore import EventStore
from eventstore.urls import open_store

__all__ = ["DEFAULT_STORE", "existing", "opened"]

DEFAULT_STORE: Final = "sqlite:///holdfast.db"


@asynccontextmanager
async def opened(url: str, *, read_only: bool = False) -> AsyncIterator[EventStore]:
    """The store of a URL. With `read_only` nothing is changed or created, and a missing file is an error."""
    store = await open_store(url, read_only=read_only)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def existing(url: str, *, read_only: bool = False) -> AsyncIterator[EventStore]:
    """The store of a URL, to write to unless `read_only`; one that is not there is an error, and is not made."""
    if not read_only:
        async with opened(url, read_only=True):
            pass
    async with opened(url, read_only=read_only) as store:
        yield store
