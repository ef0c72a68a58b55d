"""A full disk: refused, nothing lost, and work goes on when there is space again.

The disk is a real file system of one megabyte in a mount namespace of its own, which needs root and a kernel that allows
it; where it does not, SQLite's own page limit stands in for the database file, which is the weaker test.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from eventstore import StoreUnavailable
from eventstore.conformance.harness import begin, event, history, step
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.threads import on_thread
from tests.eventstore.sqlite.children import child

FILL = """
async def main():
    path = sys.argv[1] + "/store.db"
    store = await SqliteStore.open(path)
    acknowledged, errors, version = 0, [], NEW
    payload = os.urandom(20_000)
    try:
        async with store.lease("worker") as lease:
            while len(errors) < 3:
                commit = Commit(id=os.urandom(8).hex(), stream="run:a", expected_version=version, lease=lease,
                                events=(NewEvent(b"{}", payload),))
                try:
                    version = (await store.commit(commit)).version
                    acknowledged = version
                except StoreUnavailable as error:
                    errors.append(str(error))
                    if "IOERR" in str(error):
                        break
            say(errors[0])
            say(len([recorded async for recorded in store.read("run:a")]) == acknowledged)
            os.unlink(sys.argv[1] + "/ballast")
            version = (await store.commit(Commit(id="more", stream="run:a", expected_version=version, lease=lease,
                                                 events=(event("there is space again"),)))).version
            acknowledged = version
    finally:
        await store.aclose()
    store = await SqliteStore.open(path)
    say(len([recorded async for recorded in store.read("run:a")]) == acknowledged > 5)
    await store.aclose()

with open(sys.argv[1] + "/ballast", "wb") as ballast:
    ballast.write(bytes(600_000))
asyncio.run(main())
"""


def small_disk_is_possible(directory: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_a_full_disk(tmp_path: Path) -> None:
    if not small_disk_is_possible(tmp_path):
        pytest.skip("no mount namespaces here; the page limit below is what is tested")
    mounted = ("sh", "-c", f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec "$@"', "sh")
    async with child(FILL, tmp_path, wrapper=("unshare", "--mount", *mounted)) as process:
        lines = (await process.succeed()).splitlines()
    assert "no space is left" in lines[0], lines
    assert "SQLITE_FULL" in lines[0]
    assert lines[1:] == ["True", "True"]


async def fill(store: SqliteStore) -> None:
    """Begin a run, and leave room for two pages."""
    await begin(store, "run:a")
    connection = store._transactor._connection
    pages = await on_thread(store._writer._connection, lambda: connection.execute("PRAGMA page_count").fetchone()[0])
    limit = f"PRAGMA max_page_count={pages + 2}"
    await on_thread(store._writer._connection, lambda: connection.execute(limit).fetchone())


async def test_who_keeps_the_error_keeps_no_file_open(path: Path, store: SqliteStore) -> None:
    """Nor its locks: its frames know what was executed, and SQLite closes nothing before that is gone."""
    await fill(store)
    with pytest.raises(StoreUnavailable, match="no space is left") as kept:
        await store.commit(step("run:a", 1, event(payload=bytes(100_000))))
    await store.aclose()
    assert kept.value.__cause__ is not None
    descriptors = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [name for name in descriptors if name.startswith(str(path))] == []


async def test_a_full_database(path: Path, store: SqliteStore) -> None:
    await fill(store)
    connection = store._transactor._connection
    with pytest.raises(StoreUnavailable, match="no space is left"):
        await store.commit(step("run:a", 1, event(payload=bytes(100_000))))
    assert await history(store, "run:a") == ["begun"]
    await on_thread(store._writer._connection, lambda: connection.execute("PRAGMA max_page_count=100000").fetchone())
    await store.commit(step("run:a", 1, event("again")))
    await store.aclose()
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert plain.execute("SELECT count(*) FROM events").fetchone() == (2,)
    plain.close()
