"""What protects the file from other processes, from replacement, and from a medium that lies."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from eventstore import StoreUnavailable
from eventstore.conformance.harness import ANY, begin, event, history, step
from eventstore.sqlite import SqliteStore, transaction
from eventstore.sqlite.guard import Guard
from eventstore.sqlite.log import ROOM_BYTES
from eventstore.sqlite.threads import on_thread
from tests.eventstore.sqlite.children import child
from tests.eventstore.sqlite.conftest import Opener


@pytest.mark.parametrize("writes_on", ["thread"], indirect=True)
async def test_a_commit_waits_for_the_guard(path: Path, store: SqliteStore) -> None:
    other = Guard(f"{path}-guard")
    try:
        with other.held(1):
            commit = asyncio.create_task(begin(store, "run:a"))
            reader = sqlite3.connect(path)
            assert (await store.find(ANY)).items == ()  # a read needs no guard
            done, _ = await asyncio.wait([commit], timeout=0.05)
            assert not done
            assert reader.execute("SELECT count(*) FROM streams").fetchone() == (0,)
            reader.close()
        await commit
    finally:
        other.close()
    assert (await store.head("run:a")).version == 1


async def test_a_guard_that_is_never_given_up(path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "GUARD_SECONDS", 0.05)
    other = Guard(f"{path}-guard")
    with other.held(1):
        with pytest.raises(StoreUnavailable, match="another process has held"):
            await begin(store, "run:a")
    other.close()
    await begin(store, "run:a")  # it was not poisoned


async def test_two_guards_of_one_process_exclude_each_other(path: Path) -> None:
    one, two = Guard(f"{path}-guard"), Guard(f"{path}-guard")
    with one.held(1), pytest.raises(StoreUnavailable):
        with two.held(0.01):
            raise AssertionError
    with two.held(1):
        pass
    one.close()
    two.close()


@pytest.mark.parametrize("work", ["commit", "checkpoint", "close"])
async def test_everything_that_writes_holds_the_guard(path: Path, opened: Opener, work: str) -> None:
    """Seen from outside: while any SQL of a writer runs, nobody else gets the lock."""
    store = await opened()
    await begin(store, "run:a")
    probe = os.open(f"{path}-guard", os.O_RDWR)
    free: list[str] = []

    def look(sql: str) -> None:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        fcntl.flock(probe, fcntl.LOCK_UN)
        free.append(sql)

    seen: list[str] = []
    thread, transactor = store._writer._connection, store._transactor
    trace = lambda sql: (seen.append(sql), look(sql))  # noqa: E731
    await on_thread(thread, lambda: transactor._connection.set_trace_callback(trace))
    match work:
        case "commit":
            await begin(store, "run:b")
        case "checkpoint":
            await on_thread(thread, lambda: transactor.checkpoint(truncate=True))
        case "close":
            await store.aclose()
    assert seen
    assert free == []
    os.close(probe)


FORKS = """
async def main():
    store = await SqliteStore.open(sys.argv[1])
    async with store.lease("parent") as lease:
        await store.commit(Commit(id="a", stream="run:a", expected_version=NEW, events=(event(),), lease=lease))
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.closerange(0, 3)  # else who reads from them waits for this process, too
            os.write(tell, b"fresh" if lease.fresh() else b"stale")
            signal.pause()
        say(pid, os.read(ready, 5).decode())
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_a_forked_child_keeps_no_lock_of_its_dead_parent(path: Path, store: SqliteStore) -> None:
    async with child(FORKS, path) as parent, store.lease("heir") as heir:
        pid, lease_in_child = (await parent.line()).split()
        try:
            assert lease_in_child == "stale"
            await parent.kill()
            heads = await store.claim(heir, query=ANY, limit=10)
            assert [head.stream for head in heads] == ["run:a"]
            await begin(store, "run:b")
        finally:
            os.kill(int(pid), 9)


