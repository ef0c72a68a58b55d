"""Transactional tasks while something else happens: crashes, faults, takeovers, cancellations, pauses, mail, each other.

What must hold each time: a row is in the ledger exactly when its task's completion is in the history, and once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Signal, Transaction, attempt, task, workflow
from engine.core.events import (
    CancelRequested,
    RunPaused,
    SignalIgnored,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
)
from engine.core.lineage import idempotency_key
from engine.errors import EngineFailed, RunCancelledError
from eventstore import StoreUnavailable
from tests.runtime.faulty import Fault, FaultyStore, at_call
from tests.runtime.invariants import check_store
from tests.runtime.ledgers import entries, is_own_sql, ledger, own_sql_of, write
from tests.runtime.slices import numbers
from tests.runtime.test_races import Pause
from tests.runtime.worlds import SqliteWorld, events_of, result_of, settle, soon, until, until_async

CALLS_MAX = 200
word = Signal("word", str)
failures: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_failed() -> None:
    failures.clear()


@task(effect="transactional")
def book(tx: Transaction, name: str) -> str:
    return write(tx, name).partition(" ")[0]


@task(effect="transactional", on_cancel="wait")
def book_and_wait(tx: Transaction, name: str) -> str:
    return write(tx, name).partition(" ")[0]


@task(effect="transactional", stop=stop_after_attempt(9), wait=wait_fixed(1))
def book_at_last(tx: Transaction, name: str, fails: int) -> str:
    found = write(tx, name)
    failures[name] += 1
    if failures[name] <= fails:
        raise ConnectionError(name)
    return found.partition(" ")[0]


@task
async def beside(name: str) -> str:
    await asyncio.sleep(0)
    return name


@workflow
async def shop() -> list[str]:
    found = [await book("a"), await beside("x"), await book("b")]
    found += await asyncio.gather(book("c"), book_at_last("d", 1), beside("y"), book("e"))
    return [*found, await book("z")]


EXPECTED = ["a", "x", "b", "c", "d", "y", "e", "z"]
BOOKED = ["a", "b", "c", "d", "e", "z"]


@asynccontextmanager
async def passing_time(world: SqliteWorld) -> AsyncIterator[None]:
    async def turn() -> None:
        while True:
            await asyncio.sleep(0.001)
            world.clock.advance(0.5)

    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        await asyncio.wait([turning])


async def perform(world: SqliteWorld, plan: Any) -> FaultyStore:
    """Act until the planned fault, or the end."""
    inner = await world.store()
    store = FaultyStore(inner, plan)
    try:
        async with Engine(store, workflows=[shop], clock=world.clock, grace=0) as engine, passing_time(world):
            run = await soon(engine.start(shop(), id="a"))
            assert await soon(result_of(run)) == EXPECTED
    except (StoreUnavailable, EngineFailed):
        assert store.faults
    await world.release(inner)
    return store


async def check(world: SqliteWorld) -> None:
    """The ledger and the histories agree."""
    store = await world.store()
    await check_store(store, shop)
    async with Engine(store) as engine:
        events = await events_of(engine.run("a"))
    await world.release(store)
    done = [event for event in events if isinstance(event, TaskCompleted)]
    assert [name for name, _ in ledger(world)] == BOOKED
    keys = {idempotency_key("a", 0, event.id): event.attempt for event in done}
    for name, number, key in entries(world):
        assert keys[key] == number, f"{name} was written by another attempt than the one that is recorded"


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
async def test_a_crash_at_every_call_changes_nothing(fault: Fault, worlds: Any) -> None:
    for number in numbers(CALLS_MAX, offset=len(fault)):
        failures.clear()
        world = worlds("sqlite")
        store = await perform(world, at_call(number, fault))
        await perform(world, lambda _number, _name: None)
        await check(world)
        if not store.faults:
            break
    else:
        pytest.fail(f"it makes more than {CALLS_MAX} calls")
    assert number > 15


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
async def test_a_crash_at_every_transaction_changes_nothing(fault: Fault, worlds: Any) -> None:
    """A reply that was lost, above all: the commit is there, and nobody was told."""
    found = 0
    for number in range(1, len(BOOKED) + 2):
        failures.clear()
        world = worlds("sqlite")
        seen = 0
        inner = await world.store()
        store = FaultyStore(inner)
        commit = store.commit

        async def count(argument: Any, number: int = number, store: FaultyStore = store, commit: Any = commit) -> Any:
            nonlocal seen
            seen += argument.transaction is not None
            if seen == number and argument.transaction is not None:
                store.plan = lambda _number, name: fault if name == "commit" else None
            try:
                return await commit(argument)
            finally:
                store.plan = lambda _number, _name: None

        store.commit = count  # type: ignore[method-assign]
        try:
            async with Engine(store, workflows=[shop], clock=world.clock, grace=0) as engine, passing_time(world):
                await soon(result_of(await soon(engine.start(shop(), id="a"))))
        except (StoreUnavailable, EngineFailed):
            assert store.faults
        await world.release(inner)
        found += store.faults
        await perform(world, lambda _number, _name: None)
        await check(world)
    assert found >= len(BOOKED)


async def test_many_runs_write_one_table(sqlite: SqliteWorld) -> None:
    """Their transactions share the store's: each is there once, and sees what was written before it."""

    @task(effect="transactional")
    def add(tx: Transaction) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS total (n INT)")
        ((before,),) = tx.execute("SELECT count(*) FROM total")
        tx.execute("INSERT INTO total VALUES (?)", (before,))
        return int(before)

    @workflow
    async def adding(n: int) -> list[int]:
        return [await add(), *await asyncio.gather(*(add() for _ in range(4)))]

    async with sqlite.engine(adding) as one, sqlite.engine(adding) as two:
        handles = [await (one if n % 2 else two).start(adding(n), id=f"run-{n}") for n in range(30)]
        found = [number for handle in handles for number in await soon(handle.result())]
        assert sorted(found) == list(range(150))
        await check_store(one.store, adding)


