"""What we rely on in aiosqlite beyond its public methods; a new minor release has to pass here first."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from eventstore.sqlite.threads import Connection, close_connection, on_thread, open_connection, submit


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    opened = await open_connection(lambda: sqlite3.connect(":memory:"), lambda: None)
    yield opened
    await close_connection(opened, lambda: None)


async def test_functions_run_on_one_thread_in_order(connection: Connection) -> None:
    ran: list[object] = []
    done = threading.Event()
    submit(connection, lambda: ran.append(1))
    first = asyncio.create_task(on_thread(connection, lambda: ran.append(threading.current_thread()) or 7))
    await asyncio.sleep(0)
    submit(connection, lambda: (ran.append(3), done.set()))
    assert await first == 7
    await asyncio.to_thread(done.wait)
    assert ran[0] == 1
    assert ran[2] == 3
    assert ran[1] is not threading.main_thread()


async def test_errors_come_back_and_end_nothing(connection: Connection) -> None:
    with pytest.raises(ZeroDivisionError):
        await on_thread(connection, lambda: 1 // 0)
    submit(connection, lambda: 1 // 0)
    assert await on_thread(connection, lambda: 5) == 5


async def test_cancelling_the_caller_does_not_stop_the_function(connection: Connection) -> None:
    started, gate, ended = threading.Event(), threading.Event(), []
    task = asyncio.create_task(on_thread(connection, lambda: (started.set(), gate.wait(), ended.append(1))))
    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    gate.set()
    assert await on_thread(connection, lambda: list(ended)) == [1]


async def test_closing_ends_the_thread_behind_what_is_queued() -> None:
    before = set(threading.enumerate())
    connection = await open_connection(lambda: sqlite3.connect(":memory:"), lambda: None)
    (thread,) = set(threading.enumerate()) - before
    ran: list[int] = []
    for number in range(100):
        submit(connection, lambda number=number: ran.append(number))
    await close_connection(connection, lambda: ran.append(-1))
    assert ran == [*range(100), -1]
    thread.join(5)
    assert not thread.is_alive()


async def test_the_thread_ends_also_when_its_last_function_fails() -> None:
    before = set(threading.enumerate())
    connection = await open_connection(lambda: sqlite3.connect(":memory:"), lambda: None)
    (thread,) = set(threading.enumerate()) - before
    with pytest.raises(ZeroDivisionError):
        await close_connection(connection, lambda: 1 // 0)
    thread.join(5)
    assert not thread.is_alive()
