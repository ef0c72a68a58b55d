"""Other runs, as workflow code holds them: its own children, and any run by its id."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar, cast

from engine.core.instance import Instance
from engine.core.pending import PendingChild
from engine.workflows.names import Signal

__all__ = ["ChildHandle", "RunRef"]

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class RunRef:
    """A run by its id, for messages to it.

    A message is part of this run's history and delivered with it, once, whatever crashes. Awaiting a method returns
    when the message is in the other run's mailbox; it raises `RunNotFound`, or `RunEnded` for a run that has finished.
    What a run is told by a workflow that is replayed, or sent again after a crash, is what it was told the first time.
    """

    def __init__(self, instance: Instance, run_id: str) -> None:
        self.id = run_id
        self._instance = instance

    async def signal(self, signal: Signal[T], value: T) -> None:
        """Send a signal. Raises `RunNotFound`, `RunEnded`, and `NotRecordable` for a value that is not of its type."""
        await self._instance.outbox.signal(self.id, signal, value)

    async def cancel(self, reason: str = "") -> None:
        """Ask the run to end; it may clean up. Raises `RunNotFound`, `RunEnded`."""
        await self._instance.outbox.cancel(self.id, reason)

    async def terminate(self, reason: str = "") -> None:
        """End the run without its code. Raises `RunNotFound`, `RunEnded`."""
        await self._instance.outbox.terminate(self.id, reason)

    def __repr__(self) -> str:
        return f"<run {self.id!r}>"


class ChildHandle(RunRef, Generic[R_co]):
    """A child run that was started without waiting for it."""

    def __init__(self, instance: Instance, pending: PendingChild) -> None:
        super().__init__(instance, pending.run_id)
        self._pending = pending
        # Nobody need ever ask: that a child failed is then no error that somebody failed to retrieve.
        pending.add_done_callback(_heard)

    async def result(self) -> R_co:
        """Wait for its end. Raises `RunFailedError`, `RunCancelledError`, `RunTerminatedError`, `RunConflict`.

        May be awaited any number of times; cancelling the wait leaves the child alone.
        """
        return cast("R_co", await asyncio.shield(self._pending))

    async def cancel(self, reason: str = "") -> None:  # noqa: ARG002 - a child's parent needs no reason
        """Ask the child to end; its `result` then raises `RunCancelledError`, unless it ends otherwise.

        A child that has ended is left as it is: this sends nothing, and raises nothing.
        """
        self._instance.calls.cancel_child(self._pending)


def _heard(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
