"""Checks: the caller's own SQL in a commit (capability ``transaction``). Both are there, or neither, and only once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from eventstore.conformance.harness import (
    StoreHarness,
    begin,
    collect,
    data,
    event,
    history,
    refused,
    step,
)
from eventstore.digest import chain_start, event_digest, payload_digest
from eventstore.errors import (
    CommitTooLarge,
    InvalidArgument,
    LeaseLost,
    MailWaiting,
    TransactionRefused,
    UnknownMessage,
    VersionConflict,
)
from eventstore.port import NEW, PAYLOAD_BYTES_MAX, Commit, EventStore, StreamHead, StreamQuery, Transaction


class _Expected(Exception):
    """What a function of these checks fails with."""


async def its_rows_and_its_event_are_there_together(harness: StoreHarness) -> None:
    """The function reads and writes; what it returns is the first event's payload, in the chain as any other."""
    store = await _with_table(harness)
    if store is None:
        return

    def count(transaction: Transaction) -> bytes:
        transaction.executemany("INSERT INTO mine (name) VALUES (?)", [("a",), ("b",)])
        transaction.execute("INSERT INTO mine (name) VALUES (:name)", {"name": "c"})
        ((total,),) = transaction.execute("SELECT count(*) FROM mine")
        return b"%d" % total

    head = await store.commit(step("run:a", NEW, event("counted"), event("more", b"x"), transaction=count))
    first, second = await collect(store.read("run:a"))
    assert (head.version, first.payload, second.payload) == (2, b"3", b"x")
    assert first.salt
    assert first.payload_digest == payload_digest(first.salt, b"3")
    assert first.digest == event_digest(chain_start("run:a"), first.header, first.payload_digest)
    assert second.digest == head.digest == event_digest(first.digest, second.header, second.payload_digest)
    assert await _names(store) == ["a", "b", "c"]


async def a_failure_refuses_that_commit_alone(harness: StoreHarness) -> None:
    """As the error that it is, to its caller; its rows are gone, and those of the commits around it are not."""
    store = await _with_table(harness)
    if store is None:
        return
    await begin(store, "run:mail")

    def write(name: str, error: Exception | None = None) -> Callable[[Transaction], bytes]:
        def function(transaction: Transaction) -> bytes:
            transaction.execute("INSERT INTO mine (name) VALUES (?)", (name,))
            if error is not None:
                transaction.execute("CREATE TABLE never (x)")
                raise error
            return name.encode()

        return function

    error = _Expected("by the function")
    commits = [
        step("run:a", NEW, event("a"), transaction=write("a")),
        step("run:b", NEW, event("b"), transaction=write("b", error), sends=(data("run:mail", "never"),)),
        step("run:c", NEW, event("c")),
        step("run:a", 1, event("d"), transaction=write("d")),
        step("run:a", 2, event("e"), transaction=write("e", error), attributes={"lost": True}, closed=True),
        step("run:a", 2, event("f"), transaction=write("f")),
    ]
    results = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
    assert [isinstance(result, StreamHead) for result in results] == [True, False, True, True, False, True], results
    assert results[1] is error
    assert results[4] is error
    assert await _names(store) == ["a", "d", "f"]
    assert await history(store, "run:a") == ["a", "d", "f"]
    head = await store.head("run:a")
    assert (head.version, head.attributes, head.closed) == (3, {}, False)
    assert (await store.head("run:mail")).messages == ()
    assert (await store.commit(step("run:b", NEW, event("b"), transaction=write("b")))).version == 1


async def a_repeated_commit_does_not_run_it_again(harness: StoreHarness) -> None:
    """The first outcome is returned, from this handle and another; the rows are there once."""
    store = await _with_table(harness)
    if store is None:
        return
    commit = step("run:a", NEW, event("once"), transaction=_insert("once"))
    first = await store.commit(commit)
    for handle in (store, await harness.open()):
        assert await handle.commit(commit) == first
    assert await _names(store) == ["once"]


