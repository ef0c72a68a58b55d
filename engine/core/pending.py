"""What a workflow has asked for and not heard of yet: task calls, child runs, timers, messages to other runs."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from engine.core.call import Definition, OnCancel
from engine.core.events import ParentClose
from engine.core.handles import LoopFuture, WorkflowTimer

__all__ = ["CallFuture", "Canceller", "PendingCall", "PendingChild", "PendingTask", "PendingTimer"]


class PendingCall:
    """A call whose outcome the workflow has not seen yet."""

    __slots__ = ("cancel_message", "cancelled", "definition", "future", "held", "id", "on_cancel")

    def __init__(self, id: str, definition: Definition[..., Any], on_cancel: OnCancel) -> None:  # noqa: A002
        self.id = id
        self.definition = definition
        self.on_cancel = on_cancel
        self.cancelled = False  # asked to end, its outcome still awaited (on_cancel="wait")
        self.held = 0  # requests to cancel its await that were held back meanwhile
        self.cancel_message: Any = None  # of the first of them that had one
        self.future: CallFuture


class PendingTask(PendingCall):
    """A task call."""

    __slots__ = ("arguments", "scheduled_at")

    def __init__(self, id: str, definition: Definition[..., Any], arguments: bytes, scheduled_at: int) -> None:  # noqa: A002
        super().__init__(id, definition, definition.on_cancel)
        self.arguments = arguments
        self.scheduled_at = scheduled_at  # microseconds; deadlines over all attempts count from here


class PendingChild(PendingCall):
    """A child run. `chosen`: its id was chosen by the author, so that it may turn out to be taken."""

    __slots__ = ("chosen", "parent_close", "run_id")

    def __init__(
        self,
        id: str,  # noqa: A002
        definition: Definition[..., Any],
        on_cancel: OnCancel,
        *,
        run_id: str,
        parent_close: ParentClose,
        chosen: bool,
    ) -> None:
        super().__init__(id, definition, on_cancel)
        self.run_id = run_id
        self.parent_close = parent_close
        self.chosen = chosen


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

    def __init__(self, loop: Any, canceller: Canceller, pending: PendingCall) -> None:
        super().__init__(loop=loop)
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
