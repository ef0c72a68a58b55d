"""Rows that no store has written: an error of the port that says so, and the rest can still be read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eventstore import NEW, Commit, NewEvent, StoreDamaged, StoreUnavailable, StreamQuery
from eventstore.sqlite import SqliteStore

EDITS = {
    "a payload that is a number": "UPDATE events SET payload = 5 WHERE stream = 1 AND version = 2",
    "a name that is not UTF-8": "UPDATE streams SET name = CAST(x'72756e3aff' AS TEXT) WHERE id = 1",
    "events without their stream": "DELETE FROM streams WHERE id = 1",
}


async def write(store: SqliteStore) -> None:
    for stream in ("run:a", "run:b"):
        events = (NewEvent(b"{}", b"1"), NewEvent(b"{}", b"2"))
        await store.commit(Commit(id="c", stream=stream, expected_version=NEW, events=events))


def edit(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


@pytest.mark.parametrize("what", EDITS)
async def test_the_log_is_damaged_and_the_store_is_not_lost(what: str, store: SqliteStore, path: Path) -> None:
    await write(store)
    before = [event async for event in store.read_all()]
    edit(path, "CREATE TABLE kept AS SELECT * FROM events")
    edit(path, "CREATE TABLE kept_streams AS SELECT id, name FROM streams")
    edit(path, EDITS[what])
    with pytest.raises(StoreDamaged):
        _ = [event async for event in store.read_all()]
    assert [event.version async for event in store.read("run:b")] == [1, 2]
    await store.commit(Commit(id="d", stream="run:b", expected_version=2, events=(NewEvent(b"{}"),)))
    assert [event.version async for event in store.read("run:b")] == [1, 2, 3], "readers do not stay in the past"
    if what == "a payload that is a number":
        edit(path, "DELETE FROM events WHERE stream = 1")
        edit(path, "INSERT INTO events SELECT * FROM kept WHERE stream = 1")
        found = [event async for event in store.read_all()]
        assert found[:-1] == before


async def test_a_stream_that_lacks_events_is_damaged(store: SqliteStore, path: Path) -> None:
    await write(store)
    edit(path, "DELETE FROM events WHERE stream = 1 AND version = 2")
    with pytest.raises(StoreDamaged, match="stream 'run:a' lacks events behind version 1 of 2"):
        _ = [event async for event in store.read("run:a")]
    assert issubclass(StoreDamaged, StoreUnavailable)


async def test_attributes_that_are_no_json(store: SqliteStore, path: Path) -> None:
    await write(store)
    edit(path, "UPDATE streams SET attributes = '{' WHERE id = 1")
    with pytest.raises(StoreUnavailable):
        await store.find(StreamQuery())
    assert (await store.head("run:b")).version == 2
