"""Whom a run's loop works for: its instance, and nobody once that has left memory."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NoReturn, Protocol

from engine.core.cancelling import Cancelling
from engine.core.handles import WorkflowTimer
from engine.errors import Evicted

__all__ = ["NOBODY", "LoopHost"]


class LoopHost(Protocol):
    """Who the loop works for: decides about durable timers."""

    def start_timer(self, timer: WorkflowTimer) -> None:
        """A timer was asked for, with a deadline in the loop's future."""

    def cancel_timer(self, timer: WorkflowTimer) -> None:
        """A timer that was started, and has not fired, is no longer wanted."""

    @property
    def cancelling(self) -> Cancelling:
        """Who is told what becomes of cancellations."""


class _Unheard(Cancelling):
    """Of a run that is not there to be cancelled."""

    def taken_back(self, branch: asyncio.Task[Any]) -> None:
        """Nothing had asked it to end."""

    def missed(self, branch: asyncio.Task[Any]) -> None:
        """Nor was anything meant for it."""


class _Nobody:
    """See `NOBODY`."""

    cancelling: Final = _Unheard()

    def begin(self, _call: Any) -> NoReturn:
        """Nothing can be decided."""
        raise Evicted

    def start_timer(self, timer: WorkflowTimer) -> None:
        """It never fires."""

    def cancel_timer(self, timer: WorkflowTimer) -> None:
        """Nor would it have fired."""


NOBODY: Final = _Nobody()
"""The host of every loop whose instance has left memory. What may still hold the loop, a future that the program has
kept, say, then holds no more than that.
"""
