"""The readers' connections: what is asked for together, who waits for whom, and who hears when there is none."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore.errors import StoreClosed, StoreUnavailable
from eventstore.sqlite import SqliteStore, moving, pool
from eventstore.sqlite.pool import READERS_MAX, ReadPool


@pytest.fixture
async def path(tmp_path: Path) -> str:
    store = await SqliteStore.open(tmp_path / "a.db")
    await store.aclose()
    return str(tmp_path / "a.db")


@pytest.fixture
async def readers(path: str) -> AsyncIterator[ReadPool]:
    readers = ReadPool(path, on_failure=lambda failure: None)
    yield readers
    await readers.aclose()


class Gate:
    """Work that stays on its thread until it is let go."""

    def __init__(self) -> None:
        self.began, self._let_go = threading.Event(), threading.Event()

    def __call__(self, _: sqlite3.Connection) -> str:
        self.began.set()
        self._let_go.wait(20)
        return "held"

    def open(self) -> None:
        self._let_go.set()


class Export:
    """Somebody who has a connection to himself until it ends."""

    def __init__(self, readers: ReadPool) -> None:
        self.began = False
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._read(readers))

    async def _read(self, readers: ReadPool) -> None:
        async with readers.reserved() as mine:
            assert await readers.on(mine, number(1)) == 1
            self.began = True
            await self._over.wait()

    async def end(self) -> None:
        self._over.set()
        await asyncio.wait_for(self._task, 20)


async def held(readers: ReadPool, count: int) -> tuple[list[Gate], list[asyncio.Task[str]]]:
    """That many of its threads have something to do."""
    gates = [Gate() for _ in range(count)]
    tasks = [asyncio.create_task(readers.run(gate)) for gate in gates]
    for gate in gates:
        assert await asyncio.to_thread(gate.began.wait, 20)
    return gates, tasks


async def being_opened(path: str) -> tuple[ReadPool, asyncio.Task[Any]]:
    """A pool that opens its first connection, and who waits for that."""
    readers = ReadPool(path, on_failure=lambda failure: None)
    asking = asyncio.create_task(readers.run(number(1)))
    await asyncio.sleep(0)
    assert readers._opening
    return readers, asking


async def let_go(gates: list[Gate], tasks: list[asyncio.Task[str]]) -> None:
    for gate in gates:
        gate.open()
    assert await asyncio.gather(*tasks) == ["held"] * len(tasks)


async def eventually(true: Callable[[], bool]) -> None:
    """Wait for what the pool does by itself."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


