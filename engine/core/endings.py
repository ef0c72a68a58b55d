"""How a workflow function ends, as a decision: completed, failed, cancelled, or continued as new."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from engine.core.call import Call, Definition
from engine.core.carriage import Carriage
from engine.core.events import ContinuedAsNew, RunCancelled, RunCompleted, RunFailed
from engine.core.failures import describe, encode_error, plain_text
from engine.errors import ArgumentsError, DefinitionError, NotRecordable, PayloadTooLarge

__all__ = ["ContinueAsNew", "Ending", "ending_of"]

Ending: TypeAlias = RunCompleted | RunFailed | RunCancelled | ContinuedAsNew


class ContinueAsNew(BaseException):
    """Raised by `durable.continue_as_new`: leaves the workflow function, through its `finally` blocks."""

    def __init__(self, call: Call[Any], *, newest: bool = True) -> None:
        self.call = call
        self.newest = newest
        super().__init__("the run continues as new")


def ending_of(
    main: asyncio.Task[Any], definition: Definition[..., Any], *, at: int, cancel_reason: str, carriage: Carriage
) -> tuple[Ending, bytes | None]:
    """The outcome of a workflow function that has ended, and its payload."""
    if main.cancelled():
        return RunCancelled(at=at, reason=cancel_reason or _message_of(main)), None
    error = main.exception()
    try:
        if error is None:
            return RunCompleted(at=at), definition.result.encode_checked(main.result(), carriage)
        if (wish := _continuation(error)) is not None:
            next_ = wish.call.definition
            arguments = next_.arguments.encode(wish.call.args, wish.call.kwargs, carriage)
            next_.arguments.decode(arguments, carriage)
            pinned = "" if wish.newest else next_.version
            return ContinuedAsNew(at=at, pinned=not wish.newest, version=pinned), arguments
    except (DefinitionError, NotRecordable, PayloadTooLarge, ArgumentsError) as refused:
        return _failed(refused, at=at)  # not under a name that lasts: it knows this frame
    return _failed(error, at=at)


def _failed(error: BaseException, *, at: int) -> tuple[Ending, bytes]:
    info = describe(error)
    return RunFailed(at=at, error=info.type), encode_error(info)


def _continuation(error: BaseException) -> ContinueAsNew | None:
    """The wish to go on, also where a task group has wrapped the wish in a group with nothing else in it."""
    if isinstance(error, ContinueAsNew):
        return error
    if isinstance(error, BaseExceptionGroup):
        wishes = [_continuation(member) for member in error.exceptions]
        return wishes[0] if None not in wishes else None
    return None


def _message_of(cancelled: asyncio.Task[Any]) -> str:
    """What a workflow said that cancelled itself.

    One that was asked to by a fact ends with that fact's reason: the message of a CancelledError gets lost on the way
    in some Python versions, and in anyio's there are addresses.
    """
    try:
        cancelled.result()
    except asyncio.CancelledError as error:
        return plain_text(error.args[0] or "") if error.args else ""
    return ""
