"""Archives: what is in them, that they are brought up to date, and that nothing of two logs gets into one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from engine import Engine, task, workflow
from engine.audit import EVENT_COLUMNS, RUN_COLUMNS, archive, archiving
from engine.errors import AuditError, StorageUnavailable
from eventstore import NEW, Commit, NewEvent
from eventstore.digest import chain_start, event_digest, payload_digest
from eventstore.memory import MemoryStore
from tests.architecture.source import ROOT


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "EVENTS_OF_PART", 10)
    monkeypatch.setattr(archiving, "_BATCH", 4)


async def append(store: MemoryStore, stream: str, version: int, payload: bytes | None = b'{"a":1}') -> None:
    header = b'{"type":"Happened","at":1767225600000000,"id":"x"}'
    await store.commit(
        Commit(id=f"{stream}-{version}", stream=stream, expected_version=version, events=(NewEvent(header, payload),))
    )


async def log(events: int, store: MemoryStore | None = None) -> MemoryStore:
    store = MemoryStore() if store is None else store
    for n in range(events):
        await append(store, f"note:{n % 3}", n // 3 or NEW)
    return store


def positions(folder: Path) -> list[int]:
    return [n for path in sorted(folder.glob("events/*.parquet")) for n in pq.read_table(path)["position"].to_pylist()]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("events/*.parquet")}


async def test_every_event_once_in_commit_order_and_only_new_ones_are_added(tmp_path: Path) -> None:
    store = await log(23)
    first = await archive(store, tmp_path / "a")
    assert (first.events, first.new_events, first.parts, first.written) == (23, 23, 3, 3)
    recorded = [each async for each in store.read_all()]
    assert positions(tmp_path / "a") == [each.position for each in recorded]
    before = stamps(tmp_path / "a")
    again = await archive(store, tmp_path / "a")
    assert (again.events, again.new_events, again.parts, again.written) == (23, 0, 3, 1)
    for n in range(23, 41):
        await append(store, f"note:{n % 3}", n // 3)
    more = await archive(store, tmp_path / "a")
    assert (more.events, more.new_events, more.parts, more.written) == (41, 18, 5, 3)
    after = stamps(tmp_path / "a")
    assert {name: after[name] for name in list(before)[:0]} == {}
    full = sorted(before)[:2]
    assert [after[name] for name in full] == [before[name] for name in full]
    assert positions(tmp_path / "a") == [each.position async for each in store.read_all()]
    assert sorted(path.name for path in (tmp_path / "a").rglob("*") if path.is_file())[-2:] == [
        "archive.json",
        "runs.parquet",
    ]


@pytest.mark.parametrize("events", [0, 1, 9, 10, 11, 20])
async def test_parts_end_where_they_should(tmp_path: Path, events: int) -> None:
    store = await log(events)
    for _ in range(2):
        done = await archive(store, tmp_path / "a")
        assert (done.events, done.parts) == (events, -(-events // 10))
        assert len(positions(tmp_path / "a")) == events


async def test_what_is_archived_can_be_verified(tmp_path: Path) -> None:
    store = await log(12)
    await append(store, "odd:1", NEW, b"\xff\xfe")
    await append(store, "odd:2", NEW, None)
    await archive(store, tmp_path / "a")
    rows = [row for path in sorted(tmp_path.glob("a/events/*.parquet")) for row in pq.read_table(path).to_pylist()]
    chains: dict[str, bytes] = {}
    for row in rows:
        if row["payload"] is not None:
            assert payload_digest(row["salt"], row["payload"].encode()) == row["payload_digest"]
        chain = chains.get(row["stream"], chain_start(row["stream"]))
        chains[row["stream"]] = event_digest(chain, row["header"].encode(), row["payload_digest"])
        assert chains[row["stream"]] == row["digest"]
    assert rows[-2]["payload"] is None
    assert rows[0]["stamped_at"].isoformat() == "2026-01-01T00:00:00+00:00"


async def test_another_log_does_not_get_in(tmp_path: Path) -> None:
    await archive(await log(23), tmp_path / "a")
    before = stamps(tmp_path / "a")
    for other in (await log(30), await log(3), await log(0)):
        with pytest.raises(AuditError, match="archive of another log"):
            await archive(other, tmp_path / "a")
    await archive(await log(3), tmp_path / "short")
    with pytest.raises(AuditError, match="archive of another log"):
        await archive(await log(5), tmp_path / "short")
    assert stamps(tmp_path / "a") == before


async def test_a_crash_leaves_an_archive_that_the_next_one_completes(tmp_path: Path, monkeypatch: Any) -> None:
    store = await log(23)
    real = archiving._columns_of
    calls = 0

    def failing(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError(28, "No space left on device")
        return real(batch)

    monkeypatch.setattr(archiving, "_columns_of", failing)
    with pytest.raises(OSError, match="No space left|cannot be written") as caught:
        await archive(store, tmp_path / "a")
    assert caught
    monkeypatch.setattr(archiving, "_columns_of", real)
    assert not list((tmp_path / "a").rglob(".*"))
    (tmp_path / "a" / "events" / ".000000000010.parquet.0a").write_text("left by kill -9")
    done = await archive(store, tmp_path / "a")
    assert (done.events, done.written) == (23, 3)
    assert positions(tmp_path / "a") == [each.position async for each in store.read_all()]
    assert not list((tmp_path / "a").rglob(".*"))


async def test_a_disk_that_is_full_when_the_state_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    store = await log(15)
    await archive(store, folder)
    before = (folder / "archive.json").read_bytes()
    for n in range(15, 23):
        await append(store, f"note:{n % 3}", n // 3)
    synced: list[int] = []
    sync, replace = os.fsync, Path.replace

    def full(path: Path, target: Path) -> Path:
        if target.name == "archive.json":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    def seen(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageUnavailable, match=r"archive\.json cannot be written: .*No space left"):
        await archive(store, folder)
    assert (folder / "archive.json").read_bytes() == before
    assert not list(folder.rglob(".*"))
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(os, "fsync", seen)
    (folder / ".archive.json.0a").write_text("left by kill -9")
    assert (await archive(store, folder)).events == 23
    assert folder.stat().st_ino in synced, "the name is as durable as the file"
    assert not list(folder.rglob(".*"))
    assert positions(folder) == [each.position async for each in store.read_all()]


async def test_a_missing_part_and_an_unreadable_state_are_said(tmp_path: Path) -> None:
    store = await log(23)
    await archive(store, tmp_path / "a")
    (tmp_path / "a" / "events" / "000000000010.parquet").unlink()
    with pytest.raises(AuditError, match=r"000000000010.parquet is not there any more: remove .*archive.json"):
        await archive(store, tmp_path / "a")
    (tmp_path / "a" / "archive.json").write_text("{")
    with pytest.raises(AuditError, match="cannot be read"):
        await archive(store, tmp_path / "a")
    (tmp_path / "a" / "archive.json").unlink()
    assert (await archive(store, tmp_path / "a")).written == 3
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageUnavailable, match="cannot be an archive"):
        await archive(store, tmp_path / "file")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "runs").write_text("x")
    with pytest.raises(StorageUnavailable, match="cannot be an archive"):
        await archive(store, tmp_path / "b")


async def test_two_at_once_is_one_too_many(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "a").mkdir()
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(AuditError, match="another process archives"):
            await archive(await log(1), tmp_path / "a")
    finally:
        os.close(descriptor)


# -- the page ----------------------------------------------------------------------------------------------------------


@task
async def load(n: int) -> int:
    if n > 2:
        raise ConnectionError("the warehouse is down")
    return n


@workflow
async def nightly(n: int) -> int:
    return await load(n)


async def test_the_queries_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine(
        "sqlite:///runs.db" if monkeypatch.chdir(tmp_path) is None else "", workflows=[nightly]
    ) as engine:
        for n in range(1, 4):
            run = await engine.start(nightly(n), id=f"r{n}", by="ann")
            try:
                await run.result()
            except Exception:
                assert n == 3
        await archive(engine.store, Path("archive"))
    page = (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")
    queries = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ended, tasks, errors, history, people = [duckdb.sql(query).fetchall() for query in queries]
    assert [row[:3] for row in ended] == [("nightly", "completed", 2), ("nightly", "failed", 1)]
    assert [row[:2] for row in tasks] == [("load", 2)]
    assert errors == [("ConnectionError", 1, 1)]
    assert [row[2] for row in history] == [
        "RunStarted",
        "TaskScheduled",
        "TaskStarted",
        "TaskCompleted",
        "RunCompleted",
    ]
    assert [row[1:4] for row in people] == [(f"r{n}", "RunStarted", "ann") for n in (1, 2, 3)]
    for column in (*EVENT_COLUMNS, *RUN_COLUMNS):
        assert f"`{column.name}`" in page
    shutil.rmtree("archive")


@pytest.mark.parametrize("events", [6, 9, 10, 11, 20, 26])
async def test_what_is_pruned_later_stays_as_it_was_archived(tmp_path: Path, events: int) -> None:
    """In full parts, and in the last one, which is written anew; and it is still known to be the same log."""
    store = await log(events)
    await archive(store, tmp_path / "a")
    before = rows_of(tmp_path / "a")
    for n in range(3):
        head = await store.head(f"note:{n}")
        if n < 2:
            closing = Commit(
                id="end",
                stream=head.stream,
                expected_version=head.version,
                events=(NewEvent(b'{"type":"Ended"}'),),
                closed=True,
            )
            await store.commit(closing)
            await store.prune(head.stream, until=head.version)
    for done in range(3):
        archived = await archive(store, tmp_path / "a")
        assert (archived.events, archived.new_events) == (events + 2, 0 if done else 2)
        after = rows_of(tmp_path / "a")
        assert after[:events] == before
        assert [row["digest"] for row in after] == [leaf.digest async for leaf in store.leaves()]
    await archive(store, tmp_path / "b")
    late = rows_of(tmp_path / "b")
    gone = [row for row in late if row["header"] is None]
    assert {row["stream"] for row in gone} == {"note:0", "note:1"}
    assert [(row["position"], row["digest"]) for row in late] == [(row["position"], row["digest"]) for row in after]
    assert {(row["payload"], row["type"], row["payload_digest"]) for row in gone} == {(None, None, None)}


async def test_what_forgot_since_forgets_in_the_last_part_and_what_was_pruned_before_is_a_row(tmp_path: Path) -> None:
    store = await log(15)
    await archive(store, tmp_path / "a")
    await store.forget("note:0")
    await archive(store, tmp_path / "a")
    rows = rows_of(tmp_path / "a")
    assert {row["payload"] for row in rows[10:] if row["stream"] == "note:0"} == {None}
    assert {row["payload"] for row in rows[:10] if row["stream"] == "note:0"} == {'{"a":1}'}, "that part is full"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("events/*.parquet")) for row in pq.read_table(path).to_pylist()]
