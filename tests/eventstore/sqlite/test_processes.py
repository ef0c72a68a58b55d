"""Several processes on one file, killed, stopped and continued at any moment."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstore import LeaseLost, StreamHead, StreamQuery
from eventstore.conformance.harness import ANY, begin, claim, data, event, history, step
from eventstore.digest import chain_start, event_digest, payload_digest
from eventstore.sqlite import SqliteStore
from tests.eventstore.sqlite.children import PATIENCE_SECONDS, child
from tests.eventstore.sqlite.conftest import Opener

OWNER = """
async def main():
    path, ttl = sys.argv[1], float(sys.argv[2])
    store = await SqliteStore.open(path, lease_ttl=ttl)
    async with store.lease("owner") as lease:
        for number in range(3):
            await store.commit(Commit(id="a", stream=f"run:{number}", expected_version=NEW, events=(event("owned"),),
                                      lease=lease))
        say(lease.token)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                head = await store.commit(Commit(id=line, stream="run:0", expected_version=1, events=(event("late"),),
                                                 lease=lease))
                say("committed", head.version)
            except LeaseLost as error:
                say("LeaseLost", lease.fresh(), error.token)
    await store.aclose()

asyncio.run(main())
"""


async def test_a_killed_owner_frees_its_streams_at_once(path: Path, opened: Opener) -> None:
    store = await opened()
    async with store.lease("heir") as heir, child(OWNER, path, 3_600) as owner:
        token = int(await owner.line())
        assert await claim(store, heir) == []
        with pytest.raises(LeaseLost):
            await store.commit(step("run:0", 1, event("stolen")))
        await owner.kill()
        await store.commit(step("run:2", 1, event("by anybody")))
        assert await claim(store, heir) == ["run:0", "run:1", "run:2"]
        assert not (path.parent / "store.db-leases" / str(token)).exists()
        await store.commit(step("run:0", 1, event("inherited"), lease=heir))
    assert await history(store, "run:0") == ["owned", "inherited"]


async def test_a_waiter_notices_that_an_owner_was_killed(path: Path, opened: Opener) -> None:
    store = await opened()
    async with store.lease("heir") as heir, child(OWNER, path, 3_600) as owner:
        await owner.line()
        assert await claim(store, heir) == []
        await store.wait(heir, timeout=0)
        assert await claim(store, heir) == []
        waiting = asyncio.create_task(store.wait(heir, timeout=3_600))
        await asyncio.sleep(0)
        await owner.kill()
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)
        assert await claim(store, heir) == ["run:0", "run:1", "run:2"]


SENDER = """
async def main():
    store = await SqliteStore.open(sys.argv[1])
    say("ready")
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await store.send(Message(id=line, stream="run:0", header=b"{}", control=line == "control"))
        say(line)
    await store.aclose()

