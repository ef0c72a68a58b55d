"""Opening: the recipe, and everything that must be refused while the file stays as it was."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from eventstore import NEW, Commit, InvalidArgument, NewEvent, NotAStore, SchemaTooNew, StoreUnavailable
from eventstore.conformance.harness import begin, event, history, step
from eventstore.sqlite import SqliteStore, schema, sqlite_version
from eventstore.sqlite.guard import SqliteVersion
from eventstore.sqlite.opening import PAGE_BYTES, Writing, open_writer
from eventstore.sqlite.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION
from eventstore.sqlite.threads import on_thread
from tests.eventstore.sqlite.children import PATIENCE_SECONDS, child
from tests.eventstore.sqlite.conftest import Opener


def files_of(directory: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in directory.iterdir() if entry.is_file()}


def threads_that_stay(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that are new and do not end when they are given the time for it."""
    new = set(threading.enumerate()) - before
    for thread in new:
        thread.join(PATIENCE_SECONDS)
    return [thread for thread in new if thread.is_alive()]


async def refused_untouched(path: Path, error: type[Exception], **options: object) -> str:
    before = files_of(path.parent)
    with pytest.raises(error) as refusal:
        await SqliteStore.open(path, **options)
    assert files_of(path.parent) == before
    return str(refusal.value)


async def test_the_recipe_is_followed(path: Path, store: SqliteStore) -> None:
    connection = store._transactor._connection
    wanted = {
        "synchronous": 3,
        "journal_mode": "wal",
        "wal_autocheckpoint": 0,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "application_id": APPLICATION_ID,
        "user_version": SCHEMA_VERSION,
        "busy_timeout": 5_000,
        "journal_size_limit": 64 << 20,
    }
    found = await on_thread(
        store._writer._connection,
        lambda: {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted},
    )
    assert found == wanted


async def test_files_are_private_to_their_user(path: Path, store: SqliteStore) -> None:
    async with store.lease("worker") as lease:
        names = {entry.name for entry in path.parent.iterdir()}
        assert names == {"store.db", "store.db-wal", "store.db-shm", "store.db-guard", "store.db-leases"}
        for entry in (*path.parent.iterdir(), path.parent / "store.db-leases" / str(lease.token)):
            assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0, entry


async def test_closing_leaves_one_file_and_the_guard(path: Path) -> None:
    store = await SqliteStore.open(path)
    async with store.lease("worker"):
        await begin(store, "run:a")
    await store.aclose()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["store.db", "store.db-guard", "store.db-leases"]
    assert list((path.parent / "store.db-leases").iterdir()) == []


@pytest.mark.parametrize("content", [b"no database at all, but as long as one" * 200, b"tiny"], ids=["long", "short"])
async def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert str(path) in await refused_untouched(path, NotAStore)
    await refused_untouched(path, NotAStore, read_only=True)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("mark", ["CREATE TABLE other (x)", "PRAGMA application_id=77", "PRAGMA user_version=3"])