async def test_one_that_fails_harms_no_other_though_it_costs_their_transaction(sqlite: SqliteWorld) -> None:
    """ON CONFLICT ROLLBACK throws the store's whole transaction away: the others of the batch are called once more."""
    gate, calls = threading.Event(), Counter[str]()
    waiting, together = 0, asyncio.Event()

    async def gather(name: str, argument: Any) -> None:
        nonlocal waiting
        if is_own_sql(name, argument) and argument.stream != "run:hold":
            waiting += 1
            await together.wait()

    @task(effect="transactional")
    def only(tx: Transaction, name: str) -> str:
        calls[name] += 1
        if name == "hold":
            tx.execute("CREATE TABLE names (name TEXT PRIMARY KEY)")
            assert gate.wait(30)
        tx.execute("INSERT OR ROLLBACK INTO names VALUES (?)", (name.partition(" ")[0],))
        return f"{name} {attempt().number} {calls[name]}"

    @workflow
    async def one(name: str) -> str:
        try:
            return await only(name)
        except Exception as error:
            return f"{name} failed: {error}"

    inner = await sqlite.store()
    store = FaultyStore(inner)
    store.before = gather
    async with Engine(store, workflows=[one], clock=sqlite.clock) as engine:
        runs = [await engine.start(one(name), id=name.replace(" ", "-")) for name in ("a", "hold again", "b", "c")]
        await until(lambda: waiting == 4)
        hold = await engine.start(one("hold"), id="hold")
        await until(lambda: calls["hold"])
        together.set()  # while the store is busy they come to be one batch
        await settle()
        gate.set()
        assert await soon(hold.result()) == "hold 1 1"
        a, again, b, c = [await soon(run.result()) for run in runs]
        assert again == "hold again failed: sqlite3.IntegrityError: UNIQUE constraint failed: names.name"
        # What counts is the last call of each, whose effects are those that stayed.
        assert calls == {"hold": 1, "a": 2, "hold again": 1, "b": 1, "c": 1}
        assert [a, b, c] == ["a 1 2", "b 1 1", "c 1 1"]
        await check_store(engine.store, one)
        for run in runs:
            starts = [event for event in await events_of(run) if isinstance(event, TaskStarted)]
            assert [event.attempt for event in starts] == [1]
    await sqlite.release(inner)
    with closing(sqlite3.connect(f"file:{sqlite.path}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM names ORDER BY name")]
    assert names == ["a", "b", "c", "hold"]


# -- cancelling -------------------------------------------------------------------------------------------------------


