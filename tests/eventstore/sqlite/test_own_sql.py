"""The caller's own SQL in a commit: what it may do, for how long, and what becomes of the batch around it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from eventstore import NEW, StoreUnavailable, StreamHead, StreamQuery, Transaction, TransactionRefused
from eventstore.conformance import CHECKS, TurnedClock, name_of
from eventstore.conformance.harness import begin, claim, event, history, step
from eventstore.port import TRANSACTION_SECONDS_MAX
from eventstore.sqlite import SqliteStore, WritesOn, own_sql
from eventstore.sqlite.own_sql import OwnSql
from eventstore.sqlite.schema import MIGRATIONS, STORE_TABLES
from eventstore.sqlite.threads import on_thread
from eventstore.sqlite.transaction import _END_LEASES, Transactor
from tests.eventstore.sqlite.children import child
from tests.eventstore.sqlite.conftest import Opener
from tests.eventstore.sqlite.harness import SqliteHarness
from tests.eventstore.sqlite.test_batches import traced

Function = Callable[[Transaction], bytes]
OWN_STREAMS = StreamQuery(category="own", limit=1_000)
SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def executes(*statements: str) -> Function:
    def function(transaction: Transaction) -> bytes:
        rows: list[Any] = []
        for sql in statements:
            rows = transaction.execute(sql)
        return repr(rows).encode()

    return function


async def own(store: SqliteStore, function: Function) -> str:
    """Run a function in a commit of a stream of its own; what it returned."""
    count = len((await store.find(OWN_STREAMS)).items)
    await store.commit(step(f"own:{count}", NEW, event(), transaction=function))
    (recorded,) = [recorded async for recorded in store.read(f"own:{count}")]
    return recorded.payload.decode()


async def with_table(store: SqliteStore) -> None:
    await own(store, executes("CREATE TABLE mine (name TEXT UNIQUE, number INTEGER)"))


def test_the_tables_of_the_store_are_all_named() -> None:
    connection = sqlite3.connect(":memory:")
    for statements in MIGRATIONS:
        for sql in statements:
            connection.execute(sql)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names - {"sqlite_sequence"} == STORE_TABLES
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE other (x INTEGER PRIMARY KEY AUTOINCREMENT) STRICT",
        "CREATE TABLE other AS SELECT * FROM mine",
        "CREATE INDEX other ON mine (number)",
        "CREATE VIEW other AS SELECT name FROM mine",
        "CREATE TRIGGER other AFTER INSERT ON mine BEGIN UPDATE mine SET number = 1; END",
        "ALTER TABLE mine ADD COLUMN more",
        "ALTER TABLE mine RENAME COLUMN name TO other",
        "ALTER TABLE mine RENAME TO other",
        "ALTER TABLE mine DROP COLUMN number",
        "DROP TABLE counted",
        "DROP TABLE mine",
        "INSERT INTO mine VALUES ('a', 1) ON CONFLICT DO NOTHING RETURNING name",
        "UPDATE mine SET number = number + 1",
        "DELETE FROM mine",
        "SELECT count(*), max(json_extract(name, '$')) FROM mine",
        "SELECT value FROM json_each('[1, 2]')",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT max(x) FROM n",
        "REINDEX mine",
        "SELECT name FROM sqlite_master",
    ],
)
async def test_a_transaction_may(store: SqliteStore, statement: str) -> None:
    await with_table(store)
    await own(store, executes("CREATE TABLE counted (x INTEGER PRIMARY KEY AUTOINCREMENT)"))
    await own(store, executes(statement))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        *((f"SELECT count(*) FROM {table}", f"{table} is a table of the store's") for table in sorted(STORE_TABLES)),
        *((f"DELETE FROM main.{table}", f"{table} is a table of the store's") for table in sorted(STORE_TABLES)),
        ("INSERT INTO Events (header) VALUES (1)", "events is a table of the store's"),
        ("UPDATE streams SET version = 7", "streams is a table of the store's"),
        ("INSERT INTO mine SELECT name, id FROM streams", "streams is a table of the store's"),
        ("SELECT * FROM peeps", "events is a table of the store's"),
        ("INSERT INTO meddles VALUES (1)", "events is a table of the store's"),
        ("CREATE TRIGGER other AFTER INSERT ON events BEGIN SELECT 1; END", "events is a table of the store's"),
        ("CREATE INDEX other ON messages (header)", "messages is a table of the store's"),
        ("DROP INDEX messages_waiting", "messages is a table of the store's"),
        ("ALTER TABLE streams ADD COLUMN other", "streams is a table of the store's"),
        ("DROP TABLE leases", "leases is a table of the store's"),
        ("CREATE TABLE Holdfast_mine (x)", "names that begin with holdfast"),
        ("UPDATE sqlite_sequence SET seq = 0", "table of SQLite's own"),
        ("CREATE TEMP TABLE streams (x)", "database 'temp'"),
        ("CREATE TEMP VIEW streams AS SELECT 1", "database 'temp'"),
        ("CREATE TEMP TRIGGER other AFTER INSERT ON events BEGIN SELECT 1; END", ""),
        ("ATTACH ':memory:' AS other", "nothing else"),
        ("DETACH main", "nothing else"),
        ("PRAGMA user_version = 9", "nothing else"),
        ("PRAGMA synchronous = OFF", "nothing else"),
        ("SELECT * FROM pragma_table_info('mine')", "nothing else"),
        ("ANALYZE", "nothing else"),
        ("BEGIN", "nothing else"),
        ("COMMIT", "nothing else"),
        ("END", "nothing else"),
        ("ROLLBACK", "nothing else"),
        ("SAVEPOINT own", "nothing else"),
        ("RELEASE own", "nothing else"),
        ("ROLLBACK TO own", "nothing else"),
        ("CREATE VIRTUAL TABLE other USING fts5(x)", "nothing else"),
        ("SELECT load_extension('other')", "load_extension"),
    ],
)
async def test_a_transaction_may_not(store: SqliteStore, statement: str, why: str) -> None:
    """Refused with the statement and the reason, also when it was prepared and cached before; nothing has happened."""
    await with_table(store)
    await own(
        store,
        executes(
            "CREATE VIEW peeps AS SELECT * FROM events",
            "CREATE TABLE meddles (x)",
            "CREATE TRIGGER meddle AFTER INSERT ON meddles BEGIN DELETE FROM events; END",
        ),
    )
    before = [head async for head in store.read_all()]
    for _ in range(2):
        with pytest.raises(TransactionRefused) as refusal:
            await own(store, executes("INSERT INTO mine VALUES ('never', 1)", statement))
        assert refusal.value.statement == statement
        assert statement in str(refusal.value)
        assert why in refusal.value.reason
        assert refusal.value.stream in str(refusal.value)
    assert [head async for head in store.read_all()] == before
    assert await own(store, executes("SELECT * FROM mine")) == "[]"


async def test_a_statement_of_the_store_is_not_a_way_in(store: SqliteStore) -> None:
    """The very text that the store has just prepared, and that the connection has in its cache."""
    await with_table(store)
    seen: list[str] = []
    connection = store._transactor._connection
    await on_thread(store._writer._connection, lambda: connection.set_trace_callback(seen.append))
    await begin(store, "run:a")
    await on_thread(store._writer._connection, lambda: connection.set_trace_callback(None))
    for sql in {sql for sql in seen if "streams" in sql or "events" in sql}:
        with pytest.raises(TransactionRefused):
            await own(store, executes(sql))

    def ends_leases(transaction: Transaction) -> bytes:
        transaction.execute(_END_LEASES, (1, "[]"))
        return b""

    async with store.lease("one"):
        pass
    with pytest.raises(TransactionRefused):
        await own(store, ends_leases)
    async with store.lease("two") as lease:
        assert await claim(store, lease) == []


async def test_after_a_transaction_the_store_may_do_what_it_does(store: SqliteStore) -> None:
    """The authorizer and the time limit are gone, whichever way the function ended."""
    await with_table(store)

    def fails(_: Transaction) -> bytes:
        raise ValueError("by the function")

    for function in (executes("SELECT 1"), fails, executes("PRAGMA user_version")):
        await asyncio.gather(own(store, function), begin(store, f"run:{id(function)}"), return_exceptions=True)
        async with store.lease("worker") as lease:
            await begin(store, f"run:{id(function)} leased", lease=lease)
    names = [f"run:{number}" for number in range(500)]
    await asyncio.gather(*(begin(store, name, attributes={"name": name}) for name in names))


async def test_one_that_takes_too_long_is_stopped(path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a statement runs; others of its batch are written. The clock turns a second with every look at it."""
    clock = TurnedClock()
    store = await opened(clock=clock)
    await with_table(store)
    late = own_sql._Rules.late

    def looks(rules: own_sql._Rules) -> bool:
        clock.let_pass(1)
        return late(rules)

    for statement in (SLOW, f"INSERT INTO mine SELECT NULL, y FROM ({SLOW.replace('count(*)', 'x AS y')})"):
        monkeypatch.setattr(own_sql._Rules, "late", looks)
        stream = f"run:{len(statement)}"
        results = await asyncio.gather(
            begin(store, f"{stream} before"),
            store.commit(step(stream, NEW, event(), transaction=executes(statement))),
            store.commit(step(f"{stream} behind", NEW, event())),
            return_exceptions=True,
        )
        monkeypatch.undo()
        assert isinstance(results[1], TransactionRefused), results[1]
        assert f"{TRANSACTION_SECONDS_MAX:g} seconds" in str(results[1])
        assert results[1].statement == statement
        assert isinstance(results[2], StreamHead)
        assert await history(store, f"{stream} before") == ["begun"]
        assert await own(store, executes("SELECT * FROM mine")) == "[]"


