"""What goes wrong, as a person at a prompt should hear it: one line (what, where, what to do) and an exit code.

The engine's and the store's messages are written for that already; here they only get their exit code. What nobody
foresaw is said to be so, with the way to its traceback (`--debug`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from engine.errors import (
    DamagedExport,
    DoesNotVerify,
    EngineFailed,
    ExportError,
    HistoryError,
    HoldfastError,
    KeepingRefused,
    NotPublished,
    QueryFailed,
    RepairRefused,
    RequestFailedError,
    RequestRefused,
    RunEnded,
    RunPrunedError,
    RunSuspendedError,
)
from eventstore import EventStoreError, InvalidArgument, LimitReached, StreamDiffers

__all__ = ["Exit", "Problem", "problem_of"]


class Exit(IntEnum):
    """The exit codes of `holdfast`, as `--help` lists them."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    STORE = 3
    SUSPENDED = 4
    REFUSED = 5
    ENDED = 6
    WAITING = 7
    DOES_NOT_VERIFY = 8
    DEFECT = 70
    INTERRUPTED = 130


class Problem(Exception):
    """Something the user must hear. `message` may have several lines; `hint` says what to do next."""

    def __init__(self, message: str, *, code: Exit = Exit.USAGE, hint: str = "") -> None:
        self.message = message
        self.code = code
        self.hint = hint
        super().__init__(message)


_CODES: Final[tuple[tuple[type[HoldfastError], Exit], ...]] = (
    (RunEnded, Exit.ENDED),
    (RequestRefused, Exit.REFUSED),
    (RepairRefused, Exit.REFUSED),
    (KeepingRefused, Exit.REFUSED),
    (RunPrunedError, Exit.ENDED),
    (RequestFailedError, Exit.FAILED),
    (QueryFailed, Exit.FAILED),
    (NotPublished, Exit.FAILED),
    (RunSuspendedError, Exit.SUSPENDED),
    (DoesNotVerify, Exit.DOES_NOT_VERIFY),
    (DamagedExport, Exit.DOES_NOT_VERIFY),
    (ExportError, Exit.STORE),
)
"""What the engine says of a run, as exit codes; everything else that it raises on purpose is wrong usage."""


def problem_of(error: BaseException) -> Problem:
    """The problem that an exception stands for."""
    match error:
        case Problem():
            return error
        case EngineFailed():
            cause = error.__cause__
            return Problem(
                f"{error}: {cause}" if cause is not None and str(cause) not in str(error) else str(error),
                code=Exit.STORE,
                hint="Nothing more was recorded. When the store works again, the same command goes on.",
            )
        case InvalidArgument():
            return Problem(str(error))
        case StreamDiffers() | LimitReached():
            return Problem(str(error), code=Exit.REFUSED)
        case EventStoreError() | HistoryError():
            return Problem(str(error), code=Exit.STORE)
        case HoldfastError():
            return Problem(
                str(error), code=next((code for type_, code in _CODES if isinstance(error, type_)), Exit.USAGE)
            )
        case OSError():
            return Problem(_os_error(error), code=Exit.STORE)
        case ExceptionGroup() if len(error.exceptions) == 1:
            return problem_of(error.exceptions[0])
        case _:
            return Problem(
                f"unexpected {type(error).__qualname__}: {error}",
                code=Exit.DEFECT,
                hint="This is a defect of holdfast, not of your code; --debug shows the traceback.",
            )


def _os_error(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__qualname__
    return f"{error.filename}: {what}" if error.filename else what