@workflow
async def two(wait: bool) -> list[str]:
    """Two transactions: while the first commits, the second waits its turn."""
    which = book_and_wait if wait else book
    found: list[str] = []

    async def one(name: str) -> None:
        try:
            found.append(await which(name))
        except asyncio.CancelledError:
            found.append(f"not {name}")
            raise

    try:
        await asyncio.gather(one("first"), one("second"))
    finally:
        found.append(await beside("cleaned up"))
        await book(" ".join(found))
    return found


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("behind", [True, False])
async def test_cancelled_while_one_commits_and_another_waits(behind: bool, wait: bool, sqlite: SqliteWorld) -> None:
    """The one under way is completed; the one that waits never runs, and nobody need ask whether it did."""
    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=behind, when=own_sql_of(f"two/one~1/{'book_and_wait' if wait else 'book'}#1"))
    async with Engine(store, workflows=[two], clock=sqlite.clock) as engine:
        run = await engine.start(two(wait), id="a")
        await soon(pause.reached.wait())
        await run.cancel()
        await until_taken(engine, "a")
        pause.let_go.set()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        events = await events_of(run)
        await check_store(engine.store, two)
    await sqlite.release(inner)
    assert [name for name, _ in ledger(sqlite)] == ["first", "first not second cleaned up"]
    first = next(n for n, event in enumerate(events) if isinstance(event, TaskCompleted))
    asked = next(n for n, event in enumerate(events) if isinstance(event, CancelRequested))
    assert first < asked
    assert sum(isinstance(event, TaskFailed) for event in events) == (1 if wait else 0)


async def test_cancelled_while_one_fails_and_another_waits(sqlite: SqliteWorld) -> None:
    """What has arrived meanwhile is looked at before the next one."""

    @workflow
    async def both() -> str:
        await asyncio.gather(book_at_last("first", 9), book("second"))
        return "never"

    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=False, when=own_sql_of("both/book_at_last~1/book_at_last#1"))
    async with Engine(store, workflows=[both], clock=sqlite.clock) as engine:
        run = await engine.start(both(), id="a")
        await soon(pause.reached.wait())
        await run.cancel()
        await until_taken(engine, "a")
        pause.let_go.set()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        await check_store(engine.store, both)
    await sqlite.release(inner)
    assert ledger(sqlite) == []


async def until_taken(engine: Engine, run_id: str) -> None:
    """Until the worker has the mail of a run that it is writing."""
    assert engine._worker is not None
    driver = engine._worker.residents.drivers[run_id]
    await until(lambda: driver.intake)


async def test_a_timeout_around_one_that_waits_for_its_retry(sqlite: SqliteWorld) -> None:
    @workflow
    async def timed() -> str:
        try:
            async with asyncio.timeout(30):
                return await book_slowly("a")
        except TimeoutError:
            return "timed out"

    @task(effect="transactional", stop=stop_after_attempt(9), wait=wait_fixed(60))
    def book_slowly(tx: Transaction, name: str) -> str:
        write(tx, name)
        raise ConnectionError

    async with sqlite.engine(timed) as engine:
        run = await engine.start(timed(), id="a")
        await until_async(lambda: failed_once(run))
        sqlite.clock.advance(31)
        assert await soon(run.result()) == "timed out"
        assert sum(isinstance(event, TaskCancelled) for event in await events_of(run)) == 1
        await check_store(engine.store, timed)
    assert ledger(sqlite) == []


async def failed_once(run: Any) -> bool:
    return any(type(event).__name__ == "AttemptFailed" for event in await events_of(run))


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_ended_while_it_commits(how: str, sqlite: SqliteWorld) -> None:
    """Committed it is completed, and its row there, whatever becomes of the run."""

    @workflow
    async def one() -> str:
        return await book("a")

    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=True, when=own_sql_of("one/book#1"))
    async with Engine(store, workflows=[one], clock=sqlite.clock) as engine:
        run = await engine.start(one(), id="a")
        await soon(pause.reached.wait())
        await getattr(run, how)()
        await settle()
        pause.let_go.set()
        await until_async(lambda: ended(run))
        completed = [event for event in await events_of(run) if isinstance(event, TaskCompleted)]
        assert [event.attempt for event in completed] == [1]
        await check_store(engine.store, one)
    await sqlite.release(inner)
    assert ledger(sqlite) == [("a", 1)]


async def ended(run: Any) -> bool:
    return (await run.status()) in ("completed", "cancelled", "terminated")


# -- pauses, closing, takeovers, mail ---------------------------------------------------------------------------------


