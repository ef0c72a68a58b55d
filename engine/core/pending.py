"""What a workflow has asked for and not heard of yet: task calls, child runs, timers, messages to other runs."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from engine.core.call import Definition, OnCancel
from engine.core.events import ParentClose
from engine.core.handles import LoopFuture, WorkflowTimer

__all__ = ["CallFuture", "Canceller", "PendingCall", "PendingChild", "PendingTask", "PendingTimer"]


class PendingCall(Struct, eq=False):
    """A call whose outcome the workflow has not seen yet."""

    id: str
    definition: Definition[..., Any]
    on_cancel: OnCancel
    cancelled: bool = False  # asked to end, its outcome still awaited (on_cancel="wait")
    held: int = 0  # requests to cancel its await that were held back meanwhile
    cancel_message: Any = None  # of the first of them that had one
    future: Any = None  # a `CallFuture`, set as soon as it is made


class PendingTask(PendingCall, eq=False):
    """A task call."""

    arguments: bytes = b""
    scheduled_at: int = 0  # microseconds; deadlines over all attempts count from here


class PendingChild(PendingCall, eq=False):
    """A child run. `chosen`: its id was chosen by the author, so that it may turn out to be taken."""

    run_id: str = ""
    parent_close: ParentClose = "cancel"
    chosen: bool = False


class PendingTimer(NamedTuple):
    """A durable timer that has neither fired nor been cancelled. `deadline` in microseconds since the epoch."""

    deadline: int
    timer: WorkflowTimer


class Canceller(Protocol):
    """Who decides what cancelling an await means."""

    def cancel(self, pending: PendingCall) -> bool:
        """The await of a call is cancelled. Returns whether the await ends now."""


class CallFuture(LoopFuture):
    """What the await of a call waits for; cancelling it is a decision."""

    __slots__ = ("_canceller", "_pending", "_workflow_loop")

    def __init__(self, loop: Any, canceller: Canceller, pending: PendingCall) -> None:
        self._stable_hash = loop.next_hash()
        asyncio.Future.__init__(self, loop=loop)  # past the class between, of which there is nothing else to do
        self._workflow_loop = loop
        self._canceller = canceller
        self._pending = pending

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        loop = self._workflow_loop
        if loop.poisoned:  # a dying coroutine cancels what it had begun: that decides nothing
            return loop.burying and super().cancel(msg)
        if self._canceller.cancel(self._pending):
            return super().cancel(msg)
        self._pending.held += 1
        if self._pending.cancel_message is None:
            self._pending.cancel_message = msg
        return True

    def end_cancelled(self) -> None:
        """The await ends as cancelled, as it was asked to be: what was held back is answered by that."""
        self._pending.held = 0
        super().cancel(self._pending.cancel_message)