async def test_a_database_of_another_program(path: Path, mode: str, mark: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute(mark)
    connection.close()
    assert "another program" in await refused_untouched(path, NotAStore)
    await refused_untouched(path, NotAStore, read_only=True)


async def test_an_open_database_of_another_program_whose_tables_are_only_in_its_log(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE other (x)")
        with pytest.raises(NotAStore):
            await SqliteStore.open(path)
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["other"]
    finally:
        connection.close()


def interrupted(pages: int) -> bytes:
    """The journal of a transaction that found a database of so many pages, when nothing of it was overwritten yet."""
    numbers = b"".join(each.to_bytes(4, "big") for each in (0, 4_711, pages, 512, PAGE_BYTES))
    return (bytes.fromhex("d9d505f920a163d7") + numbers).ljust(512, b"\0")


@pytest.mark.parametrize(
    "left", [bytes(PAGE_BYTES), bytes(512) + b"x" * 3_584, b"SQLite format 3\0"], ids=["none", "torn", "begun"]
)
async def test_a_store_whose_making_the_power_cut_is_made_anew(path: Path, left: bytes) -> None:
    """Its first page is torn, or is not there yet: the journal says that there was nothing before, and SQLite undoes it."""
    path.write_bytes(left)
    path.with_name("store.db-journal").write_bytes(interrupted(0))
    said = await refused_untouched(path, StoreUnavailable, read_only=True)
    assert "was interrupted; open it for writing" in said
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    assert not path.with_name("store.db-journal").exists()
    store = await SqliteStore.open(path, read_only=True)
    assert await history(store, "run:a") == ["begun"]
    await store.aclose()


async def test_a_torn_database_that_was_not_being_made_is_left_alone(path: Path) -> None:
    """Another program's, interrupted in the middle of a change: that program will put it right, we do not."""
    path.write_bytes(bytes(512) + b"x" * 3_584)
    for journal in (interrupted(1), bytes(512), b"", b"d9"):
        path.with_name("store.db-journal").write_bytes(journal)
        await refused_untouched(path, NotAStore)
        await refused_untouched(path, NotAStore, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_newer_schema(path: Path, read_only: bool) -> None:
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    message = await refused_untouched(path, SchemaTooNew, read_only=read_only)
    assert "upgrade" in message
    assert str(SCHEMA_VERSION + 1) in message


async def test_an_older_schema_is_brought_forward(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    newer = (*MIGRATIONS, ("ALTER TABLE streams ADD COLUMN colour TEXT", "UPDATE streams SET colour = 'blue'"))
    monkeypatch.setattr("eventstore.sqlite.opening.MIGRATIONS", newer)
    monkeypatch.setattr("eventstore.sqlite.opening.SCHEMA_VERSION", len(newer))
    store = await SqliteStore.open(path)
    await store.commit(step("run:a", 1, event("later")))
    await store.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT version, colour FROM streams").fetchall() == [(2, "blue")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    connection.close()


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    before = path.read_bytes()
    newer = (*MIGRATIONS, ("DELETE FROM events", "no SQL at all"))
    monkeypatch.setattr("eventstore.sqlite.opening.MIGRATIONS", newer)
    monkeypatch.setattr("eventstore.sqlite.opening.SCHEMA_VERSION", len(newer))
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    store = await SqliteStore.open(path)
    assert await history(store, "run:a") == ["begun"]
    await store.aclose()


def test_migrations_and_version_agree() -> None:
    assert len(MIGRATIONS) == SCHEMA_VERSION == schema.SCHEMA_VERSION
    assert all(statements for statements in MIGRATIONS)


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"does not exist; create it"):
        await SqliteStore.open(tmp_path / "nowhere" / "store.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(tmp_path)
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open("")


async def test_bad_options(path: Path) -> None:
    with pytest.raises(InvalidArgument):
        await SqliteStore.open(path, synchronous="OFF")
    with pytest.raises(InvalidArgument):
        await SqliteStore.open(path, lease_ttl=0)
    assert not path.exists()


AS_NOBODY = """
os.setgid(65534); os.setuid(65534)

async def main():
    try:
        store = await SqliteStore.open(sys.argv[1], read_only=sys.argv[2] == "ro")
    except StoreUnavailable as error:
        say(type(error).__name__, error)
    else:
        try:
            say("opened", (await store.find(StreamQuery())).items[0].stream)
        finally:
            await store.aclose()

asyncio.run(main())
"""


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that other users can reach; pytest's own are private."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    import tempfile

    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


async def test_a_directory_without_permission(public: Path) -> None:
    async with child(AS_NOBODY, public / "store.db", "rw") as other:
        said = await other.succeed()
    assert said.startswith("StoreUnavailable")
    assert "permission" in said
    assert str(public) in said
    assert list(public.iterdir()) == []


async def test_a_store_of_another_user(public: Path) -> None:
    path = public / "store.db"
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    before = files_of(public)
    for mode in ("rw", "ro"):
        async with child(AS_NOBODY, path, mode) as other:
            said = await other.succeed()
        assert said.startswith("StoreUnavailable"), said
        assert "permission" in said
    assert files_of(public) == before


async def test_a_store_that_others_may_read_but_not_write(public: Path) -> None:
    path = public / "store.db"
    store = await SqliteStore.open(path)
    await begin(store, "run:a")
    await store.aclose()
    path.chmod(0o644)
    (public / "store.db-guard").chmod(0o666)
    async with child(AS_NOBODY, path, "rw") as other:
        said = await other.succeed()
    assert said.startswith("StoreUnavailable"), said
    assert "permission" in said


@pytest.mark.parametrize("mode", ["rw", "ro"])
@pytest.mark.parametrize("name", ["store.db", "below/store.db"])
async def test_a_store_in_a_folder_that_may_not_be_entered(public: Path, mode: str, name: str) -> None:
    """Whether there is such a file cannot be known: that is no reason to say that there is none."""
    folder = public / "closed"
    folder.mkdir(0o700)
    (folder / "below").mkdir()
    store = await SqliteStore.open(folder / "store.db")
    await begin(store, "run:a")
    await store.aclose()
    async with child(AS_NOBODY, folder / name, mode) as other:
        said = await other.succeed()
    assert said.startswith("StoreUnavailable"), said
    assert "permission" in said
    assert str(folder) in said
    assert "no such file" not in said
    assert "does not exist" not in said


async def test_an_older_store_is_brought_up_to_date(
    path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the first schema: not for those who only read, until somebody has opened it for writing."""
    monkeypatch.setattr("eventstore.sqlite.opening.MIGRATIONS", MIGRATIONS[:1])
    monkeypatch.setattr("eventstore.sqlite.opening.SCHEMA_VERSION", 1)
    connection, _ = open_writer(str(path), Writing(synchronous="NORMAL"))
    connection.execute(
        "INSERT INTO streams (id, name, version, digest, created_at, updated_at, held, closed, claims, control, data,"
        " attributes) VALUES (7, 'run:old', 0, x'00', 1, 1, 0, 0, 0, 0, 0, '{}')"
    )
    connection.close()
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match="schema version 1"):
        await opened(read_only=True)
    store = await opened()
    assert (await store.head("run:old")).version == 0
    assert (await store.commit(step("run:old", 0, event(), closed=True))).closed
    reader = await opened(read_only=True)
    assert (await reader.head("run:old")).version == 1


async def test_read_only(path: Path, opened: Opener) -> None:
    with pytest.raises(StoreUnavailable, match="no such file"):
        await opened(read_only=True)
    writer = await opened()
    await begin(writer, "run:a")
    reader = await opened(read_only=True)
    assert await history(reader, "run:a") == ["begun"]
    await begin(writer, "run:b")
    assert (await reader.head("run:b")).version == 1
    with pytest.raises(StoreUnavailable, match="read-only"):
        await begin(reader, "run:c")
    with pytest.raises(StoreUnavailable, match="read-only"):
        async with reader.lease("worker"):
            raise AssertionError
    await writer.aclose()
    assert await history(reader, "run:a") == ["begun"]
    await reader.aclose()
    again = await opened(read_only=True)  # without a log beside it
    assert await history(again, "run:b") == ["begun"]


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_store_opens_while_its_log_is_being_copied(
    path: Path, opened: Opener, tmp_path: Path, read_only: bool
) -> None:
    """A checkpoint writes the first page, which names the new size, before the file has it: that is no damage."""
    store = await opened()
    await begin(store, "run:a")
    await store.commit(step("run:a", 1, *(event("filled", b"x" * 4_000) for _ in range(50))))
    halfway = tmp_path / "halfway.db"
    subprocess.run(["cp", f"{path}-wal", f"{halfway}-wal"], check=True)  # not here: closing it would drop its locks
    await store.aclose()
    whole = path.read_bytes()
    halfway.write_bytes(whole[: len(whole) // 2 // PAGE_BYTES * PAGE_BYTES])
    found = await opened(path=halfway, read_only=read_only)
    assert await history(found, "run:a") == ["begun", *["filled"] * 50]


async def test_one_store_by_two_names(path: Path, opened: Opener) -> None:
    first = await opened()
    link = path.parent / "link.db"
    link.symlink_to(path)
    second = await opened(path=link)
    await begin(first, "run:a")
    await begin(second, "run:b")
    assert (await first.head("run:b")).version == 1
    assert not (path.parent / "link.db-guard").exists()


async def test_names_that_urls_would_mangle(tmp_path: Path, opened: Opener) -> None:
    path = tmp_path / "a?b#c%20d é.db"
    await begin(await opened(path=path), "run:a")
    assert path.exists()


async def test_an_opening_that_fails_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    path.write_bytes(b"nothing")
    for _ in range(3):
        with pytest.raises(NotAStore):
            await SqliteStore.open(path)
    assert threads_that_stay(before) == []


@pytest.mark.parametrize("turns", range(8))
async def test_an_opening_that_is_cancelled_leaves_no_thread(path: Path, turns: int) -> None:
    before = set(threading.enumerate())
    task = asyncio.create_task(SqliteStore.open(path))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert threads_that_stay(before) == []


async def test_many_open_at_once(path: Path, opened: Opener) -> None:
    stores = await asyncio.gather(*(opened() for _ in range(6)))
    await asyncio.gather(*(begin(store, f"run:{number}") for number, store in enumerate(stores)))
    assert len([recorded async for recorded in stores[0].read_all()]) == 6


async def test_clean_up_after_a_crash_at_creation(path: Path, opened: Opener) -> None:
    """What a process leaves that died before its first commit is an empty file, which is a store to be."""
    path.touch()
    await begin(await opened(), "run:a")


async def test_normal_is_an_explicit_choice(opened: Opener) -> None:
    store = await opened(synchronous="NORMAL")
    connection = store._transactor._connection
    level = await on_thread(store._writer._connection, lambda: connection.execute("PRAGMA synchronous").fetchone()[0])
    assert level == 1
    await store.commit(Commit(id="a", stream="run:a", expected_version=NEW, events=(NewEvent(b"{}"),)))


def test_the_version_of_sqlite_is_told() -> None:
    version = sqlite_version()
    assert version.text == sqlite3.sqlite_version
    assert version.number == sqlite3.sqlite_version_info
    for text, affected in (
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.6", False),
        ("3.50.7", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.0", False),
    ):
        assert SqliteVersion(text).in_wal_bug_range is affected, text