async def test_paused_while_one_commits_and_another_waits(sqlite: SqliteWorld) -> None:
    """Attempts that have begun go on, and are recorded; what they lead to begins when the run goes on."""
    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=False, when=own_sql_of("two/one~1/book#1"))
    async with Engine(store, workflows=[two], clock=sqlite.clock) as engine:
        run = await engine.start(two(False), id="a")
        await soon(pause.reached.wait())
        await run.pause()
        await until_taken(engine, "a")
        pause.let_go.set()
        await until_async(lambda: rests(engine))
        assert [name for name, _ in ledger(sqlite)] == ["first", "second"]
        events = await events_of(run)
        paused = next(n for n, event in enumerate(events) if isinstance(event, RunPaused))
        assert not any(isinstance(event, TaskStarted) for event in events[paused:])
        assert sum(isinstance(event, TaskCompleted) for event in events) == 2
        await run.unpause()
        assert await soon(run.result()) == ["first", "second", "cleaned up"]
        await check_store(engine.store, two)
    await sqlite.release(inner)


async def rests(engine: Engine) -> bool:
    return (await engine.store.head("run:a")).owner is None


@pytest.mark.parametrize("grace", [0, 5])
async def test_the_engine_closes_while_it_runs(grace: float, sqlite: SqliteWorld) -> None:
    """What the store has begun it ends; the engine waits for that, and the next one finds it."""
    gate, inside = threading.Event(), threading.Event()

    @task(effect="transactional", name="held")
    def held(tx: Transaction, name: str) -> str:
        found = write(tx, name)
        inside.set()
        assert gate.wait(30)
        return found

    @workflow(name="holding")
    async def holding() -> list[str]:
        return list(await asyncio.gather(held("a"), held("b")))

    async with sqlite.engine(holding, grace=grace) as engine:
        await engine.start(holding(), id="a")
        await until(inside.is_set)
        worker = engine._worker
        assert worker is not None
        closing = asyncio.create_task(engine.__aexit__(None, None, None))
        await until(lambda: worker.stopping)
        await settle()
        gate.set()
        await soon(closing)
    first = ledger(sqlite)
    assert first in ([("a", 1)], [("a", 1), ("b", 1)])
    async with sqlite.engine(holding) as engine:
        found = await soon(engine.run("a").result())
        assert found[0] == "a by attempt 1"
        await check_store(engine.store, holding)
    assert [name for name, _ in ledger(sqlite)] == ["a", "b"]


async def test_a_failure_that_comes_while_the_engine_closes_is_recorded(sqlite: SqliteWorld) -> None:
    """The engine waits for what the store has begun, and for what that means."""
    gate, inside = threading.Event(), threading.Event()
    seen: list[Any] = []

    @task(effect="transactional", name="held", stop=stop_after_attempt(2))
    def held(tx: Transaction) -> str:
        found = write(tx, "held")
        seen.append(attempt().last_failure)
        inside.set()
        assert gate.wait(30)
        if attempt().number == 1:
            raise ConnectionError("not now")
        return found

    @workflow(name="holding")
    async def holding() -> str:
        return await held()

    async with sqlite.engine(holding, grace=0) as engine:
        await engine.start(holding(), id="a")
        await until(inside.is_set)
        worker = engine._worker
        assert worker is not None
        closing_engine = asyncio.create_task(engine.__aexit__(None, None, None))
        await until(lambda: worker.dispatcher.running and all(each.asked_to_end for each in worker.dispatcher.running))
        gate.set()
        await soon(closing_engine)
    async with sqlite.engine(holding) as engine:
        assert await soon(engine.run("a").result()) == "held by attempt 2"
        await check_store(engine.store, holding)
    assert [failure and failure.message for failure in seen] == [None, "not now"]


