"""What a workflow has asked for and not heard of yet: task calls, child runs, timers, messages to other runs."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

from engine.core.call import Definition, OnCancel
from engine.core.carriage import Carriage
from engine.core.events import ParentClose
from engine.core.handles import LoopFuture, WorkflowTimer
from engine.core.values import ValueCodec

__all__ = ["Canceller", "PendingCall", "PendingChild", "PendingTask", "PendingTimer"]


class PendingCall(LoopFuture):
    """A call whose outcome the workflow has not seen yet, and what its await waits for. Cancelling it is a decision."""

    __slots__ = ("_canceller", "_workflow_loop", "asked_to_end", "cancel_message", "definition", "held", "id")

    def __init__(self, loop: Any, canceller: Canceller, id: str, definition: Definition[..., Any]) -> None:  # noqa: A002
        self.stable_hash = loop.next_hash()
        asyncio.Future.__init__(self, loop=loop)  # past the class between, of which there is nothing else to do
        self._workflow_loop = loop
        self._canceller = canceller
        self.id = id
        self.definition = definition
        self.asked_to_end = False  # its await was cancelled, its outcome is still waited for (on_cancel="wait")
        self.held = 0  # requests to cancel its await that were held back meanwhile
        self.cancel_message: Any = None  # of the first of them that had one

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        loop = self._workflow_loop
        if loop.poisoned:  # a dying coroutine cancels what it had begun: that decides nothing
            return loop.burying and super().cancel(msg)
        if self._canceller.cancel(self):
            return super().cancel(msg)
        self.held += 1
        if self.cancel_message is None:
            self.cancel_message = msg
        return True

    def end_cancelled(self) -> None:
        """The await ends as cancelled, as it was asked to be: what was held back is answered by that."""
        self.held = 0
        super().cancel(self.cancel_message)

    @property
    def on_cancel(self) -> OnCancel:
        """What cancelling its await does."""
        return self.definition.on_cancel

    @property
    def carriage(self) -> Carriage:
        """How its arguments and its result travel."""
        return self._canceller.carriage


class PendingTask(PendingCall):
    """A task call. `scheduled_at` in microseconds: deadlines over all attempts count from there."""

    __slots__ = ("arguments", "result_codec", "scheduled_at")

    def __init__(
        self,
        loop: Any,
        canceller: Canceller,
        id: str,  # noqa: A002
        definition: Definition[..., Any],
        *,
        arguments: bytes,
        result: ValueCodec,
    ) -> None:
        # All of the class between, in place: a fan-out makes many.
        self.stable_hash = loop.next_hash()
        asyncio.Future.__init__(self, loop=loop)
        self._workflow_loop = loop
        self._canceller = canceller
        self.id = id
        self.definition = definition
        self.asked_to_end = False
        self.held = 0
        self.cancel_message = None
        self.arguments = arguments
        self.result_codec = result
        self.scheduled_at: int = loop.now


class PendingChild(PendingCall):
    """A child run. `chosen`: its id was chosen by the author, so that it may turn out to be taken."""

    __slots__ = ("chosen", "parent_close", "run_id")

    def __init__(
        self,
        loop: Any,
        canceller: Canceller,
        id: str,  # noqa: A002
        definition: Definition[..., Any],
        *,
        run_id: str,
        parent_close: ParentClose,
        chosen: bool,
    ) -> None:
        PendingCall.__init__(self, loop, canceller, id, definition)
        self.run_id = run_id
        self.parent_close = parent_close
        self.chosen = chosen

    @property
    def on_cancel(self) -> OnCancel:
        definition: Any = self.definition
        on_cancel: OnCancel = definition.policy.on_cancel
        return on_cancel


class PendingTimer(NamedTuple):
    """A durable timer that has neither fired nor been cancelled. `deadline` in microseconds since the epoch."""

    deadline: int
    timer: WorkflowTimer


class Canceller(Protocol):
    """Who decides what cancelling an await means."""

    @property
    def carriage(self) -> Carriage: ...
    def cancel(self, pending: PendingCall) -> bool:
        """The await of a call is cancelled. Returns whether the await ends now."""