async def test_time_outside_of_statements_counts(path: Path, opened: Opener) -> None:
    """Before a statement, behind the last, and also when the function takes no notice of what it was told."""
    clock = TurnedClock()
    store = await opened(clock=clock)
    await with_table(store)

    def dawdles(transaction: Transaction) -> bytes:
        transaction.execute("INSERT INTO mine VALUES ('never', 1)")
        clock.let_pass(TRANSACTION_SECONDS_MAX)
        return b""

    def goes_on(transaction: Transaction) -> bytes:
        dawdles(transaction)
        with pytest.raises(TransactionRefused, match="seconds"):
            transaction.execute("SELECT 1")
        return b""

    for function in (dawdles, goes_on):
        with pytest.raises(TransactionRefused, match="seconds"):
            await own(store, function)
    assert await own(store, executes("SELECT * FROM mine")) == "[]"


@pytest.mark.parametrize("catches", [False, True])
async def test_one_that_loses_the_transaction_is_refused_alone(store: SqliteStore, catches: bool) -> None:
    """ON CONFLICT ROLLBACK throws everything away: the batch is done over without it, and what follows it is refused."""
    await with_table(store)
    await own(store, executes("INSERT INTO mine VALUES ('there', 1)"))
    calls: list[str] = []

    def loses(transaction: Transaction) -> bytes:
        calls.append("loses")
        try:
            transaction.execute("INSERT OR ROLLBACK INTO mine VALUES ('there', 2)")
        except sqlite3.IntegrityError:
            if not catches:
                raise
        with pytest.raises(TransactionRefused, match="ended the transaction"):
            transaction.execute("INSERT INTO mine VALUES ('outside of any transaction', 3)")
        return b""

    def counts(transaction: Transaction) -> bytes:
        calls.append("counts")
        transaction.execute("INSERT INTO mine VALUES ('counted', 4)")
        return b""

    async def lease() -> int:
        async with store.lease("worker") as lease:
            await begin(store, "run:leased", lease=lease)
            return lease.token

    results = await asyncio.gather(
        store.commit(step("run:a", NEW, event(), transaction=counts)),
        lease(),
        store.commit(step("run:b", NEW, event(), transaction=loses)),
        store.commit(step("run:a", 1, event())),
        return_exceptions=True,
    )
    assert isinstance(results[2], TransactionRefused if catches else sqlite3.IntegrityError), results[2]
    assert [isinstance(result, StreamHead) for result in results] == [True, False, False, True]
    assert isinstance(results[1], int)
    assert calls == ["counts", "loses", "counts"]
    assert await own(store, executes("SELECT name FROM mine ORDER BY number")) == "[('there',), ('counted',)]"
    assert (await store.head("run:a")).version == 2


