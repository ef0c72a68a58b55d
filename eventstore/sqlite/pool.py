"""The read-only connections of a store, each with its thread, and whose turn it is.

What is asked for while every connection is busy waits in one queue, and a thread that has done one thing goes on with
the next by itself. Its answers lie ready for the loop, which is woken by the first and takes all that are there by
then. So a thousand runs that are read at once do not wake it a thousand times, and no answer waits for another.

Who wants to read one moment of the store, in a transaction across several visits, has a connection to itself meanwhile,
which may last as long as an export does. It is the next to get one; but one is left for what is asked in the queue,
however many want one to themselves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from eventstore.errors import EventStoreError, StoreClosed, StoreDamaged, StoreUnavailable
from eventstore.sqlite.failures import poisons, unavailable
from eventstore.sqlite.opening import open_reader
from eventstore.sqlite.threads import Connection, close_now, on_thread, open_connection, submit

__all__ = ["READERS_MAX", "ReadPool"]

T = TypeVar("T")

READERS_MAX: Final = 3
"""Read-only connections of one store, opened when they are needed."""


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
        self._answers: Final[deque[_Answer]] = deque()  # the threads add, the loop takes
        self._rung = False  # the loop is woken for them already
        self._wanted: Final[deque[asyncio.Future[Connection]]] = deque()  # who waits for a connection to itself
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._lent: set[Connection] = set()  # those that somebody has to himself
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
        try:
            return await future
        finally:
            del future  # an error of it knows this frame

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[Connection]:
        """A connection for one reader, to whom `on` gives it as often as it likes, in a transaction of its own."""
        self._check_open()
        if self._free and self._may_lend():
            self._lent.add(connection := self._free.pop())
        else:
            connection = await self._next_free()
        try:
            yield connection
        finally:
            self._back(connection)

    async def on(self, connection: Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with a connection that is reserved, on its thread. Raises as `run` does."""
        self._check_open()
        return await on_thread(connection, lambda: self._guarded(work, connection._conn))

    async def aclose(self) -> None:
        """Close every connection and its thread, behind what they are reading. What has not begun is refused."""
        self._close()
        if self._opening:
            await asyncio.wait(self._opening)
        while self._all:
            connection = next(iter(self._all))
            await connection.close()
            self._all.discard(connection)

    def close_now(self) -> None:
        """The same without the loop: blocks until every thread has ended."""
        self._close()
        for task in self._opening:
            task.cancel()
        while self._all:
            close_now(self._all.pop(), _nothing)

    # -- on the loop ---------------------------------------------------------------------------------------------------

    async def _next_free(self) -> Connection:
        wanted: asyncio.Future[Connection] = self._loop.create_future()
        self._wanted.append(wanted)
        if self._may_lend():
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
            self._opening.add(self._loop.create_task(self._open()))

    async def _open(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            connection = await open_connection(lambda: open_reader(self.path), _nothing)
        except BaseException as error:
            self._opening.discard(task)
            if not self._opening and self._all == self._lent:  # nobody else is there who would answer
                self._refuse_all(error if isinstance(error, Exception) else self._is_closed())
            if not isinstance(error, Exception):
                raise
            return  # whoever waits has heard, or hears from another
        self._opening.discard(task)
        self._all.add(connection)
        self._back(connection)

    def _back(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        self._lent.discard(connection)
        if self._closed:
            return
        while self._wanted and self._may_lend():
            if not (wanted := self._wanted.popleft()).done():
                self._lent.add(connection)
                wanted.set_result(connection)
                if self._queue and self._all == self._lent and not self._opening:
                    self._grow()  # there is room for one more, or those in the queue hear that it cannot be had
                return
        if self._queue:
            self._visit(connection)
        else:
            self._free.append(connection)

    def _visit(self, connection: Connection) -> None:
        submit(connection, partial(self._answer_some, connection))

    def _deliver(self) -> None:
        self._rung = False  # before looking: what comes behind that wakes the loop again
        answers = self._answers
        while answers:
            future, value, error = answers.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _close(self) -> None:
        self._closed = True
        self._refuse_all(self._is_closed())

    def _refuse_all(self, error: Exception) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._wanted]
        self._wanted.clear()
        with suppress(IndexError):  # a thread may take the last one
            while self._queue:
                waiting.append(self._queue.popleft().future)
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _check_open(self) -> None:
        if self._closed:
            raise self._is_closed()

    def _is_closed(self) -> StoreClosed:
        return StoreClosed(f"the store at {self.path} was closed")

    # -- on the loop, and on threads -----------------------------------------------------------------------------------

    def _may_lend(self) -> bool:
        """Whether one more may be had to oneself, so that one is left."""
        return len(self._lent) < max(1, READERS_MAX - 1)

    # -- on a thread ---------------------------------------------------------------------------------------------------

    def _answer_some(self, connection: Connection) -> None:
        with suppress(RuntimeError):  # the loop was closed under us: the program has ended without closing the store
            with suppress(IndexError):  # another thread was the faster one
                while self._queue and not (self._wanted and self._may_lend()):
                    self._answer(*self._queue.popleft(), connection)
            self._loop.call_soon_threadsafe(self._back, connection)

    def _answer(
        self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any], connection: Connection
    ) -> None:
        if future.done():
            return
        try:
            answer = _Answer(future, self._guarded(work, connection._conn), None)
        except BaseException as error:
            answer = _Answer(future, None, error)
        self._answers.append(answer)
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._deliver)

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
