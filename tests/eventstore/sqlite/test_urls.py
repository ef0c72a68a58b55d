"""Stores by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstore import InvalidArgument, StoreUnavailable
from eventstore.conformance import TurnedClock
from eventstore.conformance.harness import begin
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.threads import on_thread
from eventstore.urls import open_store


async def test_relative_and_absolute_paths_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///runs.db", f"sqlite:///{tmp_path}/runs.db"):
        store = await open_store(url)
        assert isinstance(store, SqliteStore)
        assert store.path == str(tmp_path / "runs.db")
        await store.aclose()


async def test_escapes_in_a_path(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/a%20b%23c%3Fd.db")
    await store.aclose()
    assert (tmp_path / "a b#c?d.db").exists()


@pytest.mark.parametrize(("query", "level"), [("", 3), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2)])
async def test_synchronous(tmp_path: Path, query: str, level: int) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/runs.db{query}")
    connection = store._transactor._connection
    found = await on_thread(store._writer._connection, lambda: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert found == level
    await store.aclose()


async def test_memory_and_the_clock() -> None:
    clock = TurnedClock()
    store = await open_store("memory:", clock=clock)
    assert isinstance(store, MemoryStore)
    await begin(store, "run:a")
    assert (await store.head("run:a")).created_at == clock.now()
    await store.aclose()


async def test_read_only(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await open_store(f"sqlite:///{tmp_path}/runs.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "runs.db",
        "/tmp/runs.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/runs.db",
        "sqlite:///:memory:",
        "sqlite:///runs.db?sync=NORMAL",
        "sqlite:///runs.db?synchronous=OFF",
        "sqlite:///runs.db?synchronous",
        "sqlite:///runs.db?synchronous=FULL&synchronous=NORMAL",
        "sqlite:///runs.db#part",
        "sqlite:///directory/",
        "memory:name",
        "memory://",
        "memory:?synchronous=FULL",
        "mysql://host/runs",
        "postgresql://host/runs",
    ],
)
async def test_what_is_not_understood_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match="store URL"):
        await open_store(url)
    assert list(tmp_path.iterdir()) == []
