"""What keeps a run from going on, beside a pause of its workflow: its own pause, and the queue for a singleton's key.

While either is shut its stream is held in the store: only control mail reaches it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from engine.core.fold import RunStatus
from engine.runtime.streams import QUEUED, STATUS, WAITS
from eventstore import StreamHead

__all__ = ["OPEN", "Gates", "due_at", "gates_of", "is_waiting"]


class Gates(Struct, frozen=True, gc=False):
    """True while any is shut."""

    paused: bool = False
    queued: str = ""  # the pool of the key that the run has to wait for

    def __bool__(self) -> bool:
        return self.paused or bool(self.queued)

    def status(self, *, waiting: bool) -> RunStatus:
        """The run's status; `waiting`: it has not begun."""
        if self.paused:
            return "paused"
        return "queued" if waiting else "running"


OPEN: Final = Gates()
"""Nothing keeps the run, as is so of nearly all."""


def gates_of(head: StreamHead, *, reopened: bool) -> Gates:
    """How a run stands by its stream, which may be about to be reopened."""
    paused = head.attributes.get(STATUS) == "paused" and not reopened
    return Gates(paused, str(head.attributes.get(QUEUED) or ""))


def is_waiting(head: StreamHead) -> bool:
    """Whether the run of this stream is recorded and has not begun."""
    return WAITS in head.attributes


def due_at(head: StreamHead, now: int) -> int:
    """When a run that is let go on is to be looked at: at once, or when it is to begin. Microseconds.

    `now`: by the clock. What is recorded of it may be dated later, behind the event before.
    """
    begins_at = head.attributes.get(WAITS)
    return max(now, begins_at) if isinstance(begins_at, int) else now