async def test_a_suspect_that_commits_gets_somewhere(sqlite: SqliteWorld) -> None:
    """Two runs whose workers have died twice are tried one after the other, until the first has a fact: here its own."""
    begun: list[str] = []
    over = asyncio.Event()

    @task
    async def linger(name: str) -> str:
        begun.append(name)
        await over.wait()
        return name

    @task(effect="transactional", name="first")
    def first(tx: Transaction, name: str) -> str:
        return write(tx, name)

    @workflow(name="lingering")
    async def lingering(name: str) -> str:
        return await first(name) + await linger(name)

    for life in range(3):
        inner = await sqlite.store()
        store = FaultyStore(inner)
        reached, let_go = asyncio.Event(), asyncio.Event()

        async def hold(name: str, argument: Any, reached: Any = reached, let_go: Any = let_go) -> None:
            if is_own_sql(name, argument):
                reached.set()
                await let_go.wait()
                raise StoreUnavailable("its process is dead by now")

        store.before = hold
        engine = Engine(store, workflows=[lingering], clock=sqlite.clock, grace=0)
        await engine.__aenter__()
        if not life:
            for name in ("a", "b"):
                await engine.start(lingering(name), id=name)
        await soon(reached.wait())
        store.die()
        let_go.set()
        with suppress(StoreUnavailable, EngineFailed):
            await engine.__aexit__(None, None, None)
        await sqlite.release(inner)
    async with sqlite.engine(lingering) as engine:
        # Without a turn of the clock: nobody waits until a suspect has lived long enough.
        await until(lambda: sorted(begun) == ["a", "b"])
        over.set()
        for name in ("a", "b"):
            assert (await soon(result_of(engine.run(name)))).endswith(name)
        await check_store(engine.store, lingering)
    assert [name for name, _ in ledger(sqlite)] == ["a", "b"]


@pytest.mark.parametrize("behind", [True, False])
async def test_another_worker_takes_over_while_it_commits(behind: bool, sqlite: SqliteWorld) -> None:
    """Held dead before its commit, that is refused, and its function not called; behind it, the heir finds it done."""

    @workflow
    async def one() -> list[str]:
        return [await book("a"), await book("b")]

    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=behind, when=own_sql_of("one/book#1"))
    async with Engine(store, workflows=[one], clock=sqlite.clock, worker="first", grace=0) as first:
        run = await first.start(one(), id="a")
        await soon(pause.reached.wait())
        await sqlite.crash(inner)
        async with sqlite.engine(one, worker="second") as second:
            assert await soon(second.run("a").result()) == ["a", "b"]
            pause.let_go.set()
            assert await soon(run.result()) == ["a", "b"]
            await settle()
            await check_store(second.store, one)
            starts = [event for event in await events_of(run) if isinstance(event, TaskStarted)]
            attempts = [event.attempt for event in starts]
    await sqlite.release(inner)
    assert attempts == [1, 1] if behind else [1, 2, 1]
    assert ledger(sqlite) == [("a", 1 if behind else 2), ("b", 1)]


@pytest.mark.parametrize("behind", [True, False])
async def test_a_signal_comes_while_the_last_task_commits(behind: bool, sqlite: SqliteWorld) -> None:
    """It stands in the history, always: its sender was told that it arrived."""

    @workflow
    async def last() -> int:
        await book("a")
        return word.waiting()

    inner = await sqlite.store()
    store = FaultyStore(inner)
    pause = Pause(store, behind=behind, when=own_sql_of("last/book#1"))
    async with Engine(store, workflows=[last], clock=sqlite.clock) as engine:
        run = await engine.start(last(), id="a")
        await soon(pause.reached.wait())
        await run.signal(word, "late")
        pause.let_go.set()
        assert await soon(run.result()) == 0
        assert sum(isinstance(event, SignalIgnored) for event in await events_of(run)) == 1
        await check_store(engine.store, last)
    await sqlite.release(inner)
    assert ledger(sqlite) == [("a", 1)]


async def test_a_crash_between_that_signal_and_the_end(worlds: Any) -> None:
    """Behind the transaction come a note and the end, each in a commit of its own; any of them may be the last."""

    @workflow(name="last")
    async def last() -> int:
        await book("a")
        return word.waiting()

    for fault in ("die before", "die after"):
        for commit in range(1, 5):
            world = worlds("sqlite")
            inner = await world.store()
            store = FaultyStore(inner)
            pause = Pause(store, behind=True, when=own_sql_of("last/book#1"))
            try:
                async with Engine(store, workflows=[last], clock=world.clock, grace=0) as engine:
                    run = await engine.start(last(), id="a")
                    await soon(pause.reached.wait())
                    await run.signal(word, "late")
                    store.plan = at_call(commit, fault, only="commit")  # type: ignore[arg-type]
                    pause.let_go.set()
                    await soon(run.result())
            except (StoreUnavailable, EngineFailed):
                assert store.faults
            await world.release(inner)
            async with world.engine(last) as engine:
                assert await soon(result_of(engine.run("a"))) == 0
                events = await events_of(engine.run("a"))
                await check_store(engine.store, last)
            assert sum(isinstance(event, SignalIgnored) for event in events) == 1
            assert ledger(world) == [("a", 1)]
