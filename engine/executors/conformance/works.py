"""What the checks have executors run: each as a plain function and as a coroutine function, under one name.

At the top of a module, so that other processes find them. They talk with their check through their attempt.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import Any, Final

from engine.errors import NotRecordable
from engine.tasks import Task, attempt, task

__all__ = ["COROUTINES", "FUNCTIONS", "LIMIT_SECONDS", "Odd"]

LIMIT_SECONDS: Final = 30.0
"""Work that nobody releases ends by itself after this, so that a suite that fails still ends."""

_LEFT_BEHIND: contextvars.ContextVar[str] = contextvars.ContextVar("left_behind", default="")


class Odd(Exception):  # noqa: D101 - an exception that no library knows
    pass


def _echo(value: Any) -> Any:
    return value


def _fail(kind: str) -> None:
    match kind:
        case "ValueError":
            raise ValueError("wrong", 7)
        case "Odd":
            raise Odd("strange")
        case "caused":
            raise LookupError("not there") from KeyError("missing")
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "GeneratorExit":
            raise GeneratorExit
        case "CancelledError":
            raise asyncio.CancelledError
        case _:
            raise AssertionError(kind)


def _hand_out() -> None:
    attempt().later()


def _tell() -> dict[str, Any]:
    here = attempt()
    return {
        "run_id": here.run_id,
        "task_id": here.task_id,
        "task": here.task,
        "number": here.number,
        "idempotency_key": here.idempotency_key,
        "scheduled_at": here.scheduled_at,
        "token": here.token,
        "last_heartbeat": here.last_heartbeat,
        "last_failure": None if here.last_failure is None else here.last_failure.message,
        "cancelled": here.cancelled,
        "stopping": here.stopping,
    }


def _leave_behind(word: str) -> str:
    before = _LEFT_BEHIND.get()
    _LEFT_BEHIND.set(word)
    return before


def _beat(times: int) -> int:
    here = attempt()
    for number in range(1, times + 1):
        here.heartbeat(number)
    here.heartbeat()
    return times


def _beat_badly() -> str:
    try:
        attempt().heartbeat(object())
    except NotRecordable:
        return "refused"
    return "taken"


def wait_released() -> bool:
    """Say that it is here; wait until the engine closes, which a check uses to release it."""
    attempt().heartbeat("in")
    return attempt().wait_stopping(LIMIT_SECONDS)


async def wait_released_async() -> bool:
    """The same in a coroutine."""
    attempt().heartbeat("in")
    async with asyncio.timeout(LIMIT_SECONDS):
        await attempt().until_stopping()
    return attempt().stopping


def linger() -> str:
    """Wait until it is asked to end."""
    attempt().heartbeat("in")
    if attempt().wait_cancelled(LIMIT_SECONDS):
        attempt().check()
    return "nobody asked"


async def linger_async() -> str:
    """The same in a coroutine."""
    attempt().heartbeat("in")
    await asyncio.sleep(LIMIT_SECONDS)
    return "nobody asked"


def compute() -> str:
    """Go on without looking whether anybody wants it, until it is released."""
    attempt().heartbeat("in")
    deadline = LIMIT_SECONDS
    while not attempt().stopping and deadline > 0:
        time.sleep(0.005)
        deadline -= 0.005
    return "done"


async def compute_async() -> str:
    """In a coroutine: it is asked at each await."""
    attempt().heartbeat("in")
    while not attempt().stopping:
        await asyncio.sleep(0.005)
    return "done"


def echo(value: Any) -> Any:
    """Return it."""
    return _echo(value)


async def echo_async(value: Any) -> Any:
    """Return it."""
    return _echo(value)


def fail(kind: str) -> None:
    """Raise something."""
    _fail(kind)


async def fail_async(kind: str) -> None:
    """Raise something."""
    _fail(kind)


def hand_out() -> None:
    """Leave the task to whoever has its token."""
    _hand_out()


async def hand_out_async() -> None:
    """Leave the task to whoever has its token."""
    _hand_out()


def tell() -> dict[str, Any]:
    """What it knows of itself."""
    return _tell()


async def tell_async() -> dict[str, Any]:
    """What it knows of itself."""
    return _tell()


def leave_behind(word: str) -> str:
    """Set a context variable, and return what it was."""
    return _leave_behind(word)


async def leave_behind_async(word: str) -> str:
    """Set a context variable, and return what it was."""
    return _leave_behind(word)


def beat(times: int) -> int:
    """Say often that it lives."""
    return _beat(times)


async def beat_async(times: int) -> int:
    """Say often that it lives."""
    return _beat(times)


def beat_badly() -> str:
    """Give details that cannot be recorded."""
    return _beat_badly()


async def beat_badly_async() -> str:
    """Give details that cannot be recorded."""
    return _beat_badly()


_PLAIN: Final = (echo, fail, hand_out, tell, leave_behind, beat, beat_badly, wait_released, linger, compute)
_ASYNC: Final = (
    echo_async,
    fail_async,
    hand_out_async,
    tell_async,
    leave_behind_async,
    beat_async,
    beat_badly_async,
    wait_released_async,
    linger_async,
    compute_async,
)
FUNCTIONS: Final[dict[str, Task[..., Any]]] = {fn.__name__: task(fn) for fn in _PLAIN}
COROUTINES: Final[dict[str, Task[..., Any]]] = {fn.__name__.removesuffix("_async"): task(fn) for fn in _ASYNC}