async def test_errors_come_out_as_they_are(store: SqliteStore) -> None:
    await with_table(store)
    await own(store, executes("INSERT INTO mine VALUES ('there', 1)"))
    for statements, error in (
        (("INSERT INTO mine VALUES ('there', 2)",), sqlite3.IntegrityError),
        (("no SQL",), sqlite3.OperationalError),
        (("SELECT 1; SELECT 2",), sqlite3.Error),
        (("SELECT ?",), sqlite3.Error),
        (("VACUUM",), sqlite3.OperationalError),
    ):
        with pytest.raises(error):
            await own(store, executes("INSERT INTO mine VALUES ('never', 9)", *statements))
    assert await own(store, executes("SELECT * FROM mine")) == "[('there', 1)]"


async def test_rows_that_fail_on_their_way_are_all_undone(store: SqliteStore) -> None:
    await with_table(store)

    def rows() -> Iterator[tuple[str, int]]:
        yield "never", 1
        raise LookupError("by the rows")

    def writes(transaction: Transaction) -> bytes:
        transaction.executemany("INSERT INTO mine VALUES (?, ?)", rows())
        return b""

    with pytest.raises(LookupError):
        await own(store, writes)
    assert await own(store, executes("SELECT * FROM mine")) == "[]"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
async def test_errors_that_no_future_should_hold_are_causes(
    opened: Opener, error: BaseException, writes_on: WritesOn
) -> None:
    if isinstance(error, KeyboardInterrupt):  # on the loop it would be a Ctrl-C: see test_writing_on_the_loop.py
        writes_on = "thread"
    store = await opened(writes_on=writes_on)

    def fails(_: Transaction) -> bytes:
        raise error

    with pytest.raises(TransactionRefused) as refusal:
        await own(store, fails)
    assert refusal.value.__cause__ is error
    await begin(store, "run:a")


