"""The read-only connections of a store, each with its thread, and whose turn it is.

What is asked for while every connection is busy waits in one queue, and a thread that has done one thing goes on with
the next by itself: what was asked for together is answered together, for one visit to a thread and one waking of the
loop. So a thousand runs that are read at once do not wake the loop a thousand times. Nothing waits for more to come.

Who wants to read one moment of the store, in a transaction across several visits, has a connection to itself meanwhile.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from eventstore.clock import SystemClock
from eventstore.errors import EventStoreError, StoreClosed, StoreDamaged, StoreUnavailable
from eventstore.sqlite.failures import poisons, unavailable
from eventstore.sqlite.opening import open_reader
from eventstore.sqlite.threads import Connection, close_now, on_thread, open_connection, submit

__all__ = ["READERS_MAX", "VISIT_SECONDS", "ReadPool"]

T = TypeVar("T")

READERS_MAX: Final = 3
"""Read-only connections of one store, opened when they are needed."""
VISIT_SECONDS: Final = 0.002
"""After so long a thread delivers what it has, and only then goes on: bounds what is held, and who waits for others."""


class _Asked(NamedTuple):
    """Something that is to be read, and who waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    value: Any
    error: BaseException | None


class ReadPool:
    """See the module. Used on one event loop."""

    def __init__(self, path: str, *, on_failure: Callable[[StoreUnavailable], None]) -> None:
        self.path: Final = path
        self._on_failure: Final = on_failure  # told of what poisons the store
        self._loop: Final = asyncio.get_running_loop()
        self._queue: Final[deque[_Asked]] = deque()  # the loop adds, the threads take
        self._wanted: Final[deque[asyncio.Future[Connection]]] = deque()  # who waits for a connection to itself
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with a connection on its thread. Raises `StoreUnavailable`, `StoreClosed`.

        One that has begun is not stopped by cancelling this; one that has not never begins.
        """
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Asked(work, future))
        if self._free:
            self._visit(self._free.pop())
        else:
            self._grow()
        return await future

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[Connection]:
        """A connection for one reader, to whom `on` gives it as often as it likes, in a transaction of its own."""
        self._check_open()
        connection = self._free.pop() if self._free else await self._next_free()
        try:
            yield connection
        finally:
            self._back(connection)

    async def on(self, connection: Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with a connection that is reserved, on its thread. Raises as `run` does."""
        self._check_open()
        return await on_thread(connection, lambda: self._guarded(work, connection._conn))

    async def aclose(self) -> None:
        """Close every connection and its thread, behind what they are reading."""
        self._closed = True
        if self._opening:
            await asyncio.wait(self._opening)
        while self._all:
            connection = next(iter(self._all))
            await connection.close()
            self._all.discard(connection)
        self._refuse_all(self._is_closed())

    def close_now(self) -> None:
        """The same without the loop: blocks until every thread has ended."""
        self._closed = True
        while self._all:
            close_now(self._all.pop(), _nothing)

    # -- on the loop ---------------------------------------------------------------------------------------------------

    async def _next_free(self) -> Connection:
        wanted: asyncio.Future[Connection] = self._loop.create_future()
        self._wanted.append(wanted)
        self._grow()
        try:
            return await wanted
        except asyncio.CancelledError:
            if wanted.done() and not wanted.cancelled() and wanted.exception() is None:
                self._back(wanted.result())  # it was given, and nobody was told
            raise

    def _grow(self) -> None:
        """Open one more connection, if there may be one more. The pool does it: whoever asks may be cancelled."""
        if len(self._all) + len(self._opening) < READERS_MAX:
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            connection = await open_connection(lambda: open_reader(self.path), _nothing)
        except BaseException as error:
            if len(self._opening) == 1 and not self._all:  # nobody else is there who would answer
                self._refuse_all(error if isinstance(error, Exception) else self._is_closed())
            if isinstance(error, Exception):
                return  # whoever waits has heard, or hears from another
            raise
        self._all.add(connection)
        self._back(connection)

    def _back(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        if self._closed:
            return
        while self._wanted:
            if not (wanted := self._wanted.popleft()).done():
                wanted.set_result(connection)
                return
        if self._queue:
            self._visit(connection)
        else:
            self._free.append(connection)

    def _visit(self, connection: Connection) -> None:
        submit(connection, partial(self._answer_some, connection))

    def _deliver(self, connection: Connection, answers: list[_Answer]) -> None:
        self._back(connection)
        for future, value, error in answers:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _refuse_all(self, error: Exception) -> None:
        waiting = [*(asked.future for asked in self._queue), *self._wanted]
        self._queue.clear()
        self._wanted.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _check_open(self) -> None:
        if self._closed:
            raise self._is_closed()

    def _is_closed(self) -> StoreClosed:
        return StoreClosed(f"the store at {self.path} was closed")

    # -- on a thread ---------------------------------------------------------------------------------------------------

    def _answer_some(self, connection: Connection) -> None:
        queue, answers = self._queue, list[_Answer]()
        now, until = SystemClock.monotonic, SystemClock.monotonic() + VISIT_SECONDS
        with suppress(IndexError):  # another thread may have been the faster one
            while queue:
                work, future = queue.popleft()
                if future.done():
                    continue
                try:
                    answers.append(_Answer(future, self._guarded(work, connection._conn), None))
                except BaseException as error:
                    answers.append(_Answer(future, None, error))
                if now() >= until:
                    break
        with suppress(RuntimeError):  # the loop was closed under us: the program has ended without closing the store
            self._loop.call_soon_threadsafe(self._deliver, connection, answers)

    def _guarded(self, work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        try:
            return work(connection)
        except sqlite3.Error as error:
            failure = unavailable(error, self.path)
            if poisons(error):
                self._on_failure(failure)
            raise failure from error
        except EventStoreError:
            raise
        except (TypeError, ValueError, RecursionError) as error:  # what a row holds is not what we write
            raise StoreDamaged(
                f"{self.path} holds a row that no store has written ({error}): look for it with holdfast verify"
            ) from error


def _nothing() -> None:
    """What a reader does before it is closed."""
