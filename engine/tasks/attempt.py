"""The attempt that is running, as task code sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Final, NoReturn

from msgspec import Struct

from engine.errors import HoldfastError

__all__ = ["Attempt", "CompletedLater", "attempt", "bind_attempt"]


class CompletedLater(BaseException):
    """Raised by `Attempt.later`: the attempt ends, its task does not."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One try of a task. `idempotency_key` is the same for every attempt of one task call, and for no other call.

    `token` is what somebody else can end the task with, in this process or another: `Engine.complete`, `Engine.reject`.
    """

    run_id: str
    task_id: str
    task: str
    number: int  # from 1; attempts that a crash cut off are counted
    idempotency_key: str  # 32 hex digits
    scheduled_at: int  # microseconds since the epoch
    _token: Callable[[], str]  # asked for by few tasks, and made only then

    @property
    def token(self) -> str:
        """What ends this task from elsewhere: printable, safe in a URL."""
        return self._token()

    def later(self) -> NoReturn:
        """End this attempt, its slot free again, and leave the task to whoever has `token`. Never returns.

        The task stays open, also across restarts, until it is completed or rejected, or its `deadline` has passed.
        """
        raise CompletedLater


_current: Final[ContextVar[Attempt]] = ContextVar("holdfast_attempt")


def attempt() -> Attempt:
    """The attempt that this code runs in, in a coroutine or in a thread. Raises `HoldfastError` outside a task."""
    try:
        return _current.get()
    except LookupError:
        raise HoldfastError("attempt() works only inside a task that an engine runs") from None


def bind_attempt(value: Attempt) -> Token[Attempt]:
    """Set the current attempt for this context; executors call it."""
    return _current.set(value)