def threads() -> set[threading.Thread]:
    """All but those of the loop's own executor, which these tests wait in."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def number(value: int) -> Any:
    return lambda connection: connection.execute("SELECT ?", (value,)).fetchone()[0]


async def test_what_is_answered_by_then_is_told_together(readers: ReadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    gates, tasks = await held(readers, READERS_MAX)
    waiting = [asyncio.create_task(readers.run(number(value))) for value in range(50)]
    await asyncio.sleep(0)
    woken: list[int] = []
    deliver = readers._deliver
    monkeypatch.setattr(readers, "_deliver", lambda: (woken.append(len(readers._answers)), deliver()))
    gates[0].open()
    deadline = time.monotonic() + 20
    while len(readers._answers) < 51:  # the loop has something else to do meanwhile
        assert time.monotonic() < deadline
    assert await asyncio.gather(*waiting) == list(range(50))
    assert woken == [51], "one waking for what was held, and all that had waited for it"
    await let_go(gates, tasks)


async def test_what_takes_long_keeps_nobody_else_waiting(readers: ReadPool) -> None:
    gates, tasks = await held(readers, READERS_MAX - 1)
    assert await asyncio.gather(*(readers.run(number(value)) for value in range(20))) == list(range(20))
    await let_go(gates, tasks)


async def test_one_error_is_its_askers_alone(readers: ReadPool) -> None:
    gates, tasks = await held(readers, READERS_MAX)
    wrong = asyncio.create_task(readers.run(lambda connection: connection.execute("SELECT nothing")))
    right = asyncio.create_task(readers.run(number(7)))
    await asyncio.sleep(0)
    await let_go(gates, tasks)
    with pytest.raises(StoreUnavailable, match="nothing"):
        await wrong
    assert await right == 7


async def test_what_is_cancelled_before_it_begins_never_does(readers: ReadPool) -> None:
    gates, tasks = await held(readers, READERS_MAX)
    ran: list[int] = []
    waiting = asyncio.create_task(readers.run(lambda _: ran.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await let_go(gates, tasks)
    assert await readers.run(number(3)) == 3
    assert ran == []


async def test_without_a_connection_everybody_hears(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = ReadPool(path, on_failure=lambda failure: None)

    def refuse(_: str) -> sqlite3.Connection:
        raise StoreUnavailable("too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(pool, "open_reader", refuse)
        found = await asyncio.gather(*(readers.run(number(value)) for value in range(9)), return_exceptions=True)
        assert [str(each) for each in found] == ["too many open files"] * 9
        with pytest.raises(StoreUnavailable):
            async with readers.reserved():
                raise AssertionError("there is none")
    assert await readers.run(number(1)) == 1, "it is tried anew"
    await readers.aclose()


async def test_one_connection_is_enough_where_no_more_can_be_opened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = ReadPool(path, on_failure=lambda failure: None)
    assert await readers.run(number(1)) == 1
    monkeypatch.setattr(pool, "open_reader", lambda _: 1 // 0)
    gates, tasks = await held(readers, 1)
    waiting = [asyncio.create_task(readers.run(number(value))) for value in range(5)]
    await eventually(lambda: not readers._opening)
    await let_go(gates, tasks)
    assert await asyncio.gather(*waiting) == list(range(5))
    await readers.aclose()


async def test_whoever_asks_first_may_be_cancelled_while_it_is_opened(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "READERS_MAX", 1)
    readers = ReadPool(path, on_failure=lambda failure: None)
    first, second = (asyncio.create_task(readers.run(number(value))) for value in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, 20) == 2
    await readers.aclose()


async def test_a_connection_of_ones_own(readers: ReadPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "READERS_MAX", 1)
    async with readers.reserved() as mine:
        waiting = asyncio.create_task(readers.run(number(1)))
        next_one = asyncio.create_task(readers.reserved().__aenter__())
        assert await readers.on(mine, number(5)) == 5
        assert not waiting.done()
    other = await next_one
    assert other is mine
    assert not waiting.done(), "it has been waited for"
    readers._back(other)
    assert await waiting == 1


async def test_one_that_was_given_to_somebody_who_is_gone_is_given_to_the_next(
    readers: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "READERS_MAX", 1)
    async with readers.reserved():
        gone = asyncio.create_task(readers.reserved().__aenter__())
        waiting = asyncio.create_task(readers.run(number(1)))
        await asyncio.sleep(0)
    gone.cancel()  # it has the connection, and has not heard of it
    await asyncio.wait([gone])
    assert gone.cancelled()
    assert await asyncio.wait_for(waiting, 20) == 1


async def test_however_many_want_a_connection_of_their_own_one_is_left_for_all_others(readers: ReadPool) -> None:
    """Exports, one behind the other without end: what is short does not wait for any of them."""
    exports = [Export(readers) for _ in range(5)]
    await eventually(lambda: exports[1].began)
    async with asyncio.timeout(20):
        assert await asyncio.gather(*(readers.run(number(value)) for value in range(20))) == list(range(20))
    gates, tasks = await held(readers, 1)
    late = asyncio.create_task(readers.run(number(7)))
    await asyncio.sleep(0)
    await let_go(gates, tasks)
    assert await late == 7
    for export, following in zip(exports, [*exports[2:], None, None], strict=True):
        assert following is None or not following.began
        assert await readers.run(number(1)) == 1
        await export.end()
        await eventually(lambda following=following: following is None or following.began)
    assert len(readers._all) == READERS_MAX
    assert not readers._lent


async def test_who_waits_behind_the_last_one_that_was_given_away_hears_if_there_is_no_other(
    readers: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates, tasks = await held(readers, 1)
    monkeypatch.setattr(pool, "open_reader", lambda _: 1 // 0)
    export = Export(readers)
    waiting = asyncio.create_task(readers.run(number(1)))
    await asyncio.sleep(0)
    await eventually(lambda: not readers._opening)
    await let_go(gates, tasks)
    async with asyncio.timeout(20):
        with pytest.raises(ZeroDivisionError):
            await waiting
    assert export.began
    await export.end()
    assert await readers.run(number(2)) == 2


async def test_closing_waits_for_what_runs_and_refuses_what_waits(path: str) -> None:
    before = threads()
    readers = ReadPool(path, on_failure=lambda failure: None)
    gates, tasks = await held(readers, READERS_MAX)
    waiting = [asyncio.create_task(readers.run(number(value))) for value in range(5)]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        closing = asyncio.create_task(readers.aclose())
        await eventually(lambda: readers._closed)
        late = asyncio.create_task(readers.run(number(1)))
        with pytest.raises(StoreClosed):
            await late
        await let_go(gates, tasks)
        await closing
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(each == value or isinstance(each, StoreClosed) for value, each in enumerate(found))
    await eventually(lambda: threads() <= before)


async def test_closing_while_it_is_opened_leaves_no_thread(path: str) -> None:
    before = threads()
    readers, asking = await being_opened(path)
    await readers.aclose()
    await eventually(lambda: threads() <= before)
    found = (await asyncio.gather(asking, return_exceptions=True))[0]
    assert isinstance(found, StoreClosed)


async def test_all_that_were_to_be_opened_fail_in_one_turn_of_the_loop(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, every = 0, asyncio.Event()
    readers = ReadPool(path, on_failure=lambda failure: None)

    async def refuse(*_: Any) -> Any:
        nonlocal failed
        failed += 1
        await every.wait()
        raise StoreUnavailable("too many open files")

    monkeypatch.setattr(pool, "open_connection", refuse)
    asking = [asyncio.create_task(readers.run(number(value))) for value in range(READERS_MAX)]
    await eventually(lambda: failed == READERS_MAX)
    every.set()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(each) for each in found] == ["too many open files"] * READERS_MAX
    await readers.aclose()


async def test_nobody_waits_for_whoever_has_the_only_connection_to_himself(
    readers: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with readers.reserved() as mine:
        monkeypatch.setattr(pool, "open_reader", lambda _: 1 // 0)
        async with asyncio.timeout(20):
            with pytest.raises(ZeroDivisionError):
                await readers.run(number(1))
            with pytest.raises(ZeroDivisionError):
                async with readers.reserved():
                    raise AssertionError("there is none")
        assert await readers.on(mine, number(1)) == 1
    assert await readers.run(number(2)) == 2


async def test_what_is_quick_does_not_wait_for_what_its_visit_goes_on_with(
    readers: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "READERS_MAX", 1)
    gate = Gate()
    quick, held = asyncio.create_task(readers.run(number(1))), asyncio.create_task(readers.run(gate))
    late = asyncio.create_task(readers.run(number(2)))
    assert await asyncio.wait_for(quick, 20) == 1
    assert not held.done()
    await let_go([gate], [held])
    assert await late == 2


async def test_closing_that_is_cancelled_leaves_nobody_waiting(path: str) -> None:
    readers = ReadPool(path, on_failure=lambda failure: None)
    gates, tasks = await held(readers, READERS_MAX)
    waiting = [asyncio.create_task(readers.run(number(value))) for value in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(readers.aclose())
    await eventually(lambda: readers._closed)
    closing.cancel()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, StoreClosed) for each in found)
    await let_go(gates, tasks)
    await asyncio.wait([closing])
    readers.close_now()


async def test_closing_at_once_leaves_nobody_waiting_and_no_thread(path: str) -> None:
    before = threads()
    readers, asking = await being_opened(path)
    readers.close_now()
    async with asyncio.timeout(20):
        with pytest.raises(StoreClosed):
            await asking
    await eventually(lambda: threads() <= before)


async def test_a_moment_that_is_cancelled_as_it_begins_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "READERS_MAX", 1)
    began, let_go = threading.Event(), threading.Event()

    def begin(connection: sqlite3.Connection) -> None:
        began.set()
        let_go.wait(20)
        connection.execute("BEGIN")

    monkeypatch.setattr(moving, "_begin", begin)
    store = await SqliteStore.open(tmp_path / "a.db")
    dumping = asyncio.ensure_future(anext(store.dump()))
    assert await asyncio.to_thread(began.wait, 20)
    dumping.cancel()
    await asyncio.sleep(0)
    let_go.set()
    await asyncio.wait([dumping])
    assert not await store._readers.run(lambda connection: connection.in_transaction), "it sees what comes"
    await store.aclose()
