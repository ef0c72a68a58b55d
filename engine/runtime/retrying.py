"""Asks tenacity's policies whether a failed attempt is followed by another, and when.

The policies are asked once, here, when the attempt fails; only the answer goes into the history. So a restart goes on
with the same back-off: how many attempts failed, how long ago the first began and how long was waited are read from
the history and handed to the policies as if they had been watching all along.
"""

from __future__ import annotations

import math
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.tasks import Task

if TYPE_CHECKING:
    import tenacity

__all__ = ["PastAttempts", "seconds_to_wait"]


class PastAttempts(Struct, frozen=True, kw_only=True):
    """What the history says of a task whose attempt has just failed. Times in seconds."""

    failed: int  # attempts that failed, this one included
    elapsed: float  # since the first attempt began
    slept: float  # waited between attempts so far


async def seconds_to_wait(
    definition: Task[..., Any], error: BaseException, past: PastAttempts, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> float | None:
    """How long to wait before the next attempt; None when there is none.

    Raises what a policy raises: a policy that fails is the author's bug, and final.
    """
    policy = definition.policy
    if not policy.retries:
        return None
    import tenacity  # noqa: PLC0415 - it takes as long as all of the core, and only who retries needs it

    retry: Any = policy.retry if policy.retry is not None else tenacity.retry_if_exception_type()
    state = _state(definition, error, past, args, kwargs)
    if not isinstance(error, tenacity.TryAgain) and not await _answer(retry(state)):
        return None
    wait = await _answer(policy.wait(state)) if policy.wait is not None else 0.0
    # tenacity's own order: stop_before_delay looks at the sleep that is coming up.
    state.upcoming_sleep = float(wait)
    if policy.stop is not None and await _answer(policy.stop(state)):
        return None
    if not math.isfinite(state.upcoming_sleep):
        raise ValueError(f"the wait policy of {definition.where} answered {wait!r} seconds")
    return max(0.0, state.upcoming_sleep)


def _state(
    definition: Task[..., Any], error: BaseException, past: PastAttempts, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tenacity.RetryCallState:
    import tenacity  # noqa: PLC0415 - as above

    retrying: Any = tenacity.AsyncRetrying(
        stop=definition.policy.stop or tenacity.stop_never, wait=definition.policy.wait or tenacity.wait_none()
    )
    state = tenacity.RetryCallState(retrying, definition.fn, args, kwargs)
    state.attempt_number = past.failed
    state.set_exception((type(error), error, error.__traceback__))
    assert state.outcome_timestamp is not None
    state.start_time = state.outcome_timestamp - past.elapsed
    state.idle_for = past.slept
    return state


async def _answer(answer: Any) -> Any:
    """A policy's answer; tenacity's asyncio policies are coroutine functions."""
    return await answer if isawaitable(answer) else answer