asyncio.run(main())
"""


async def test_mail_from_another_process_wakes_the_living_owner(path: Path, opened: Opener) -> None:
    """Nothing else would: the wait is for an hour, and nobody dies or has an alarm."""
    store = await opened()
    async with store.lease("owner") as lease, child(SENDER, path) as sender:
        await begin(store, "run:0", lease=lease)
        await sender.expect("ready")

        async def until_claimed() -> list[str]:
            while not (claimed := await claim(store, lease)):
                await store.wait(lease, timeout=3_600)
            return claimed

        for message_id in ("first", "second", "control"):
            waiting = asyncio.create_task(until_claimed())
            await asyncio.sleep(0)
            await sender.tell(message_id)
            await sender.expect(message_id)
            assert await asyncio.wait_for(waiting, PATIENCE_SECONDS) == ["run:0"]
            await store.commit(step("run:0", 1, consumes=(message_id,), lease=lease))


async def test_a_stopped_owner_is_replaced_and_refused_when_it_goes_on(path: Path, opened: Opener) -> None:
    store = await opened()
    async with store.lease("heir") as heir, child(OWNER, path, 0.5) as owner:
        token = int(await owner.line())
        owner.send(signal.SIGSTOP)
        claimed: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not claimed:
                claimed = await claim(store, heir)
                await store.wait(heir, timeout=1)
        assert claimed == ["run:0", "run:1", "run:2"]
        owner.send(signal.SIGCONT)
        await owner.tell("late")
        await owner.expect(f"LeaseLost False {token}")
    assert await history(store, "run:0") == ["owned"]


async def test_a_busy_owner_is_not_taken_for_dead(path: Path, opened: Opener) -> None:
    """Its loop is blocked for longer than its time to live: the beat comes from a thread."""
    program = """
        import time

        async def main():
            store = await SqliteStore.open(sys.argv[1], lease_ttl=0.3)
            async with store.lease("owner") as lease:
                await store.commit(Commit(id="a", stream="run:a", expected_version=NEW, events=(event(),), lease=lease))
                say("busy")
                end = time.monotonic() + 1.0
                while time.monotonic() < end:
                    sum(range(1_000))
                say("fresh" if lease.fresh() else "stale")
                while lease.lag < 0.3:
                    await asyncio.sleep(0.01)
                say("late")
                sys.stdin.readline()
            await store.aclose()

        asyncio.run(main())
    """
    store = await opened()
    async with store.lease("heir") as heir, child(program, path) as owner:
        await owner.expect("busy")
        claims = 0
        line = asyncio.create_task(owner.line())
        while not line.done():
            assert await claim(store, heir) == []
            claims += 1
            await asyncio.wait([line], timeout=0.02)
        assert await line == "fresh"
        assert claims > 5
        await owner.expect("late")


async def test_messages_of_another_process_wake_a_waiter(path: Path, opened: Opener) -> None:
    program = """
        async def main():
            store = await SqliteStore.open(sys.argv[1])
            while await asyncio.to_thread(sys.stdin.readline):
                await store.send(Message(id=os.urandom(8).hex(), stream="run:a", header=b"{}"))
            await store.aclose()

        asyncio.run(main())
    """
    store = await opened()
    await begin(store, "run:a")
    async with store.lease("worker") as lease, child(program, path) as sender:
        version = 1
        for _ in range(5):
            await store.wait(lease, timeout=0)
            assert await claim(store, lease) == []
            await sender.tell("send")
            heads = []
            while not heads:
                await asyncio.wait_for(store.wait(lease, timeout=3_600), PATIENCE_SECONDS)
                heads = await store.claim(lease, query=ANY, limit=1)
            consumes = tuple(message.id for message in heads[0].messages)
            version = (await store.commit(step("run:a", version, event(), consumes=consumes, lease=lease))).version


WRITER = """
async def main():
    path, name, seed = sys.argv[1:]
    store = await SqliteStore.open(path)
    async with store.lease(name) as lease:
        async def write(stream):
            version = NEW
            try:
                version = (await store.head(stream)).version
            except StreamNotFound:
                pass
            else:
                while (await store.head(stream)).owner != lease.token:
                    await store.claim(lease, query=StreamQuery(streams=(stream,)), limit=1)
            while True:
                events = tuple(NewEvent(b'{"n":%d}' % n, b'{"x":"%s"}' % os.urandom(20).hex().encode())
                               for n in range(3))
                head = await store.commit(Commit(id=os.urandom(8).hex(), stream=stream, expected_version=version,
                                                 events=events, lease=lease))
                version = head.version
                say(stream, version, head.digest.hex())
        await asyncio.gather(*(write(f"run:{name}-{number}") for number in range(4)))

