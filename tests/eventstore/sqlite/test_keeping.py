"""What was taken away is not in the file any more; its space is used again; an older file can be pruned, too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eventstore import NEW, Commit, KeptDigest, Message, NewEvent, StoreUnavailable
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.schema import MIGRATIONS

SECRET = b"the number of her passport"


async def with_secret(store: SqliteStore, stream: str, *, times: int = 40) -> None:
    payload = b'{"value":"%s"}' % (SECRET * 50)
    events = tuple(NewEvent(b'{"type":"Said"}', payload) for _ in range(times))
    await store.commit(Commit(id=f"{stream}-1", stream=stream, expected_version=NEW, events=events))
    last = (NewEvent(b'{"type":"Over"}'),)
    await store.commit(Commit(id=f"{stream}-2", stream=stream, expected_version=times, events=last, closed=True))


def bytes_of(path: Path) -> bytes:
    """Every byte of it, now that nobody has it open."""
    return b"".join(each.read_bytes() for each in path.parent.iterdir() if each.name.startswith(path.name))


@pytest.mark.parametrize("how", ["forget", "prune"])
async def test_what_was_taken_away_is_overwritten(how: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await with_secret(store, "run:a")
    await store.aclose()
    assert SECRET in bytes_of(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    assert await (store.forget("run:a") if how == "forget" else store.prune("run:a", until=40)) == 40
    await store.aclose()
    assert SECRET not in bytes_of(path)


@pytest.mark.parametrize("how", ["forget", "prune"])
async def test_mail_that_nobody_took_is_overwritten(how: str, tmp_path: Path) -> None:
    """Whatever its size: of a long message the rest stands in pages of its own."""
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await with_secret(store, "run:a", times=1)
    for id_, times in (("short", 1), ("long", 2_000)):
        text = b'"%s"' % (SECRET * times)
        await store.send(Message(id=id_, stream="run:a", header=b'{"type":"Hello"}', payload=text, control=True))
    await store.forget("run:a", versions=(1,))
    await store.aclose()
    assert SECRET in bytes_of(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await (store.forget("run:a") if how == "forget" else store.prune("run:a", until=1))
    head = await store.head("run:a")
    assert (head.messages, head.closed) == ((), True)
    await store.aclose()
    assert SECRET not in bytes_of(path)


async def test_space_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await with_secret(store, "run:0", times=500)
    await store.aclose()
    size = path.stat().st_size
    for number in range(4):
        store = await SqliteStore.open(path, synchronous="NORMAL")
        await store.prune(f"run:{number}", until=500)
        await with_secret(store, f"run:{number + 1}", times=500)
        await store.aclose()
    assert path.stat().st_size < size * 1.5


async def test_a_smaller_copy_is_a_store_and_verifies(tmp_path: Path) -> None:
    """As docs/audit.md says: VACUUM INTO while it is open, and the copy in its place while it is not."""
    path, copy = tmp_path / "runs.db", tmp_path / "smaller.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await with_secret(store, "run:a", times=500)
    await store.prune("run:a", until=500)
    before = [leaf async for leaf in store.leaves()]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    await store.aclose()
    assert copy.stat().st_size < path.stat().st_size / 3
    smaller = await SqliteStore.open(copy, synchronous="NORMAL")
    assert [leaf async for leaf in smaller.leaves()] == before
    assert (await smaller.head("run:a")).pruned
    assert (await smaller.commit(Commit(id="c", stream="run:b", expected_version=NEW))).version == 0
    await smaller.aclose()


async def test_a_file_of_before_gets_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    with monkeypatch.context() as patch:
        patch.setattr("eventstore.sqlite.opening.MIGRATIONS", MIGRATIONS[:2])
        patch.setattr("eventstore.sqlite.opening.SCHEMA_VERSION", 2)
        with closing(sqlite3.connect(path)) as connection:
            for statement in (*MIGRATIONS[0], *MIGRATIONS[1]):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO streams VALUES (1, 'run:old', 0, zeroblob(32), 1, 1, NULL, 0, 1, NULL, 0, 0, 0, NULL, '{}', NULL, NULL, NULL, NULL, NULL, 0)"
            )
            connection.execute("PRAGMA application_id=1215261796")
            connection.execute("PRAGMA user_version=2")
            connection.commit()
    store = await SqliteStore.open(path)
    assert (await store.head("run:old")).pruned is False
    await with_secret(store, "run:a", times=3)
    await store.prune("run:a", until=3)
    assert len([leaf async for leaf in store.leaves() if isinstance(leaf, KeptDigest)]) == 3
    await store.aclose()


async def test_reading_only_it_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = await SqliteStore.open(path)
    await with_secret(store, "run:a", times=3)
    await store.aclose()
    store = await SqliteStore.open(path, read_only=True)
    for attempt in (store.forget("run:a"), store.prune("run:a", until=3)):
        with pytest.raises(StoreUnavailable, match="read-only"):
            await attempt
    await store.aclose()