async def a_commit_that_is_refused_anyway_does_not_call_it(harness: StoreHarness) -> None:
    """Whatever else the port lists is looked at before."""
    store = await _with_table(harness)
    if store is None:
        return
    called: list[str] = []

    def record(_: Transaction) -> bytes:
        called.append("called")
        return b""

    async with store.lease("owner") as owner, store.lease("other") as other:
        await begin(store, "run:a", lease=owner)
        await store.send(data("run:a", "m"))
        refusals: tuple[tuple[type[Exception], Commit], ...] = (
            (VersionConflict, step("run:a", NEW, event(), transaction=record, lease=owner)),
            (LeaseLost, step("run:a", 1, event(), transaction=record, lease=other)),
            (VersionConflict, step("run:a", 2, event(), transaction=record, lease=owner)),
            (UnknownMessage, step("run:a", 1, event(), consumes=("n",), transaction=record, lease=owner)),
            (MailWaiting, step("run:a", 1, event(), drained=True, transaction=record, lease=owner)),
            (InvalidArgument, step("run:a", 1, transaction=record, lease=owner)),
            (InvalidArgument, step("run:a", 1, event(payload=b""), transaction=record, lease=owner)),
        )
        for error, commit in refusals:
            with refused(error):
                await store.commit(commit)
    assert called == []


async def what_it_returns_must_be_a_payload(harness: StoreHarness) -> None:
    """Bytes, and not more than a payload may have; else nothing has happened."""
    store = await _with_table(harness)
    if store is None:
        return

    def returns(value: object) -> Callable[[Transaction], bytes]:
        def function(transaction: Transaction) -> bytes:
            transaction.execute("INSERT INTO mine (name) VALUES ('never')")
            return value  # type: ignore[return-value] # as a caller without a type checker would

        return function

    for value in (None, "text", 7):
        with refused(InvalidArgument):
            await store.commit(step("run:a", NEW, event(), transaction=returns(value)))
    with refused(CommitTooLarge):
        await store.commit(step("run:a", NEW, event(), transaction=returns(bytes(PAYLOAD_BYTES_MAX + 1))))
    assert await _names(store) == []
    assert (await store.commit(step("run:a", NEW, event(), transaction=returns(b"")))).version == 1
    assert [recorded.payload async for recorded in store.read("run:a")] == [b""]


async def the_handle_ends_with_the_function(harness: StoreHarness) -> None:
    """What is kept of it can do nothing any more."""
    store = await _with_table(harness)
    if store is None:
        return
    kept: list[Transaction] = []

    def keep(transaction: Transaction) -> bytes:
        kept.append(transaction)
        return b""

    await store.commit(step("run:a", NEW, event(), transaction=keep))
    with refused(TransactionRefused) as refusal:
        kept[0].execute("INSERT INTO mine (name) VALUES ('never')")
    assert refusal.error.stream == "run:a"
    with refused(TransactionRefused):
        kept[0].executemany("INSERT INTO mine (name) VALUES (?)", [("never",)])
    assert await _names(store) == []


async def a_cancelled_one_happens_wholly_or_not_at_all(harness: StoreHarness) -> None:
    """Cancelled at any moment: the rows are there exactly when the event is."""
    store = await _with_table(harness)
    if store is None:
        return
    for number in range(40):
        name = f"run:{number}"
        task = asyncio.ensure_future(store.commit(step(name, NEW, event(), transaction=_insert(name))))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await begin(store, "run:behind")  # whatever was under way is done
    committed = [f"run:{number}" for number in range(40) if await _exists(store, f"run:{number}")]
    assert await _names(store) == sorted(committed)


def _insert(name: str) -> Callable[[Transaction], bytes]:
    def function(transaction: Transaction) -> bytes:
        transaction.execute("INSERT INTO mine (name) VALUES (?)", (name,))
        return name.encode()

    return function


async def _with_table(harness: StoreHarness) -> EventStore | None:
    """A store with a table of the caller's own; None if it has no such capability."""
    store = await harness.open()
    if "transaction" not in store.capabilities:
        return None

    def create(transaction: Transaction) -> bytes:
        transaction.execute("CREATE TABLE mine (name TEXT NOT NULL)")
        return b"created"

    await store.commit(step("own:table", NEW, event(), transaction=create))
    return store


async def _names(store: EventStore) -> list[str]:
    """What is in the table."""
    found: list[str] = []

    def select(transaction: Transaction) -> bytes:
        found.extend(name for (name,) in transaction.execute("SELECT name FROM mine ORDER BY name"))
        return b""

    await store.commit(step("own:table", (await store.head("own:table")).version, event(), transaction=select))
    return found


async def _exists(store: EventStore, stream: str) -> bool:
    return bool((await store.find(StreamQuery(streams=(stream,)))).items)
