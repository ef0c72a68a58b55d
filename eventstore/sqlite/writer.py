"""Group commit: requests queue on the event loop and go to the writer's thread together.

When the thread is idle a batch is sent at once; while one runs, others gather for the next. Nothing is ever delayed in
the hope of more. A request belongs to the batch once it was taken from the queue: a caller that is cancelled before is
never written, one that is cancelled after is only not told. No await stands between BEGIN and COMMIT, because a batch
is one function on the thread.

This module knows when and together with what a request runs, and not what it does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

import aiosqlite

from eventstore.errors import StoreUnavailable
from eventstore.sqlite.leases import SqliteLease
from eventstore.sqlite.opening import LOG_BYTES_MAX
from eventstore.sqlite.requests import (
    BatchOutcome,
    ClaimRequest,
    CommitRequest,
    LeaseEnding,
    LeaseRequest,
    Request,
    Unclaim,
)
from eventstore.sqlite.transaction import Transactor

__all__ = ["BATCH_BYTES_MAX", "BATCH_REQUESTS_MAX", "BATCH_ROWS_MAX", "CHECKPOINT_BYTES", "Writer", "on_thread"]

T = TypeVar("T")

BATCH_REQUESTS_MAX: Final = 500
"""Requests in one transaction."""
BATCH_ROWS_MAX: Final = 5_000
"""Rows in one transaction, but that a single commit may have more."""
BATCH_BYTES_MAX: Final = 16 << 20
"""Bytes of payload in one transaction, but that a single commit may have more."""
CHECKPOINT_BYTES: Final = 8 << 20
"""What is written to the log, about, before it is copied into the database."""


async def on_thread(connection: aiosqlite.Connection, work: Callable[[], T]) -> T:
    """Run a function on a connection's own thread, in turn.

    The only use of aiosqlite's entry point, which is not public and for which its version is pinned: its public
    methods run one statement each, and a transaction with awaits inside could be left open by a cancelled caller.
    """
    result: T = await connection._execute(work)  # type: ignore[no-untyped-call]
    return result


class Writer:
    """The queue before a `Transactor`, on one event loop."""

    def __init__(self, transactor: Transactor, *, on_outcome: Callable[[BatchOutcome], None]) -> None:
        self._transactor: Final = transactor
        self._on_outcome: Final = on_outcome  # told of every committed batch before its callers are
        self._queue: deque[Request] = deque()
        self._burst: asyncio.Task[None] | None = None  # lives while there is anything to do
        self._connection: aiosqlite.Connection | None = None
        self._log_bytes = 0

    async def open(self) -> None:
        """Open the writable connection. Raises what `opening` raises; leaves no thread behind, also when cancelled."""
        connection = aiosqlite.Connection(self._transactor.open, iter_chunk_size=1)
        opening = asyncio.ensure_future(_opened(connection))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                await self._close(connection)
            raise
        self._connection = connection

    def submit(self, request: Request) -> None:
        """Queue a request; its future is answered when the batch it goes with is durable."""
        self._queue.append(request)
        if self._burst is None or self._burst.done():  # done: cancelled at the end of a program before it began
            self._burst = asyncio.ensure_future(self._work())

    def submit_unattended(self, make: Callable[[asyncio.Future[Any]], Request]) -> None:
        """Queue a request that nobody waits for; its failure is everybody's, and others are told."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look)
        self.submit(make(future))

    async def data_version(self) -> int:
        """See `Transactor.data_version`."""
        return await self._call(self._transactor.data_version)

    async def finish(self) -> None:
        """Wait until everything that is queued is done."""
        while self._queue or not (self._burst is None or self._burst.done()):
            if self._burst is None or self._burst.done():
                self._burst = asyncio.ensure_future(self._work())
            await asyncio.wait([self._burst])

    async def aclose(self) -> None:
        """Finish what is queued, and close the connection and its thread."""
        await self.finish()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._close(connection)

    async def _close(self, connection: aiosqlite.Connection) -> None:
        try:
            await on_thread(connection, self._transactor.close)
        finally:
            await connection.close()

    async def _call(self, work: Callable[[], T]) -> T:
        if self._connection is None:
            raise StoreUnavailable("the writable connection is closed")
        return await on_thread(self._connection, work)

    async def _work(self) -> None:
        try:
            while self._queue:
                requests = self._take()
                if requests:
                    await self._run(requests)
        finally:
            self._burst = None

    def _take(self) -> list[Request]:
        """The next batch: in order, without those whose callers have gone, up to the limits."""
        queue = self._queue
        taken: list[Request] = []
        rows = size = 0
        while queue and len(taken) < BATCH_REQUESTS_MAX:
            request = queue[0]
            if isinstance(request, CommitRequest):
                rows += request.rows
                size += request.payload_bytes
                if taken and (rows > BATCH_ROWS_MAX or size > BATCH_BYTES_MAX):
                    break
            queue.popleft()
            if not request.future.done():
                taken.append(request)
        return taken

    async def _run(self, requests: list[Request]) -> None:
        try:
            outcome = await _uncancelled(self._call(lambda: self._transactor.run(requests)))
        except Exception as failure:
            _refuse(requests, failure)
            return
        self._on_outcome(outcome)
        for request, answer in outcome.answers:
            self._answer(request, answer)
        await self._checkpoint_if_due(outcome.log_bytes)

    def _answer(self, request: Request, answer: Any) -> None:
        future = request.future
        if not future.done():
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        elif isinstance(request, ClaimRequest) and isinstance(answer, tuple) and answer[1]:
            self.submit_unattended(lambda unattended: Unclaim(unattended, request.token, answer[1]))
        elif isinstance(request, LeaseRequest) and isinstance(answer, SqliteLease):
            answer.end()
            self.submit_unattended(lambda unattended: LeaseEnding(unattended, (answer.token,)))

    async def _checkpoint_if_due(self, log_bytes: int) -> None:
        self._log_bytes += log_bytes
        if self._log_bytes < CHECKPOINT_BYTES:
            return
        try:
            left = await _uncancelled(self._call(lambda: self._transactor.checkpoint(truncate=False)))
            if left > LOG_BYTES_MAX:
                left = await _uncancelled(self._call(lambda: self._transactor.checkpoint(truncate=True)))
        except StoreUnavailable:
            left = 0  # the next batch meets the same trouble and has somebody to tell
        self._log_bytes = 0 if left < CHECKPOINT_BYTES else CHECKPOINT_BYTES // 2


async def _opened(connection: aiosqlite.Connection) -> None:
    await connection


async def _uncancelled(work: Any) -> Any:
    """Await to the end, whoever cancels: at the end of `asyncio.run` every task is, and a batch is under way."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
        except BaseException:
            break
    return task.result()


def _look(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _refuse(requests: list[Request], failure: Exception) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(failure)
