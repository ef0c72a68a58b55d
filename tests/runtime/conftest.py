"""Worlds for the tests of the shell: the memory store and the SQLite store, on a clock turned by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.worlds import MemoryWorld, SqliteWorld, World


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: World = MemoryWorld() if request.param == "memory" else SqliteWorld(tmp_path / "runs.db")
    yield made
    await made.aclose()


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    """Makes any number of worlds, and closes them whatever happens: an open SQLite store would keep the process."""
    made: list[World] = []

    def make(kind: str = "memory", **options: Any) -> World:
        world: World = (
            MemoryWorld(**options) if kind == "memory" else SqliteWorld(tmp_path / f"runs-{len(made)}.db", **options)
        )
        made.append(world)
        return world

    yield make
    for world in made:
        await world.aclose()


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
