"""Tasks whose own SQL commits together with the record that they are done: what their authors see."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

import eventstore
from engine import Engine, Task, Transaction, attempt, task, workflow
from engine.core.events import AttemptFailed, RunSuspended, TaskCompleted, TaskScheduled, TaskStarted
from engine.errors import DefinitionError, HoldfastError, RunFailedError, RunSuspendedError, TaskError
from engine.runtime.transacting import TRANSACTIONS_AT_ONCE
from engine.tasks import TaskOptions, TransactionalTask
from tests.runtime.invariants import check_store
from tests.runtime.ledgers import ledger, write
from tests.runtime.worlds import MemoryWorld, SqliteWorld, events_of, kinds_of, settle, soon, until

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    calls.clear()


@task(effect="transactional")
def book(tx: Transaction, name: str) -> str:
    calls.append(name)
    return write(tx, name)


@task
async def plain(name: str) -> str:
    return name


@workflow
async def shop() -> list[str]:
    first = await book("a")
    return [first, await plain("b"), *await asyncio.gather(book("c"), plain("d"), book("e"))]


async def test_its_rows_and_its_completion_are_there(sqlite: SqliteWorld) -> None:
    async with sqlite.engine(shop) as engine:
        run = await engine.start(shop(), id="a")
        assert await soon(run.result()) == ["a by attempt 1", "b", "c by attempt 1", "d", "e by attempt 1"]
        assert ledger(sqlite) == [("a", 1), ("c", 1), ("e", 1)]
        await check_store(engine.store, shop)
        events = await events_of(run)
        assert (await engine.store.head("run:a")).owner is None  # nothing of it was under way when its end was written
    assert [type(event) for event in events[1:6]] == [
        TaskScheduled,
        TaskStarted,
        TaskCompleted,
        TaskScheduled,
        TaskStarted,
    ]
    assert [event.executor for event in events if isinstance(event, TaskStarted)].count("transactions") == 3
    assert sorted(calls) == ["a", "c", "e"]


async def test_it_reads_what_it_wrote_and_returns_what_it_found(sqlite: SqliteWorld) -> None:
    @task(effect="transactional")
    def add(tx: Transaction, *amounts: int, note: str = "") -> dict[str, int]:
        tx.execute("CREATE TABLE IF NOT EXISTS amounts (amount INT, note TEXT)")
        tx.executemany("INSERT INTO amounts VALUES (?, ?)", [(amount, note) for amount in amounts])
        ((total,),) = tx.execute("SELECT sum(amount) FROM amounts WHERE note = :note", {"note": note})
        return {note: total}

    @workflow
    async def adding() -> list[dict[str, int]]:
        return [await add(1, 2, note="x"), await add(3), await add(4, note="x")]

    async with sqlite.engine(adding) as engine:
        assert await soon((await engine.start(adding(), id="a")).result()) == [{"x": 3}, {"": 3}, {"x": 7}]


async def test_a_failure_undoes_it_and_is_retried_as_the_task_says(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(3), wait=wait_fixed(60))
    def book(tx: Transaction, name: str) -> str:
        found = write(tx, name)
        failure = attempt().last_failure
        calls.append(None if failure is None else failure.message)
        if attempt().number < 3:
            raise ConnectionError(f"attempt {attempt().number}")
        return found

    @workflow
    async def retried() -> str:
        return await book("a")

    async with sqlite.engine(retried) as engine:
        run = await engine.start(retried(), id="a")
        for number in (1, 2):
            await until(lambda number=number: len(calls) == number)
            assert ledger(sqlite) == []
            await until_waits(run, number)
            sqlite.clock.advance(60)
        assert await soon(run.result()) == "a by attempt 3"
        assert ledger(sqlite) == [("a", 3)]
        assert calls == [None, "attempt 1", "attempt 2"]
        failed = [event for event in await events_of(run) if isinstance(event, AttemptFailed)]
        assert [(event.attempt, event.error) for event in failed] == [(1, "ConnectionError"), (2, "ConnectionError")]
        await check_store(engine.store, retried)


async def until_waits(run: Any, failures: int) -> None:
    async with asyncio.timeout(30):
        while sum(isinstance(event, AttemptFailed) for event in await events_of(run)) < failures:
            await asyncio.sleep(0.002)
    await settle()


async def test_the_wait_for_a_retry_survives_a_restart(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(3), wait=wait_fixed(60))
    def book(tx: Transaction, name: str) -> str:
        calls.append(attempt().number)
        if attempt().number == 1:
            raise ConnectionError
        return write(tx, name)

    @workflow
    async def retried() -> str:
        return await book("a")

    async with sqlite.engine(retried) as engine:
        await until_waits(await engine.start(retried(), id="a"), 1)
    async with sqlite.engine(retried) as engine:
        await settle()
        assert calls == [1]
        sqlite.clock.advance(60)
        assert await soon(engine.run("a").result()) == "a by attempt 2"
    assert ledger(sqlite) == [("a", 2)]


async def test_the_database_s_own_errors_are_the_task_s(sqlite: SqliteWorld) -> None:
    def insert(tx: Transaction, name: str) -> None:
        tx.execute("CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY)")
        tx.execute("INSERT INTO names VALUES (?)", (name,))

    known = task(effect="transactional", name="known", raises=(sqlite3.IntegrityError,))(insert)
    unknown = task(effect="transactional", name="unknown")(insert)

    @workflow
    async def twice() -> list[str]:
        await known("a")
        said = []
        for each in (known, unknown):
            try:
                await each("a")
            except (sqlite3.IntegrityError, TaskError) as error:
                said.append(f"{type(error).__name__}: {error}")
        return said

    async with sqlite.engine(twice) as engine:
        assert await soon((await engine.start(twice(), id="a")).result()) == [
            "IntegrityError: UNIQUE constraint failed: names.name",
            "TaskError: sqlite3.IntegrityError: UNIQUE constraint failed: names.name",
        ]


async def test_a_result_that_cannot_be_recorded_fails_at_once_and_undoes_it(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(5))
    def book(tx: Transaction, name: str) -> int:
        calls.append(name)
        return write(tx, name)  # type: ignore[return-value] # as a caller without a type checker would

    @workflow
    async def wrong() -> int:
        return await book("a")

    async with sqlite.engine(wrong) as engine:
        with pytest.raises(
            RunFailedError, match="the result of task 'book' is annotated int, but the value does not fit"
        ):
            await soon((await engine.start(wrong(), id="a")).result())
    assert ledger(sqlite) == []
    assert calls == ["a"]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT * FROM events", "events is a table of the store's"),
        ("COMMIT", "a transaction reads and writes tables of its own"),
        ("", "it took longer than 5 seconds"),
    ],
)
async def test_what_it_may_not_do_is_a_failure_that_says_so(statement: str, reason: str, sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(2))
    def book(tx: Transaction, name: str) -> str:
        calls.append(name)
        found = write(tx, name)
        if statement:
            tx.execute(statement)
        else:
            sqlite.clock.advance(6)
        return found

    @workflow
    async def wrong() -> str:
        return await book("a")

    async with sqlite.engine(wrong) as engine:
        with pytest.raises(RunFailedError, match="TransactionRefused") as failure:
            await soon((await engine.start(wrong(), id="a")).result())
        assert reason in str(failure.value)
    assert ledger(sqlite) == []
    assert calls == ["a", "a"]


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, GeneratorExit, StopIteration])
async def test_whatever_it_raises_is_its_failure_and_no_other_s(error: Any, sqlite: SqliteWorld) -> None:
    @task(effect="transactional")
    def leave(tx: Transaction) -> str:
        write(tx, "left")
        raise error("now")

    @workflow
    async def leaving() -> str:
        done = await asyncio.gather(leave(), book("beside"), return_exceptions=True)
        return f"{done[0]!r}, {done[1]}"

    async with sqlite.engine(leaving, shop) as engine:
        said = await soon((await engine.start(leaving(), id="a")).result())
        assert error.__name__ in said
        assert "now" in said
        assert said.endswith(", beside by attempt 1")
        await soon((await engine.start(shop(), id="b")).result())
        await check_store(engine.store, leaving, shop)
    assert "left" not in dict(ledger(sqlite))


async def test_a_traceback_is_of_the_task_s_code(sqlite: SqliteWorld) -> None:
    @task(effect="transactional")
    def fail(tx: Transaction) -> None:
        raise ValueError("here")

    @workflow
    async def failing() -> None:
        await fail()

    async with sqlite.engine(failing) as engine:
        with pytest.raises(RunFailedError):
            await soon((await engine.start(failing(), id="a")).result())
        failed = (await engine.run("a").state()).tasks["failing/fail#1"]
        assert failed.error is not None
        assert 'raise ValueError("here")' in failed.error.traceback
        assert "eventstore" not in failed.error.traceback


async def test_more_than_there_are_slots_fail_and_are_tried_again(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(3))
    def book(tx: Transaction, n: int) -> int:
        write(tx, str(n))
        if attempt().number < 3:
            raise ConnectionError
        return n

    @workflow
    async def many() -> int:
        return sum(await asyncio.gather(*(book(n) for n in range(3 * TRANSACTIONS_AT_ONCE))))

    async with sqlite.engine(many) as engine:
        run = await engine.start(many(), id="a")
        assert await soon(run.result()) == sum(range(3 * TRANSACTIONS_AT_ONCE))
        await check_store(engine.store, many)
    assert len(ledger(sqlite)) == 3 * TRANSACTIONS_AT_ONCE


async def test_it_cannot_be_handed_out(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", stop=stop_after_attempt(3))
    def hand_out(tx: Transaction) -> str:
        calls.append(attempt().token)
        write(tx, "never")
        attempt().later()

    @workflow
    async def handing() -> str:
        return await hand_out()

    async with sqlite.engine(handing) as engine:
        with pytest.raises(RunFailedError, match=r"called attempt\(\).later\(\): what it wrote was undone"):
            await soon((await engine.start(handing(), id="a")).result())
    assert (ledger(sqlite), len(calls)) == ([], 1)


async def test_a_deadline_that_has_passed_begins_nothing(sqlite: SqliteWorld) -> None:
    @task(effect="transactional", deadline=100, stop=stop_after_attempt(9), wait=wait_fixed(60))
    def book(tx: Transaction) -> str:
        calls.append(attempt().number)
        write(tx, "never")
        if attempt().number == 1:
            raise ConnectionError
        return "late"

    @workflow
    async def late() -> str:
        return await book()

    async with sqlite.engine(late) as engine:
        await until_waits(await engine.start(late(), id="a"), 1)
    sqlite.clock.advance(101)
    async with sqlite.engine(late) as engine:
        with pytest.raises(RunFailedError, match="was not done within its deadline of 100 s"):
            await soon(engine.run("a").result())
    assert (ledger(sqlite), calls) == ([], [1])


async def test_a_turn_behind_it_that_does_not_end_suspends_the_run_and_it_is_not_run_again(sqlite: SqliteWorld) -> None:
    spin = True

    @workflow(name="spinning")
    async def spinning() -> str:
        found = await book("a")
        while spin:
            await asyncio.sleep(0)
        return found

    async with sqlite.engine(spinning) as engine:
        run = await engine.start(spinning(), id="a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        events = await events_of(run)
        assert [type(event) for event in events[-2:]] == [TaskCompleted, RunSuspended]
        diagnosis = (await run.state()).diagnosis
        assert diagnosis is not None
        assert diagnosis.version == len(events) - 1
        spin = False
        await run.resume()
        assert await soon(run.result()) == "a by attempt 1"
        await check_store(engine.store, spinning)
    assert ledger(sqlite) == [("a", 1)]


async def test_continuing_as_new_behind_it(sqlite: SqliteWorld) -> None:
    from engine import durable

    @workflow(name="rounds")
    async def rounds(n: int) -> str:
        await asyncio.gather(*(book(f"{n}{letter}") for letter in "abc"))
        if n < 3:
            await durable.continue_as_new(rounds(n + 1))
        return "done"

    async with sqlite.engine(rounds) as engine:
        assert await soon((await engine.start(rounds(1), id="a")).result()) == "done"
        await check_store(engine.store, rounds)
    assert [name for name, _ in ledger(sqlite)] == [f"{n}{letter}" for n in (1, 2, 3) for letter in "abc"]


async def test_what_decides_nothing_costs_no_commit_of_its_own(sqlite: SqliteWorld) -> None:
    """A commit for the start, one for each transaction, and the one that ends the run."""
    from tests.runtime.faulty import FaultyStore

    @workflow
    async def all_at_once() -> int:
        return len(await asyncio.gather(*(book(str(n)) for n in range(10))))

    inner = await sqlite.store()
    store = FaultyStore(inner)
    async with Engine(store, workflows=[all_at_once], clock=sqlite.clock) as engine:
        before = store.calls.count("commit")
        assert await soon((await engine.start(all_at_once(), id="a")).result()) == 10
        assert store.calls.count("commit") - before == 12


# -- what there is no transaction for ---------------------------------------------------------------------------------


async def test_a_store_that_has_none_is_refused_when_the_engine_is_opened(memory: MemoryWorld) -> None:
    with pytest.raises(DefinitionError, match=r"task 'book' has effect='transactional', .* capability 'transaction'"):
        async with memory.engine(shop):
            raise AssertionError("it was opened")
    async with memory.engine() as engine:  # a client needs none
        assert await engine.store.find(eventstore.StreamQuery())


async def test_and_a_task_that_is_only_found_then_when_it_is_called(memory: MemoryWorld) -> None:
    @workflow
    async def hidden() -> str:
        return str(await inspect.getattr_static(Holder, "made")("a"))

    class Holder:
        made = book

    async with memory.engine(hidden) as engine:
        with pytest.raises(RunFailedError, match="give the engine a SqliteStore on a temporary file"):
            await soon((await engine.start(hidden(), id="a")).result())
        assert await kinds_of(engine.run("a")) == [
            "RunStarted",
            "TaskScheduled",
            "TaskStarted",
            "TaskFailed",
            "RunFailed",
        ]
    assert calls == []


async def test_outside_a_workflow_there_is_none() -> None:
    with pytest.raises(HoldfastError, match=r"call `book.fn\(tx, ...\)` with one of your own"):
        await book("a")


def test_the_function_itself_takes_one() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def execute(self, sql: str, parameters: Any = (), /) -> list[tuple[Any, ...]]:
            self.said.append((sql, parameters))
            return [(7,)]

        def executemany(self, sql: str, rows: Any, /) -> None:
            raise NotImplementedError

    @task(effect="transactional")
    def count(tx: Transaction, name: str) -> int:
        return int(tx.execute("SELECT count(*) FROM ledger WHERE name = ?", (name,))[0][0])

    tx = Recorder()
    assert count.fn(tx, "a") == 7
    assert tx.said == [("SELECT count(*) FROM ledger WHERE name = ?", ("a",))]


def test_both_sides_mean_the_same_by_a_transaction() -> None:
    for name in ("execute", "executemany"):
        ours, theirs = (inspect.signature(getattr(each, name)) for each in (Transaction, eventstore.Transaction))
        assert ours == theirs
    assert {name for name in vars(eventstore.Transaction) if not name.startswith("_")} == {"execute", "executemany"}


# -- definitions ------------------------------------------------------------------------------------------------------


def test_calls_are_made_without_it() -> None:
    assert str(inspect.signature(book)) == "(name: 'str') -> 'str'"
    assert [parameter.name for parameter in book.arguments.parameters] == ["name"]
    with pytest.raises(TypeError, match=r"its signature is \(name: 'str'\)"):
        book(object(), "a")  # type: ignore[arg-type, call-arg]
    call = book("a")
    call.take()
    assert (call.args, book.on_cancel, book.executor) == (("a",), "abandon", "transactions")


def test_what_cannot_be_is_refused() -> None:
    def fine(tx: Transaction, name: str) -> str: ...

    async def waits(tx: Transaction, name: str) -> str: ...

    def nothing() -> str: ...

    def named(*, tx: Transaction) -> str: ...

    def many(*tx: Any) -> str: ...

    for fn, options, words in (
        (waits, {}, "is an `async def`: effect='transactional' takes a plain `def`"),
        (
            nothing,
            {},
            r"its first parameter is the transaction, and it has none: `def nothing\(tx: Transaction, ...\)`",
        ),
        (named, {}, "it has none"),
        (many, {}, "it has none"),
        (fine, {"executor": "threads"}, "takes no executor: it runs where the store writes"),
        (fine, {"reconcile": nothing}, "takes no reconcile: nobody needs to ask"),
        (fine, {"timeout": 3}, "takes no timeout: every commit waits while it runs"),
        (fine, {"heartbeat_timeout": 3}, "takes no heartbeat_timeout"),
        (fine, {"deadline": 0}, "deadline must be a number of seconds above 0"),
    ):
        with pytest.raises(DefinitionError, match=words):
            task(effect="transactional", **options)(fn)  # type: ignore[call-overload]


def test_what_the_function_is_given_is_no_option_of_a_call() -> None:
    with pytest.raises(DefinitionError, match="stands in @task, and in no options"):
        plain.options(effect="transactional")
    with pytest.raises(DefinitionError, match="stands in @task, and in no options"):
        book.options(effect="idempotent")
    with pytest.raises(DefinitionError, match="stands in @task, and in no options"):
        Task(write, options=TaskOptions(effect="transactional"))
    changed = book.options(deadline=5, on_cancel="wait")
    assert isinstance(changed, TransactionalTask)
    assert (changed.policy.deadline, changed.on_cancel, changed.executor) == (5, "wait", "transactions")
    with pytest.raises(DefinitionError, match="takes no timeout"):
        book.options(timeout=5)


def test_a_first_parameter_that_is_something_else_is_noticed_when_the_engine_is_made() -> None:
    @task(effect="transactional")
    def forgot(name: str) -> str: ...  # type: ignore[arg-type]

    @workflow
    async def forgetful() -> str:
        return await forgot()

    with pytest.raises(DefinitionError, match=r"and not `name: str`. Put `tx: Transaction` before it"):
        Engine("sqlite:///never.db", workflows=[forgetful])


def test_another_task_does_not_run_there() -> None:
    @task(executor="transactions")
    def elsewhere(name: str) -> str: ...

    @workflow
    async def wrong() -> str:
        return await elsewhere("a")

    with pytest.raises(DefinitionError, match="say effect='transactional'"):
        Engine("sqlite:///never.db", workflows=[wrong])