async def test_an_error_of_the_medium_poisons_whoever_catches_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_table(store)
    monkeypatch.setattr(own_sql, "poisons", lambda error: isinstance(error, sqlite3.IntegrityError))
    monkeypatch.setattr(
        "eventstore.sqlite.transaction.poisons", lambda error: isinstance(error, sqlite3.IntegrityError)
    )

    def catches(transaction: Transaction) -> bytes:
        for _ in range(2):
            try:
                transaction.execute("INSERT INTO mine VALUES ('twice', 1)")
            except sqlite3.IntegrityError:
                return b"nothing has happened"
        return b""

    with pytest.raises(StoreUnavailable):
        await own(store, catches)
    with pytest.raises(StoreUnavailable):
        await begin(store, "run:a")


async def test_another_thread_has_no_use_for_the_handle(store: SqliteStore) -> None:
    def hands_on(transaction: Transaction) -> bytes:
        def elsewhere() -> bytes:
            with pytest.raises(TransactionRefused, match="for the thread that the function runs on"):
                transaction.execute("SELECT 1")
            return b"refused"

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(elsewhere).result()

    assert await own(store, hands_on) == "refused"


async def test_a_commit_without_one_pays_nothing_for_it(store: SqliteStore) -> None:
    await with_table(store)
    await begin(store, "run:a")
    seen = await traced(store)
    await store.commit(step("run:a", 1, event()))
    assert [sql.split()[0] for sql in seen] == ["BEGIN", "PRAGMA", "INSERT", "UPDATE", "COMMIT"]


