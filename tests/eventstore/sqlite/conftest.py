"""What the tests of the SQLite store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from eventstore.sqlite import SqliteStore, WritesOn

Opener = Callable[..., Awaitable[SqliteStore]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "store.db"


@pytest.fixture(params=get_args(WritesOn))
def writes_on(request: pytest.FixtureRequest) -> WritesOn:
    """Where the store's transactions run: all that it promises holds for both."""
    place: WritesOn = request.param
    return place


@pytest.fixture
async def opened(path: Path, writes_on: WritesOn) -> AsyncIterator[Opener]:
    """Opens stores on `path` and closes them at the end."""
    stores: list[SqliteStore] = []

    async def open_store(**options: Any) -> SqliteStore:
        store = await SqliteStore.open(options.pop("path", path), **{"writes_on": writes_on, **options})
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        await store.aclose()


@pytest.fixture
async def store(opened: Opener) -> SqliteStore:
    return await opened()
