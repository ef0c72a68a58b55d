"""Group commit seen from the inside: how many statements a batch takes, and what it does with those who left."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from eventstore import NEW, Commit, LeaseLost, Message, NewEvent, VersionConflict
from eventstore.conformance.harness import ANY, begin, data, event, history, step
from eventstore.sqlite import SqliteStore, WritesOn, statements, writing
from eventstore.sqlite.requests import SendRequest
from eventstore.sqlite.threads import on_thread
from eventstore.sqlite.writer import BATCH_BYTES_MAX, BATCH_REQUESTS_MAX, BATCH_ROWS_MAX
from tests.eventstore.sqlite.conftest import Opener


async def traced(store: SqliteStore) -> list[str]:
    """The statements that the writer executes from now on."""
    seen: list[str] = []
    connection = store._transactor._connection
    await on_thread(
        store._writer._connection,
        lambda: connection.set_trace_callback(lambda sql: seen.append(" ".join(sql.split())[:40])),
    )
    return seen


def transactions(seen: list[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    for sql in seen:
        if sql.startswith("BEGIN"):
            batches.append([])
        batches[-1].append(sql)
    return batches


async def test_a_lone_commit_takes_five_statements(store: SqliteStore) -> None:
    await begin(store, "run:a")
    seen = await traced(store)
    await store.commit(step("run:a", 1, event(payload=b"{}"), event(), event()))
    assert [sql.split()[0] for sql in seen] == ["BEGIN", "PRAGMA", "INSERT", "UPDATE", "COMMIT"]


async def test_what_is_remembered_is_forgotten_when_somebody_else_writes(path: Path, opened: Opener) -> None:
    store, other = await opened(), await opened()
    seen = await traced(store)
    await begin(store, "run:a", "run:b")
    for version in range(1, 6):
        await store.commit(step("run:a", version, event()))
    selects = [sql for sql in seen if sql.startswith("SELECT")]
    assert len(selects) <= 2, selects  # when the streams were created
    await other.send(data("run:a", "m"))
    assert [message.id for message in (await store.commit(step("run:a", 6, event()))).messages] == ["m"]
    await other.commit(step("run:a", 7, event("theirs"), consumes=("m",), attributes={"by": "other"}))
    with pytest.raises(VersionConflict):
        await store.commit(step("run:a", 7, event("ours")))
    head = await store.commit(step("run:a", 8, event("ours")))
    assert (head.attributes, head.messages) == ({"by": "other"}, ())
    assert head == await other.head("run:a")


async def test_what_is_remembered_is_forgotten_when_a_batch_fails(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(store, "run:a")
    write = store._transactor._write

    def fail(*given: object) -> None:
        write(*given)
        raise RuntimeError("after everything was written")

    monkeypatch.setattr(store._transactor, "_write", fail)
    with pytest.raises(RuntimeError):
        await store.commit(step("run:a", 1, event("lost"), attributes={"k": 1}))
    monkeypatch.undo()
    head = await store.commit(step("run:a", 1, event("kept")))
    assert (head.version, head.attributes) == (2, {})
    assert await history(store, "run:a") == ["begun", "kept"]


async def test_what_is_remembered_has_a_limit(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.sqlite.loading.REMEMBERED_STREAMS_MAX", 50)
    names = [f"run:{number}" for number in range(120)]
    await asyncio.gather(*(begin(store, name) for name in names))
    for version in (1, 2):
        await asyncio.gather(*(store.commit(step(name, version, event())) for name in names))
        assert len(store._transactor._memory._streams) <= 50


async def test_an_end_of_a_lease_reaches_what_is_remembered(path: Path, opened: Opener) -> None:
    """The lease ends in this store and in another, while its streams are remembered as owned."""
    store, other = await opened(), await opened()
    for ender in (store, other):
        async with ender.lease("owner") as owner:
            await begin(store, f"run:{owner.token}", lease=owner)
            assert (await store.commit(step(f"run:{owner.token}", 1, event(), lease=owner))).owner == owner.token
        with pytest.raises(LeaseLost):
            await store.commit(step(f"run:{owner.token}", 2, event(), lease=owner))
        assert (await store.commit(step(f"run:{owner.token}", 2, event()))).version == 3


@pytest.mark.parametrize("commits", [2, 64, 500])
async def test_the_statements_of_a_batch_do_not_grow_with_it(store: SqliteStore, commits: int) -> None:
    """New streams, then steps of them, then all that a commit may do: a handful of statements for hundreds of commits."""
    names = [f"run:{number}" for number in range(commits)]
    await asyncio.gather(*(begin(store, f"mail:{name}") for name in names))
    seen = await traced(store)
    await asyncio.gather(*(begin(store, name) for name in names))
    await asyncio.gather(*(store.commit(step(name, 1, event(), event())) for name in names))
    await asyncio.gather(
        *(
            store.commit(step(name, 3, event(), attributes={"n": name}, alarm=5, sends=(data(f"mail:{name}", "m"),)))
            for name in names
        )
    )
    await asyncio.gather(*(store.commit(step(f"mail:{name}", 1, event(), consumes=("m",))) for name in names))
    batches = transactions(seen)
    rows = len(bin(commits)) + 2  # statements that `commits` rows are cut into
    assert len(batches) <= 8, [len(batch) for batch in batches]
    assert max(map(len, batches)) <= 6 + 4 * rows
    assert seen.count("COMMIT") == len(batches)


async def test_commits_of_one_loop_turn_go_together(store: SqliteStore) -> None:
    seen = await traced(store)
    await asyncio.gather(*(begin(store, f"run:{number}") for number in range(BATCH_REQUESTS_MAX)))
    assert seen.count("COMMIT") <= 2  # the thread may wake up before the last of them is queued


async def test_a_batch_is_bounded(store: SqliteStore) -> None:
    taken: list[tuple[int, int, int]] = []
    run = store._transactor.run

    def counting(requests):
        commits = [request.commit for request in requests]
        taken.append(
            (
                len(commits),
                sum(len(commit.events) for commit in commits),
                sum(len(event.payload or b"") for commit in commits for event in commit.events),
            )
        )
        return run(requests)

    store._transactor.run = counting
    await asyncio.gather(*(begin(store, f"run:{number}") for number in range(3 * BATCH_REQUESTS_MAX)))
    events = (event(),) * 1_000
    await asyncio.gather(*(store.commit(step(f"rows:{number}", NEW, *events)) for number in range(12)))
    big = event(payload=bytes(BATCH_BYTES_MAX // 3))
    await asyncio.gather(*(store.commit(step(f"bytes:{number}", NEW, big)) for number in range(7)))
    assert max(commits for commits, _, _ in taken) == BATCH_REQUESTS_MAX
    assert max(rows for _, rows, _ in taken) <= BATCH_ROWS_MAX
    assert max(size for _, _, size in taken) <= BATCH_BYTES_MAX
    assert len([recorded async for recorded in store.read("rows:7")]) == 1_000


async def test_a_batch_of_messages_is_bounded(store: SqliteStore) -> None:
    """Payloads of messages count like those of events, sent alone or with a commit."""
    taken: list[int] = []
    run = store._transactor.run

    def counting(requests):
        sends = [
            request.message if isinstance(request, SendRequest) else request.commit.sends[0] for request in requests
        ]
        taken.append(sum(len(message.payload) for message in sends))
        return run(requests)

    await begin(store, "run:a")
    store._transactor.run = counting
    big = bytes(BATCH_BYTES_MAX // 3)
    mail = [replace(data("run:a", f"m{number}"), payload=big) for number in range(8)]
    await asyncio.gather(
        *(store.send(message) for message in mail[:4]),
        *(store.commit(step(f"run:{message.id}", NEW, sends=(message,))) for message in mail[4:]),
    )
    assert sum(taken) == 8 * len(big)
    assert max(taken) <= BATCH_BYTES_MAX


async def test_commits_of_one_stream_in_one_batch_see_each_other(store: SqliteStore) -> None:
    await begin(store, "run:a")
    seen = await traced(store)
    results = await asyncio.gather(
        store.commit(step("run:a", 1, event("first"), sends=(data("run:a", "self"), data("run:new", "m")))),
        store.commit(step("run:a", 1, event("refused"))),
        store.commit(step("run:a", 2, event("second"), consumes=("self",), attributes={"k": 1})),
        store.send(data("run:a", "self")),
        store.commit(step("run:a", 3, event("third"), attributes={"k": 2})),
        store.commit(step("run:a", 4, event("fourth"), attributes={"k": None, "z": "y"})),
        return_exceptions=True,
    )
    assert seen.count("COMMIT") == 1
    assert isinstance(results[1], VersionConflict)
    assert [message.id for message in results[0].messages] == ["self"]
    assert results[0].undelivered[0].stream == "run:new"
    assert results[2].messages == ()
    assert results[5].attributes == {"z": "y"}
    assert await history(store, "run:a") == ["begun", "first", "second", "third", "fourth"]
    head = await store.head("run:a")
    assert head == results[5]
    found = await store._readers.run(lambda connection: connection.execute("SELECT name FROM attributes").fetchall())
    assert found == [(b"z",)]


async def test_a_caller_that_left_before_the_batch_is_not_written(store: SqliteStore) -> None:
    gate = threading.Event()
    blocked = asyncio.create_task(on_thread(store._writer._connection, gate.wait))
    left = asyncio.create_task(store.commit(step("run:left", NEW, event())))
    stayed = asyncio.create_task(begin(store, "run:stayed"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    gate.set()
    await asyncio.gather(blocked, stayed)
    assert {head.stream for head in (await store.find(ANY)).items} == {"run:stayed"}


@pytest.mark.parametrize("writes_on", ["thread"], indirect=True)
async def test_a_caller_that_left_during_the_batch_is_written_and_the_others_are_told(store: SqliteStore) -> None:
    taken, gate, run = threading.Event(), threading.Event(), store._transactor.run

    def slow(requests):
        taken.set()
        gate.wait()
        return run(requests)

    store._transactor.run = slow
    left = asyncio.create_task(store.commit(step("run:left", NEW, event())))
    stayed = asyncio.create_task(begin(store, "run:stayed"))
    await asyncio.sleep(0)
    await asyncio.to_thread(taken.wait)
    left.cancel()
    await asyncio.wait([left])
    assert left.cancelled()
    gate.set()
    await stayed
    assert {head.stream for head in (await store.find(ANY)).items} == {"run:left", "run:stayed"}


def test_closing_that_is_cancelled_before_it_begins_leaves_no_thread(path: Path, writes_on: WritesOn) -> None:
    """As `asyncio.run` does it at its end to whoever has only just asked. The process never ended."""
    before = set(threading.enumerate())

    async def main() -> None:
        store = await SqliteStore.open(path, writes_on=writes_on)
        await begin(store, "run:a")
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        store._closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()

    asyncio.run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM events").fetchone() == (1,)


async def test_the_end_of_a_program_does_not_lose_what_was_queued(path: Path) -> None:
    """`asyncio.run` cancels every task at its end; a store that is closed then still finishes what it has."""

    async def main() -> None:
        store = await SqliteStore.open(path)
        pending = [asyncio.ensure_future(begin(store, f"run:{number}")) for number in range(20)]
        await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        finally:
            await store.aclose()
            assert all(task.done() for task in pending)

    loop_task = asyncio.create_task(main())
    while not path.exists() or path.stat().st_size == 0:
        await asyncio.sleep(0)
    loop_task.cancel()
    await asyncio.wait([loop_task])
    assert loop_task.cancelled()


async def test_a_batch_that_fails_as_a_whole_refuses_every_caller(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that no rule foresaw in one request takes its batch with it, and nothing else."""
    apply: Callable[..., object] = store._transactor._write

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(store._transactor, "_write", fail)
    results = await asyncio.gather(*(begin(store, f"run:{number}") for number in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["unforeseen"] * 3
    monkeypatch.setattr(store._transactor, "_write", apply)
    await begin(store, "run:1")
    assert {head.stream for head in (await store.find(ANY)).items} == {"run:1"}


async def test_payloads_are_text_when_they_can_be(store: SqliteStore) -> None:
    payloads = [b"", b"{}", "é€😀".encode(), b"\x00", b"nul\x00inside", b"\xff\xfe", bytes(range(256)), b'"' * 3]
    await store.commit(step("run:a", NEW, *(event(payload=payload) for payload in payloads)))
    for number, payload in enumerate(payloads):
        await store.send(Message(id=f"m{number}", stream="run:a", header=b"{}", payload=payload))
    assert [recorded.payload async for recorded in store.read("run:a")] == payloads
    assert [message.payload for message in (await store.head("run:a")).messages] == payloads
    types = await store._readers.run(
        lambda connection: connection.execute("SELECT typeof(payload) FROM events ORDER BY position").fetchall()
    )
    assert [kind.decode() for (kind,) in types] == ["text", "text", "text", "blob", "blob", "blob", "blob", "text"]


async def test_rows_are_small(path: Path, opened: Opener) -> None:
    """What an event costs on the disk beside its header and payload."""
    store = await opened()
    header, payload, count = b'{"type":"TaskCompleted"}', b'{"rows":1}', 20_000
    for start in range(0, count, 5_000):
        await store.commit(
            Commit(
                id=str(start),
                stream="run:a",
                expected_version=start or NEW,
                events=(NewEvent(header, payload),) * 5_000,
            )
        )
    await store.aclose()
    overhead = path.stat().st_size / count - len(header) - len(payload)
    assert overhead < 200, overhead


async def test_more_mail_than_one_value_may_hold(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite bounds the length of one value; a mailbox that is longer is read row by row."""
    await begin(store, "run:a")
    for number in range(8):
        await store.send(Message(id=f"m{number}", stream="run:a", header=b"{}", payload=b"x" * 50_000))
    connection = store._transactor._connection
    await on_thread(store._writer._connection, lambda: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 200_000))
    head = await store.commit(step("run:a", 1, event(), consumes=("m0",)))
    assert [message.id for message in head.messages] == [f"m{number}" for number in range(1, 8)]
    assert head.messages[0].payload == b"x" * 50_000


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 15, 100, 511, 512, 513, 1_300])
def test_rows_are_cut_into_statements_without_loss(rows: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    flat = [value for number in range(rows) for value in (number, f"b{number}")]
    statements.execute_rows(connection, "INSERT INTO t (a, b)", 2, flat)
    assert connection.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == [(n, f"b{n}") for n in range(rows)]
    connection.close()


async def test_after_closing_nothing_is_taken(store: SqliteStore) -> None:
    commits = [asyncio.ensure_future(begin(store, f"run:{number}")) for number in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    done = await asyncio.gather(*commits, return_exceptions=True)
    assert done == [None] * 50


async def test_what_goes_with_every_event_is_bound_without_looking_for_an_adapter(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is stored as it ever was: no payload is NULL, an empty one is not, digests are BLOBs."""
    bound: list[Any] = []
    execute_rows = writing.execute_rows

    def seen(sql: Any, head: str, columns: int, parameters: Any, *args: Any, **options: Any) -> None:
        bound.extend(parameters)
        execute_rows(sql, head, columns, parameters, *args, **options)

    await begin(store, "run:a", "run:b")
    monkeypatch.setattr(writing, "execute_rows", seen)
    events = (event(), event(payload=b""), event(payload=b"0"), event(payload=b"{}"))
    two = (store.commit(step("run:a", 1, *events)), store.commit(step("run:b", 1, event())))
    await asyncio.gather(*two)
    await store.commit(step("run:b", 2, event(payload=b"\x00")))
    kinds = Counter(type(value) for value in bound)
    assert set(kinds) == {int, str, bytearray, bytes}
    assert kinds[bytes] == 1  # the payload that is no text
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT typeof(payload), typeof(salt), typeof(payload_digest), typeof(digest), payload FROM events"
            " WHERE version > 1 ORDER BY stream, version"
        ).fetchall()
        undelivered = connection.execute("SELECT DISTINCT typeof(commit_undelivered) FROM streams").fetchall()
    nothing, text, blob = ("null", "null", "null", "blob"), ("text", "blob", "blob", "blob"), ("blob",) * 4
    assert rows == [
        (*nothing, None),
        (*text, ""),
        (*text, "0"),
        (*text, "{}"),
        (*nothing, None),
        (*blob, b"\x00"),
    ]
    assert undelivered == [("null",)]
