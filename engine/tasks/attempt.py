"""The attempt that is running, as task code sees it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from typing import Any, Final, NoReturn, Protocol

import msgspec
from msgspec import Struct

from engine.core.failures import ErrorInfo, decode_error
from engine.core.values import ValueCodec
from engine.errors import HoldfastError
from engine.tasks.contact import Contact

__all__ = ["Attempt", "CompletedLater", "GivenNames", "Names", "attempt", "bind_attempt"]

_DETAILS: Final = ValueCodec(Any, "the details of a heartbeat")


class CompletedLater(BaseException):
    """Raised by `Attempt.later`: the attempt ends, its task does not."""


class Names(Protocol):
    """What one task call is known by outside. Few tasks ask, so whoever launches them makes a name only then."""

    @property
    def idempotency_key(self) -> str:
        """32 hex digits."""

    @property
    def token(self) -> str:
        """Printable, safe in a URL."""


class GivenNames(Struct, frozen=True):
    """Names that were made elsewhere."""

    idempotency_key: str
    token: str


class Attempt(Struct, frozen=True, kw_only=True):
    """One try of a task."""

    run_id: str
    task_id: str
    task: str
    number: int  # from 1; attempts that a crash cut off are counted
    scheduled_at: int  # microseconds since the epoch
    _names: Names
    _contact: Contact = msgspec.field(default_factory=Contact)
    _last_heartbeat: bytes | None = None
    _last_failure: bytes | None = None

    @property
    def idempotency_key(self) -> str:
        """32 hex digits, the same for every attempt of one task call, and for no other call."""
        return self._names.idempotency_key

    @property
    def token(self) -> str:
        """What somebody else can end this task with, in this process or another: printable, safe in a URL.

        See `Engine.complete` and `Engine.reject`.
        """
        return self._names.token

    def later(self) -> NoReturn:
        """End this attempt, its slot free again, and leave the task to whoever has `token`. Never returns.

        The task stays open, also across restarts, until it is completed or rejected, or its `deadline` has passed.
        """
        raise CompletedLater

    # -- from the code to the engine ----------------------------------------------------------------------------------

    def heartbeat(self, details: Any = None) -> None:
        """Say that this attempt lives, and how far it is: `details` are what the next attempt finds if this one fails.

        Cheap, and never waits: call it as often as you like. What is recorded is the first, and then the last of each
        interval. Without details, those given before stay.
        Raises `NotRecordable` or `PayloadTooLarge` for details that cannot be recorded.
        """
        self._contact.beat(None if details is None else _DETAILS.encode(details))

    # -- what the attempts before it left -----------------------------------------------------------------------------

    @property
    def last_heartbeat(self) -> Any:
        """The last details that an earlier attempt of this task gave, as plain JSON values; None if none did.

        Also after a crash: what was recorded, which may be an interval older than what was said last.
        """
        return None if self._last_heartbeat is None else msgspec.json.decode(self._last_heartbeat)

    @property
    def last_failure(self) -> ErrorInfo | None:
        """How the last failed attempt of this task failed (`type`, `message` ...); None when none did.

        An attempt that was cut off by a crash has not failed.
        """
        return None if self._last_failure is None else decode_error(self._last_failure)

    # -- from the engine to the code ----------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is asked to end: cancelled, timed out, or the grace period of its engine is over."""
        return self._contact.cancelled.given

    @property
    def stopping(self) -> bool:
        """Whether its engine closes. There is time for the length of the grace period; then comes the cancellation."""
        return self._contact.stopping.given

    def check(self) -> None:
        """Raise `asyncio.CancelledError` if this attempt is asked to end: for loops in plain functions.

        A thread cannot be stopped from outside; one that does not look holds its slot to its end.
        """
        if self._contact.cancelled.given:
            raise asyncio.CancelledError(f"attempt {self.number} of task {self.task!r} is asked to end")

    def wait_cancelled(self, seconds: float | None = None) -> bool:
        """Sleep until this attempt is asked to end, at most so long (None: for ever). Whether it is.

        For plain functions, instead of `time.sleep`. Raises `HoldfastError` in a coroutine, whose awaits are cancelled.
        """
        _demand_thread("wait_cancelled", "await asyncio.sleep(seconds)")
        return self._contact.cancelled.wait(seconds)

    def wait_stopping(self, seconds: float | None = None) -> bool:
        """Sleep until the engine closes, at most so long (None: for ever). Whether it does.

        For plain functions. Raises `HoldfastError` in a coroutine, which has `until_stopping`.
        """
        _demand_thread("wait_stopping", "await attempt().until_stopping()")
        return self._contact.stopping.wait(seconds)

    async def until_stopping(self) -> None:
        """Wait, in a coroutine, until the engine closes."""
        await self._contact.stopping.until()


_current: Final[ContextVar[Attempt]] = ContextVar("holdfast_attempt")


def attempt() -> Attempt:
    """The attempt that this code runs in, in a coroutine, a thread or a process.

    Raises `HoldfastError` outside a task.
    """
    try:
        return _current.get()
    except LookupError:
        raise HoldfastError("attempt() works only inside a task that an engine runs") from None


def bind_attempt(value: Attempt) -> Token[Attempt]:
    """Set the current attempt for this context; executors call it."""
    return _current.set(value)


def _demand_thread(name: str, instead: str) -> None:
    if asyncio._get_running_loop() is not None:  # it would keep the loop, and with it whoever could end the wait
        raise HoldfastError(f"attempt().{name}() blocks, so it is for plain functions; in a coroutine: {instead}")