@pytest.mark.parametrize("which", ["store.db", "store.db-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_that_is_no_longer_ours_poisons(path: Path, store: SqliteStore, which: str, how: str) -> None:
    await begin(store, "run:a")
    file = path.parent / which
    if how == "replaced":
        shutil.copy(file, path.parent / "copy")
        (path.parent / "copy").replace(file)
    else:
        file.unlink()
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await begin(store, "run:b")
    for attempt in (begin(store, "run:c"), store.head("run:a"), store.find(ANY)):
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await attempt


async def test_waiting_ends_when_the_store_is_poisoned(path: Path, store: SqliteStore) -> None:
    async with store.lease("worker") as lease:
        await store.claim(lease, query=ANY, limit=1)
        waiting = asyncio.create_task(store.wait(lease, timeout=3_600))
        await asyncio.sleep(0)
        path.unlink()
        with pytest.raises(StoreUnavailable):
            await begin(store, "run:b")
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(waiting, 20)


IO_ERROR = """
import resource

async def main():
    store = await SqliteStore.open(sys.argv[1])
    try:
        await store.commit(Commit(id="a", stream="run:a", expected_version=NEW, events=(event(),)))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        big = NewEvent(b"{}", os.urandom(400_000))
        for name in ("b", "c"):
            try:
                await store.commit(Commit(id=name, stream="run:" + name, expected_version=NEW, events=(big,)))
            except StoreUnavailable as error:
                say(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            await store.commit(Commit(id="d", stream="run:d", expected_version=NEW, events=(event(),)))
        except StoreUnavailable as error:
            say(error)
    finally:
        await store.aclose()
    again = await SqliteStore.open(sys.argv[1])
    say([head.stream for head in (await again.find(StreamQuery())).items])
    await again.aclose()

asyncio.run(main())
"""


async def test_an_io_error_poisons_until_it_is_opened_anew(path: Path) -> None:
    async with child(IO_ERROR, path) as process:
        lines = (await process.succeed()).splitlines()
    assert len(lines) == 4, lines
    for line in lines[:3]:  # also the last, for which the medium would have been good again
        assert "IOERR" in line, line
    assert lines[3] == "['run:a']"


DAMAGE = """
size = os.path.getsize(sys.argv[1])
with open(sys.argv[1], "r+b") as file:
    for page in range(24, size // 4096):  # leaves the schema readable
        file.seek(page * 4096)
        file.write(b"\\xff" * 4096)
"""


async def test_corruption_poisons(path: Path, opened: Opener) -> None:
    store = await opened()
    await asyncio.gather(*(begin(store, f"run:{number}") for number in range(500)))
    await store.aclose()
    async with child(DAMAGE, path) as process:
        await process.succeed()
    store = await opened()
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.commit(step("run:1", 1, event()))
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.find(ANY)


SHELL = """
import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
say("locked")
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@pytest.mark.parametrize("writes_on", ["thread"], indirect=True)
async def test_a_shell_in_a_transaction_is_waited_for(path: Path, store: SqliteStore) -> None:
    async with child(SHELL, path) as shell:
        await shell.expect("locked")
        commit = asyncio.create_task(begin(store, "run:a"))
        done, _ = await asyncio.wait([commit], timeout=0.05)
        assert not done
        await shell.tell("go")
        await commit
    assert await history(store, "run:a") == ["begun"]


async def test_a_shell_that_stays_in_its_transaction_is_named(path: Path, store: SqliteStore) -> None:
    connection = store._transactor._connection
    await on_thread(store._writer._connection, lambda: connection.execute("PRAGMA busy_timeout=20"))
    async with child(SHELL, path) as shell:
        await shell.expect("locked")
        with pytest.raises(StoreUnavailable, match="another program keeps"):
            await begin(store, "run:a")
        await shell.tell("go")
        await shell.succeed()
    await begin(store, "run:a")


async def test_the_log_is_copied_and_stays_small(path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints come by themselves, and readers that are left behind do not keep the log from being cut."""
    monkeypatch.setattr("eventstore.sqlite.checkpoints.CHECKPOINT_BYTES", 200_000)
    store = await opened()
    await begin(store, "run:a")
    left_behind = store.read("run:a")
    await anext(left_behind)
    payload = os.urandom(50_000)
    for version in range(1, 60):
        await store.commit(step("run:a", version, event(payload=payload)))
    await left_behind.aclose()
    assert path.stat().st_size > 2_000_000
    assert Path(f"{path}-wal").stat().st_size < 800_000 + ROOM_BYTES


async def test_a_reader_elsewhere_lets_the_log_grow_and_no_further(
    path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that stays in a read transaction keeps the log; once it has gone, the log is cut to its limit."""
    monkeypatch.setattr("eventstore.sqlite.checkpoints.CHECKPOINT_BYTES", 200_000)
    monkeypatch.setattr("eventstore.sqlite.checkpoints.LOG_BYTES_MAX", 400_000)
    monkeypatch.setattr("eventstore.sqlite.opening.LOG_BYTES_MAX", 400_000)
    monkeypatch.setattr(transaction, "_TRUNCATE_SECONDS", 0.01)
    store = await opened()
    await begin(store, "run:a")
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM events").fetchone()
    payload = os.urandom(50_000)
    for version in range(1, 30):
        await store.commit(step("run:a", version, event(payload=payload)))
    grown = Path(f"{path}-wal").stat().st_size
    assert grown > 1_000_000
    shell.execute("COMMIT")
    shell.close()
    for version in range(30, 60):
        await store.commit(step("run:a", version, event(payload=payload)))
    assert Path(f"{path}-wal").stat().st_size < 800_000 < grown