asyncio.run(main())
"""


async def test_everything_acknowledged_survives_kill_9(path: Path) -> None:
    """Two processes write as fast as they can and are killed at any moment, over and over; then the file is read plainly."""
    acknowledged: dict[str, tuple[int, str]] = {}
    chance = random.Random(7)
    for round_number in range(5):
        async with child(WRITER, path, "a", round_number) as one, child(WRITER, path, "b", round_number) as two:
            for _ in range(chance.randrange(3, 40)):
                for writer in (one, two):
                    stream, version, digest = (await writer.line()).split()
                    acknowledged[stream] = (int(version), digest)
            await asyncio.gather(one.kill(), two.kill())
            for line in await one.rest() + await two.rest():
                if line.count(" ") == 2 and len(line.rpartition(" ")[2]) == 64:
                    stream, version, digest = line.split()
                    acknowledged[stream] = (int(version), digest)
    assert len(acknowledged) == 8
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for name, (version, digest) in acknowledged.items():
        chain, seen = chain_start(name), 0
        for row in connection.execute(
            "SELECT e.version, header, payload, salt, payload_digest, e.digest FROM events e"
            " JOIN streams s ON s.id = e.stream WHERE s.name = ? ORDER BY e.version",
            (name,),
        ):
            seen += 1
            assert row[0] == seen
            assert payload_digest(row[3], row[2].encode()) == row[4]
            chain = event_digest(chain, row[1].encode(), row[4])
            assert chain == row[5]
            if seen == version:
                assert chain.hex() == digest
        assert seen >= version
        assert seen % 3 == 0, "half a commit"
        stored = connection.execute("SELECT version, digest FROM streams WHERE name = ?", (name,)).fetchone()
        assert stored == (seen, chain)
    connection.close()


async def test_two_processes_share_the_file_fairly(path: Path, opened: Opener) -> None:
    """Neither of two busy writers is starved by the other."""
    store = await opened()
    async with child(WRITER, path, "a", 0) as one, child(WRITER, path, "b", 0) as two:
        counts = [0, 0]
        await asyncio.gather(one.line(), two.line())  # one may have begun long before the other
        begun = {head.stream: head.version for head in (await store.find(StreamQuery())).items}

        async def count(number: int, process) -> None:
            while sum(counts) < 400:
                stream, version, _ = (await process.line()).split()
                counts[number] += int(version) > begun.get(stream, 0)

        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(count(0, one), count(1, two))
    assert min(counts) > 40, counts


async def test_the_streams_of_a_worker_that_left_can_be_claimed_elsewhere(path: Path, opened: Opener) -> None:
    program = """
        async def main():
            store = await SqliteStore.open(sys.argv[1])
            async with store.lease("here") as lease:
                heads = await store.claim(lease, query=StreamQuery(), limit=10)
                say(*(head.stream for head in heads))
                sys.stdin.readline()
            await store.aclose()

        asyncio.run(main())
    """
    store = await opened()
    async with store.lease("one") as lease:
        await begin(store, "run:a", lease=lease)
    async with child(program, path) as other, store.lease("two") as two:
        await other.expect("run:a")
        await store.send(data("run:a", "m"))
        assert await claim(store, two) == []
        await other.tell("leave")
        await other.succeed()
        assert await claim(store, two) == ["run:a"]


async def test_what_a_shell_sees(path: Path, store: SqliteStore) -> None:
    """Histories are read by SQLite and JSON alone, while the store is open, by a process that knows nothing of it."""
    program = """
        import json, sqlite3
        connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
        say(json.dumps(connection.execute(
            "SELECT s.name, e.version, header ->> '$.type', iif(json_valid(payload), payload ->> '$.x', NULL), typeof(payload)"
            " FROM events e JOIN streams s ON s.id = e.stream ORDER BY position").fetchall()))
        say(json.dumps(connection.execute("SELECT id, header ->> '$.mail', consumed_at FROM messages").fetchall()))
        say(json.dumps(connection.execute("SELECT name, attributes ->> '$.k' FROM streams").fetchall()))
    """
    await store.commit(step("run:a", -1, event("one", b'{"x":5}'), event("two", b"\xff\xfe"), attributes={"k": "v"}))
    await store.send(data("run:a", "m"))
    async with child(program, path) as shell:
        lines = (await shell.succeed()).splitlines()
    assert json.loads(lines[0]) == [["run:a", 1, "one", 5, "text"], ["run:a", 2, "two", None, "blob"]]
    assert json.loads(lines[1]) == [["m", "m", None]]
    assert json.loads(lines[2]) == [["run:a", "v"]]


ENDS = """
async def main(how):
    store = await SqliteStore.open(sys.argv[1])
    await store.find(StreamQuery())
    lease = store.lease("worker")
    await lease.__aenter__()
    commits = [asyncio.ensure_future(store.commit(Commit(id="a", stream=f"run:{number}", expected_version=NEW)))
               for number in range(2_000)]
    await asyncio.sleep(0)
    match how:
        case "returns while it closes":
            asyncio.ensure_future(store.aclose())
            await asyncio.sleep(0)
        case "is cancelled while it closes":
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            await store.aclose()
        case "fails before it closes":
            try:
                raise KeyError("of the program")
            finally:
                await store.aclose()

try:
    asyncio.run(main(sys.argv[2]))
except BaseException as error:
    say(type(error).__name__)
say("ended")
"""


@pytest.mark.parametrize("how", ["returns while it closes", "is cancelled while it closes", "fails before it closes"])
async def test_a_program_ends_however_it_leaves(path: Path, opened: Opener, how: str) -> None:
    """aiosqlite's threads are no daemons: one that is left behind would keep the process alive for ever."""
    async with child(ENDS, path, how) as program:
        said = await program.succeed()
    assert said.splitlines()[-1] == "ended"
    store = await opened()
    assert list((path.parent / "store.db-leases").iterdir()) == []
    await begin(store, "run:after")
    if how == "fails before it closes":
        assert len([head async for head in _all(store)]) == 2_001


async def _all(store: SqliteStore) -> AsyncIterator[StreamHead]:
    page = await store.find(StreamQuery(limit=1_000))
    while True:
        for head in page.items:
            yield head
        if page.next is None:
            return
        page = await store.find(StreamQuery(limit=1_000, cursor=page.next))
