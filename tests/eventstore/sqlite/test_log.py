"""Room in the write-ahead log: zeros that commits overwrite, that mean nothing to anybody, and that do not add up."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eventstore.conformance.harness import begin, event, history, step
from eventstore.port import NEW
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.guard import Identity
from eventstore.sqlite.log import ROOM_BYTES, SMALL_BYTES, Log
from tests.eventstore.sqlite.conftest import Opener


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


async def small_commits(store: SqliteStore, stream: str, count: int) -> None:
    await begin(store, stream)
    for version in range(1, count + 1):
        await store.commit(step(stream, version, event()))


async def test_small_commits_find_room_behind_the_log(path: Path, store: SqliteStore) -> None:
    await begin(store, "run:a")
    sizes = set()
    for number in range(30):
        await begin(store, f"run:b{number}")
        sizes.add(log_of(path).stat().st_size)
    assert len(sizes) <= 3, sizes  # as it was, with room, and perhaps with more
    assert log_of(path).read_bytes()[-SMALL_BYTES:] == bytes(SMALL_BYTES)


async def test_room_is_no_part_of_what_a_crash_leaves(path: Path, store: SqliteStore, opened: Opener) -> None:
    await small_commits(store, "run:a", 20)
    left = path.with_name("left.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{left}{suffix}")
    assert log_of(left).stat().st_size > ROOM_BYTES
    after = await opened(path=left)
    assert await history(after, "run:a") == ["begun", *["noted"] * 20]
    await small_commits(after, "run:b", 5)
    await after.aclose()
    with closing(sqlite3.connect(left)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_several_writers_do_not_make_room_for_each_other(path: Path, store: SqliteStore, opened: Opener) -> None:
    stores = [store, await opened(), await opened()]
    for number in range(60):
        await begin(stores[number % 3], f"run:{number}")
    assert log_of(path).stat().st_size < 4 * ROOM_BYTES
    for each in stores:
        assert len(await history(each, "run:59")) == 1


async def test_a_large_commit_makes_no_room(path: Path, store: SqliteStore) -> None:
    large = tuple(event(payload=b"x" * 4_000) for _ in range(100))
    before = log_of(path).stat().st_size
    for number in range(3):
        await store.commit(step(f"run:{number}", NEW, *large))
    assert log_of(path).stat().st_size - before < 3 * (100 * 4_000 * 2)
    assert log_of(path).read_bytes()[-SMALL_BYTES:] != bytes(SMALL_BYTES)


@pytest.mark.parametrize("how", ["no room", "no file"])
async def test_where_there_is_no_room_commits_go_on(
    how: str, path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def refuse(*args: Any) -> int:
        tried.append(args)
        raise OSError(errno.ENOSPC, "planned")

    monkeypatch.setattr(os, "pwrite" if how == "no room" else "open", refuse)
    await small_commits(store, "run:a", 5)
    monkeypatch.undo()
    assert tried
    assert log_of(path).stat().st_size < ROOM_BYTES
    assert len(await history(store, "run:a")) == 6


async def test_transactions_that_fail_do_not_add_up(path: Path, store: SqliteStore) -> None:
    await small_commits(store, "run:a", 2)
    log = Log(Identity(str(path)))
    log._is_full = True
    before = log_of(path).stat().st_size
    for _ in range(5):
        log.make_room()  # and nobody comes to verify it
    assert log_of(path).stat().st_size == before + ROOM_BYTES
    await small_commits(store, "run:b", 2)
    assert await history(store, "run:b") == ["begun", "noted", "noted"]


async def test_a_file_that_is_not_the_log_is_left_alone(path: Path, store: SqliteStore) -> None:
    await begin(store, "run:a")
    log = Log(Identity(str(path)))
    log._is_full = True
    aside = path.with_name("aside")
    log_of(path).rename(aside)
    log_of(path).write_bytes(b"somebody's")
    log.make_room()
    assert log_of(path).read_bytes() == b"somebody's"
    aside.rename(log_of(path))