KILLED = """
import eventstore.sqlite.guard as guard

async def main():
    path, when = sys.argv[1:]
    store = await SqliteStore.open(path)

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def write(transaction):
        transaction.execute("INSERT INTO mine VALUES ('once')")
        if when == "inside":
            die()
        return b"written"

    if when == "before":
        def look(sql):
            if sql == "COMMIT":
                die()
        from eventstore.sqlite.threads import on_thread
        await on_thread(store._writer._connection,
                        lambda: store._transactor._connection.set_trace_callback(look))
    if when == "behind":
        guard.Identity.verify = die
    await store.commit(Commit(id="the one", stream="run:a", expected_version=NEW, events=(event("written"),),
                              transaction=write))

asyncio.run(main())
"""


@pytest.mark.parametrize(("when", "there"), [("inside", False), ("before", False), ("behind", True)])
async def test_killed_around_the_commit_the_rows_and_the_event_are_both_there_or_neither(
    path: Path, opened: Opener, when: str, there: bool
) -> None:
    store = await opened()
    await own(store, executes("CREATE TABLE mine (name TEXT)"))
    await store.aclose()
    async with child(KILLED, path, when) as killed:
        await killed.process.wait()
        assert killed.process.returncode == -9
    store = await opened()
    rows = await own(store, executes("SELECT * FROM mine"))
    assert rows == ("[('once',)]" if there else "[]")
    assert len((await store.find(StreamQuery(category="run"))).items) == there
    last = step("run:a", NEW, event("written"), id="the one", transaction=executes("INSERT INTO mine VALUES ('once')"))
    assert (await store.commit(last)).version == 1
    assert await own(store, executes("SELECT * FROM mine")) == "[('once',)]"
    assert await history(store, "run:a") == ["written"]


# Canaries: with one of these bugs planted, the checks of the suite that are named for it fail.


def _without_a_savepoint(sql: OwnSql, commit: Any) -> bytes:
    handle = own_sql._Handle(sql._connection, own_sql._Rules(sql._clock), commit.stream)
    try:
        return commit.transaction(handle)
    except Exception as error:
        raise own_sql.NotApplied(error) from error


def _for_ever(handle: own_sql._Handle) -> None:
    """The handle that never ends."""


_answer = Transactor._answer


def _before_it_looks(transactor: Transactor, connection: Any, batch: Any, request: Any, *rest: Any) -> Any:
    commit = getattr(request, "commit", None)
    if commit is not None and commit.transaction is not None:
        try:
            payload = batch._run_own(commit)
        except own_sql.NotApplied as refusal:
            return refusal.error
        request = request.with_payload(payload)
        request = replace(request, commit=replace(request.commit, transaction=None))
    return _answer(transactor, connection, batch, request, *rest)


@pytest.mark.parametrize(
    ("target", "planted", "check"),
    [
        ((OwnSql, "run"), _without_a_savepoint, "transactions.a_failure_refuses_that_commit_alone"),
        ((own_sql._Handle, "end"), _for_ever, "transactions.the_handle_ends_with_the_function"),
        ((Transactor, "_answer"), _before_it_looks, "transactions.a_repeated_commit_does_not_run_it_again"),
        ((Transactor, "_answer"), _before_it_looks, "transactions.a_commit_that_is_refused_anyway_does_not_call_it"),
    ],
)
async def test_the_suite_finds_a_planted_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: tuple[type, str], planted: Any, check: str
) -> None:
    (wanted,) = [one for one in CHECKS if name_of(one) == check]
    monkeypatch.setattr(*target, planted)
    harness = SqliteHarness(tmp_path, "loop")
    try:
        with pytest.raises((AssertionError, sqlite3.Error)):
            await wanted(harness)
    finally:
        await harness.aclose()
