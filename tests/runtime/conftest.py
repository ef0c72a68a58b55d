"""Worlds for the tests of the shell: the memory store and the SQLite store, on a clock turned by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.runtime.worlds import MemoryWorld, SqliteWorld, World


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: World = MemoryWorld() if request.param == "memory" else SqliteWorld(tmp_path / "runs.db")
    yield made
    await made.aclose()


@pytest.fixture
async def memory() -> AsyncIterator[MemoryWorld]:
    made = MemoryWorld()
    yield made
    await made.aclose()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    made = SqliteWorld(tmp_path / "runs.db")
    yield made
    await made.aclose()
