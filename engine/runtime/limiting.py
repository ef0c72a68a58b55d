"""The limits of one attempt, in the engine's time: how long it may take, and how long it may say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from engine.errors import HeartbeatTimeout, TaskTimeout
from engine.runtime.alarms import Alarms, OneAlarm
from engine.runtime.heartbeats import Pulse
from engine.tasks import Task
from eventstore.clock import Clock

__all__ = ["timed_out", "within"]


def within(
    seconds: float | None,
    running: Coroutine[Any, Any, Any],
    definition: Task[..., Any],
    *,
    whole: bool,
    clock: Clock,
    alarms: Alarms,
    pulse: Pulse | None,
) -> Awaitable[Any]:
    """An attempt under its limits, which follow the engine's clock. One that has none is just what it is.

    Awaiting it raises `TaskTimeout` after so many seconds (`whole`: those left until the deadline over all attempts),
    and `HeartbeatTimeout` when its `pulse` (None: nobody listens) has said nothing for its task's `heartbeat_timeout`.
    The attempt was then asked to end.
    """
    silence = None if pulse is None else definition.policy.heartbeat_timeout
    if seconds is None and silence is None:
        return running
    return _limited(seconds, silence, running, definition, whole=whole, clock=clock, alarms=alarms, pulse=pulse)


async def _limited(
    seconds: float | None,
    silence: float | None,
    running: Coroutine[Any, Any, Any],
    definition: Task[..., Any],
    *,
    whole: bool,
    clock: Clock,
    alarms: Alarms,
    pulse: Pulse | None,
) -> Any:
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    over: list[TimeoutError] = []

    def end(error: TimeoutError) -> None:
        over.append(error)
        if pulse is not None:
            pulse.cancelled.give()
        limit.reschedule(loop.time())

    def listen() -> None:
        assert pulse is not None
        assert silence is not None
        if (at := pulse.silent_at(silence)) > clock.now():
            listening.set(at)
        else:
            end(HeartbeatTimeout(f"an attempt of {definition.where} said nothing for {silence:g} s"))

    timeout = OneAlarm(alarms, lambda: end(timed_out(definition, whole=whole)))
    listening = OneAlarm(alarms, listen)
    if seconds is not None:
        timeout.set(clock.now() + round(seconds * 1_000_000))
    if pulse is not None and silence is not None:
        listening.set(pulse.silent_at(silence))
    try:
        async with limit:
            return await running
    except TimeoutError as error:
        if limit.expired():
            raise over.pop(0) from error  # it knows this frame
        raise
    finally:
        timeout.close()
        listening.close()


def timed_out(definition: Task[..., Any], *, whole: bool) -> TaskTimeout:
    """The error of an attempt that took too long, or (`whole`) of a task that did, over all of its attempts."""
    if whole:
        return TaskTimeout(f"{definition.where} was not done within its deadline of {definition.policy.deadline:g} s")
    return TaskTimeout(
        f"an attempt of {definition.where} took longer than its timeout of {definition.policy.timeout:g} s"
    )
