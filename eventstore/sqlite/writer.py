"""Group commit: requests queue on the event loop and go to the writer's thread together.

When the thread is idle it is woken at once and takes all that is queued; while a batch runs, others gather for the
next. Nothing is ever delayed in the hope of more. A request belongs to a batch once the thread has taken it: a caller
that is cancelled before is never written, one that is cancelled after is only not told. Callers wait on futures of
their own, so cancelling one cannot reach a transaction, and no await stands between BEGIN and COMMIT.

A store may write on the loop's own thread instead (`Writing.on`), which spares each batch two changes of threads: the
loop stands still while a batch runs, and takes the next one behind what is ready to run.

This module knows when and together with what a request runs, and not what it does.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from eventstore.errors import StoreUnavailable
from eventstore.port import Timestamp
from eventstore.sqlite.checkpoints import Checkpoints
from eventstore.sqlite.leases import SqliteLease
from eventstore.sqlite.requests import (
    BatchOutcome,
    ClaimRequest,
    CommitRequest,
    InstallRequest,
    LeaseEnding,
    LeaseRequest,
    Request,
    SendRequest,
    Unclaim,
)
from eventstore.sqlite.threads import Connection, close_connection, close_now, on_thread, open_connection, submit
from eventstore.sqlite.transaction import Transactor

__all__ = ["BATCH_BYTES_MAX", "BATCH_REQUESTS_MAX", "BATCH_ROWS_MAX", "Writer"]

T = TypeVar("T")

BATCH_REQUESTS_MAX: Final = 500
"""Requests in one transaction."""
BATCH_ROWS_MAX: Final = 5_000
"""Events and messages in one transaction, but that a single commit may have more."""
BATCH_BYTES_MAX: Final = 16 << 20
"""Bytes of payload in one transaction, but that a single commit may have more."""


class Writer:
    """The queue before a `Transactor`, on one event loop."""

    def __init__(self, transactor: Transactor, *, on_outcome: Callable[[BatchOutcome], None]) -> None:
        self._transactor: Final = transactor
        self._checkpoints: Final = Checkpoints(transactor)  # used where batches run
        self._on_loop: Final = transactor.writing.on == "loop"
        self._context: Final = contextvars.Context()  # of batches on the loop: not that of who happens to ask
        self._on_outcome: Final = on_outcome  # told of every committed batch before its callers are
        self._loop: Final = asyncio.get_running_loop()
        self._queue: Final[deque[Request]] = deque()
        self._running = False  # whether the thread has or will have a batch
        self._idle: asyncio.Event | None = None  # while somebody waits for the last batch
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Open the writable connection. Raises what `opening` raises."""
        self._connection = await open_connection(self._transactor.open, self._transactor.close)

    def submit(self, request: Request) -> None:
        """Queue a request; its future is answered when the batch it goes with is durable."""
        self._queue.append(request)
        if not self._running:
            self._start()

    def submit_unattended(self, make: Callable[[asyncio.Future[Any]], Request]) -> asyncio.Future[Any]:
        """Queue a request that nobody need wait for; its failure is everybody's, and others are told."""
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(_look)
        self.submit(make(future))
        return future

    def give_back(self, token: int, owners: Mapping[str, int | None]) -> None:
        """Undo a claim whose caller was cancelled."""
        if owners:
            self.submit_unattended(lambda future: Unclaim(future, token, owners))

    async def data_version(self) -> int:
        """See `Transactor.data_version`."""
        return await self._between_batches(self._transactor.data_version)

    async def keep(self, work: Callable[[sqlite3.Connection, Timestamp], T]) -> T:
        """See `Transactor.keep`: between two batches. Cancelling it does not stop what has begun."""

        def run() -> T:
            done, outcome = self._transactor.keep(work)
            self._checkpoints.after(outcome)
            return done

        return await self._between_batches(run)

    async def finish(self) -> None:
        """Wait until everything that is queued is done."""
        while self._running:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    async def aclose(self) -> None:
        """Finish what is queued, and close the connection and its thread."""
        await self.finish()
        if self._connection is not None:
            await close_connection(self._connection, self._transactor.close)
            self._connection = None

    def close_now(self) -> None:
        """Close without the loop; what is queued behind the running batch is not written."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close_now(connection, self._transactor.close)
        while self._queue:
            _fail(self._queue.popleft(), StoreUnavailable("the store was closed before it was written"))

    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreUnavailable("the writable connection is closed")
        return self._connection

    async def _between_batches(self, work: Callable[[], T]) -> T:
        connection = self._opened()
        if not self._on_loop:
            return await on_thread(connection, work)
        await asyncio.sleep(0)  # others have their turn between two pieces of work
        self._opened()
        try:
            return work()
        except BaseException as error:
            if not isinstance(error, Exception):  # a Ctrl-C
                self._transactor.interrupt()
            raise

    def _start(self) -> None:
        connection = self._opened()
        if self._on_loop:
            self._loop.call_soon(self._work_on_loop, context=self._context)
        else:
            submit(connection, self._work)
        self._running = True

    def _work(self) -> None:
        """On the thread: one batch; its answers go back to the loop before the log is looked after."""
        requests: list[Request] = []
        self._take(requests)
        outcome = self._run(requests)
        try:
            self._loop.call_soon_threadsafe(self._deliver, requests, outcome)
        except RuntimeError:  # the loop was closed under us: the program has ended without closing the store
            return
        if isinstance(outcome, BatchOutcome):
            self._checkpoints.after(outcome)

    def _work_on_loop(self) -> None:
        requests: list[Request] = []
        try:
            self._take(requests)
            outcome = self._run(requests)
            self._deliver(requests, outcome)
            if isinstance(outcome, BatchOutcome):
                self._checkpoints.after(outcome)
        except BaseException:
            self._give_up(requests)
            raise

    def _give_up(self, requests: list[Request]) -> None:
        """A Ctrl-C came, anywhere between taking these and telling of them: it goes on, and nobody waits for ever."""
        failure = self._transactor.interrupt()
        for request in requests:
            _fail(request, failure)
        self._go_on()

    def _run(self, requests: list[Request]) -> BatchOutcome | Exception | None:
        try:
            match requests:
                case []:
                    return None
                case [InstallRequest() as request]:
                    return self._transactor.install(request)
                case _:
                    return self._transactor.run(requests)
        except Exception as failure:
            return failure

    def _take(self, taken: list[Request]) -> None:
        """Fill in the next batch: in order, without those whose callers have gone, up to the limits."""
        queue = self._queue
        rows = size = 0
        while queue and len(taken) < BATCH_REQUESTS_MAX:
            request = queue[0]
            if isinstance(request, InstallRequest) and taken:
                break  # it has a transaction of its own
            match request:
                case CommitRequest():
                    rows += request.rows
                    size += request.payload_bytes
                case SendRequest(message=message):
                    rows += 1
                    size += len(message.payload or b"")
                case _:
                    pass
            if taken and (rows > BATCH_ROWS_MAX or size > BATCH_BYTES_MAX):
                break
            if not request.future.done():
                taken.append(request)
            queue.popleft()  # behind that: an interruption between the two loses nobody
            if taken and isinstance(taken[0], InstallRequest):
                break

    def _deliver(self, requests: list[Request], outcome: BatchOutcome | Exception | None) -> None:
        """On the loop: start the next batch, then tell everybody of this one."""
        try:
            self._go_on()
            self._tell(requests, outcome)
        except BaseException:
            self._give_up(requests)
            raise

    def _go_on(self) -> None:
        if self._queue:
            self._start()
        else:
            self._running = False
            if self._idle is not None:
                self._idle.set()
                self._idle = None

    def _tell(self, requests: list[Request], outcome: BatchOutcome | Exception | None) -> None:
        match outcome:
            case BatchOutcome():
                self._on_outcome(outcome)
                for request, answer in zip(requests, outcome.answers, strict=True):
                    self._answer(request, answer)
            case Exception():
                for request in requests:
                    _fail(request, outcome)
            case None:
                pass

    def _answer(self, request: Request, answer: Any) -> None:
        future = request.future
        if not future.done():
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        elif isinstance(request, ClaimRequest) and isinstance(answer, tuple):
            self.give_back(request.token, answer[1])
        elif isinstance(request, LeaseRequest) and isinstance(answer, SqliteLease):
            answer.end()
            self.submit_unattended(lambda unattended: LeaseEnding(unattended, (answer.token,)))


def _fail(request: Request, failure: Exception) -> None:
    if not request.future.done():
        request.future.set_exception(failure)


def _look(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
