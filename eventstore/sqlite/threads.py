"""The seam to aiosqlite: running a function on a connection's own thread.

Each aiosqlite connection has a thread with a queue of functions. Its public methods run one statement each, and a
transaction with awaits between its statements could be left open by a cancelled caller; so a whole transaction goes
onto the queue as one function. The queue is not public, which is why the version is pinned to the minor release; this
file is the only one that touches it, and `tests/eventstore/sqlite/test_threads.py` holds it to what is expected here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import aiosqlite

__all__ = ["Connection", "close_connection", "close_now", "on_thread", "open_connection", "submit"]

T = TypeVar("T")
Connection = aiosqlite.Connection


async def open_connection(connect: Callable[[], sqlite3.Connection], close: Callable[[], None]) -> Connection:
    """Start a thread and connect on it. Raises what `connect` raises; leaves no thread behind, also when cancelled.

    `close` is run on the thread when the caller was cancelled after `connect` had succeeded.
    """
    connection = Connection(connect, iter_chunk_size=1)
    opening = asyncio.ensure_future(_opened(connection))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        while not opening.done():  # however often it is cancelled
            with suppress(asyncio.CancelledError):
                await asyncio.wait([opening])
        if opening.cancelled() or opening.exception() is not None:
            connection._thread.join()
        else:
            await close_connection(connection, close)
        raise
    except BaseException:
        # The thread was told to end and has nothing else to do; left alone it may report that to a loop that is closed.
        connection._thread.join()
        raise
    return connection


async def close_connection(connection: Connection, close: Callable[[], None]) -> None:
    """Run `close` behind everything that is queued, then close the connection and end its thread."""
    try:
        await on_thread(connection, close)
    finally:
        await connection.close()


def close_now(connection: Connection, close: Callable[[], None]) -> None:
    """The same without a loop that could be waited on: blocks until the thread has ended."""
    submit(connection, close)
    connection.stop()
    connection._thread.join()


async def on_thread(connection: Connection, work: Callable[[], T]) -> T:
    """Run a function on the connection's thread, in turn, and return what it returns. Cancelling does not stop it."""
    result: T = await connection._execute(work)  # type: ignore[no-untyped-call]
    return result


def submit(connection: Connection, work: Callable[[], None]) -> None:
    """Queue a function that tells its outcome by itself, without a future and its two turns of the loop."""
    connection._tx.put_nowait((None, work))


async def _opened(connection: Connection) -> None:
    await connection
