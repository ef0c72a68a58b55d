"""Transactional attempts: a task's own SQL, and the record that the task is done, in one transaction of the store's.

Such an attempt is a commit. Its one event is the task's `TaskCompleted`, the event's payload is what the task's
function returns, and the function is called by the store, between BEGIN and COMMIT (`eventstore.Commit.transaction`).
So its effect is there exactly when the history says so, and a worker that dies leaves no question open.

Only a run's driver writes its stream, so the attempt (a slot, its outcome, its retries: as of any other) waits until
the driver commits it: see `own_sql`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final, NoReturn

from engine.core.events import TaskCompleted
from engine.core.failures import describe
from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.errors import DefinitionError, NotRecordable, PayloadTooLarge
from engine.executors import Executor, Work, bind_attempt
from engine.executors.port import Slots
from engine.runtime.alarms import Alarms
from engine.runtime.attempts import Asked, Committed, Failed, Outcome, after_failure, failure_of, make_ready
from engine.tasks import Attempt, CompletedLater, Task, TransactionalTask
from eventstore import Transaction, TransactionRefused
from eventstore.clock import Clock

__all__ = ["TRANSACTIONS_AT_ONCE", "Transacting", "Transactions", "run_transaction"]

TRANSACTIONS_AT_ONCE: Final = 16
"""Transactional attempts of one engine at once. Those of several runs share a transaction and an fsync of the store's;
more of them would let every other commit wait for longer."""


class Transactions:
    """The place of transactional attempts: the store, if it can (`possible`)."""

    name = "transactions"

    def __init__(self, *, possible: bool = True) -> None:
        self.slots = Slots(TRANSACTIONS_AT_ONCE)
        self._possible = possible

    def check(self, task: Task[..., Any]) -> None:
        """Raise `DefinitionError` for a task that is not transactional, or a store that has no transactions."""
        if not isinstance(task, TransactionalTask):
            raise DefinitionError(
                f"{task.where} is for executor {self.name!r}, where effect='transactional' runs: leave executor= out,"
                " and say effect='transactional' if its effect is SQL on the store's own database"
            )
        if not self._possible:
            raise DefinitionError(
                f"{task.where} has effect='transactional', and the store of this engine does not declare the capability"
                " 'transaction' that this needs: open a SQLite file (Engine('sqlite:///runs.db')); in tests let a fake"
                " stand in for it (lab.fake), or give the engine a SqliteStore on a temporary file"
            )
        _ = task.arguments  # its first parameter is the transaction

    async def run(self, work: Work) -> NoReturn:
        """Never: what runs here is a commit of the run's driver (`run_transaction`)."""
        self.slots.give_back()
        raise DefinitionError(f"{work.task.where} was to run on executor {self.name!r} as other tasks do")

    async def aclose(self) -> None:
        """There is nothing to end."""


class Transacting:
    """One transactional attempt that waits for its commit: made by `run_transaction`, committed by `own_sql.OwnSql`."""

    def __init__(self, work: Work, *, running: Asked, task_id: str, number: int) -> None:
        self.task_id = task_id
        self.number = number
        self.payload = b""  # what the last call has returned
        self._work = work
        self._running = running
        self._raised: BaseException | None = None  # by the last call
        self._traceback: Any = None  # of that, down to here: what the store adds to it says nothing of the task
        self._context = contextvars.copy_context()
        self._under_way = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: BaseException | None = None

    # -- what the attempt does ----------------------------------------------------------------------------------------

    async def ended(self) -> BaseException | None:
        """Wait until it was committed (None), or has failed. Raises `CancelledError` when it never will be.

        One that is asked to end before its commit began is never committed; one that is under way is waited for.
        """
        while not self._ended.done():
            try:
                await asyncio.wait([self._ended])
            except asyncio.CancelledError:
                if not self._under_way and not self._ended.done():
                    self._ended.cancel()
                    raise
        self._ended.result()
        failure, self._failure = self._failure, None  # it knows the frames of `call`, and they this
        return failure

    # -- what its run's driver does -----------------------------------------------------------------------------------

    def is_wanted(self, instance: Instance) -> bool:
        """Whether it is still to be committed."""
        pending = instance.pending.get(self.task_id)
        wanted = pending is not None and not pending.asked_to_end and instance.outcome is None
        return wanted and not self._running.asked_to_end and not self._ended.done()

    def begin(self, at: int) -> TaskCompleted:
        """Its commit begins: the event of it, at a time in microseconds."""
        self._under_way = True
        return TaskCompleted(at=at, id=self.task_id, attempt=self.number)

    def call(self, transaction: Transaction) -> bytes:
        """What the store calls, on its thread; again when what it did was undone. The result, encoded."""
        self._raised = self._traceback = None
        try:
            # A fresh copy of the context each time: what one call sets, the next does not see, nor does the thread.
            self.payload = self._context.copy().run(self._called, transaction)
        except BaseException as error:
            self._raised, self._traceback = error, error.__traceback__
            raise
        return self.payload

    def _called(self, transaction: Transaction) -> bytes:
        work = self._work
        bind_attempt(work.attempt)
        return work.task.result.encode_checked(work.fn(transaction, *work.args, **work.kwargs))

    def done(self) -> None:
        """It was committed."""
        self._end(None)

    def failed(self, error: BaseException) -> bool:
        """Its commit has failed. Whether that is a failure of the attempt, and no other."""
        raised, traceback = self._raised, self._traceback
        self._raised = self._traceback = None  # as above
        refused = isinstance(error, TransactionRefused)  # for what it did, or in place of what is no `Exception`
        if raised is not None and (error is raised or (refused and error.__cause__ is raised)):
            self._end(raised.with_traceback(traceback))
        elif refused:
            self._end(error)
        else:
            self._ended.cancel()
            return False
        return True

    def _end(self, failure: BaseException | None) -> None:
        if not self._ended.done():
            self._failure = failure
            self._ended.set_result(None)


async def run_transaction(
    pending: PendingTask,
    attempts: Attempts,
    attempt: Attempt,
    *,
    executor: Executor,
    clock: Clock,
    alarms: Alarms,  # noqa: ARG001 - it has no limit of its own: the store has one
    running: Asked,
    transact: Callable[[Transacting], None],
) -> Outcome:
    """Run one attempt in a slot taken before. Only a cancellation that was asked for comes out as an exception."""
    ready = make_ready(pending, attempt, executor=executor, clock=clock, may_begin=running.may_begin)
    if isinstance(ready, Failed):
        return ready
    work, definition = ready.work, ready.work.task
    own = Transacting(work, running=running, task_id=pending.id, number=attempt.number)
    transact(own)
    try:
        found = await own.ended()
    finally:
        executor.slots.give_back()
    if found is None:
        return Committed()
    if isinstance(found, CompletedLater):
        return Failed(describe(_handed_out(definition)))
    failure = failure_of(found, definition, running)
    if isinstance(found, NotRecordable | PayloadTooLarge):
        return Failed(failure.described())  # another attempt would return the same kind of thing
    arguments = work.args, dict(work.kwargs)
    return await after_failure(definition, pending, attempts, failure, arguments, clock=clock, running=running)


def _handed_out(definition: Task[..., Any]) -> DefinitionError:
    return DefinitionError(
        f"{definition.where} has effect='transactional' and called attempt().later(): what it wrote was undone, for its"
        " rows and its result are recorded together or not at all. Hand a task out from one that is not transactional"
    )
