"""User exceptions as data, and back.

An exception is recorded by type name, text, arguments, notes, traceback and causes. Coming back, builtins, the engine's
own errors and the types that a task declares are themselves again; everything else is a `TaskError`. Nothing is ever
imported by a recorded path: a name is looked up among these only.
"""

from __future__ import annotations

import builtins
import math
import traceback as tracebacks
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine import errors
from engine.errors import (
    HistoryError,
    RequestFailedError,
    RequestRefused,
    ResultError,
    RunFailedError,
    TaskError,
)

__all__ = [
    "ERRORS_MAX",
    "TEXT_MAX",
    "ErrorInfo",
    "decode_error",
    "describe",
    "encode_error",
    "plain_text",
    "rebuild",
    "type_name",
]

TEXT_MAX: Final = 32_768
"""Characters of one message or traceback that are recorded; the middle of a longer one is left out, and says so."""
TEXTS_MAX: Final = 8 * TEXT_MAX
"""Characters of all texts of one error together with its causes and members; what comes later gets what is left."""
ERRORS_MAX: Final = 24
"""Exceptions that are recorded of one: itself, causes of causes, members of groups."""
ITEMS_MAX: Final = 16
"""Arguments and notes of one exception that are recorded."""

_SCALARS: Final = (str, int, float, bool, type(None))
_NEVER_ITSELF: Final = (StopIteration, BaseExceptionGroup)  # no future takes the first; the second has members
_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 64) - 1  # what msgspec writes


class ErrorInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An exception as recorded."""

    type: str  # "ValueError" for a builtin, "shop.errors.Declined" otherwise
    message: str = ""
    args: tuple[str | int | float | bool | None, ...] | None = None  # None: not all of them are plain values
    notes: tuple[str, ...] = ()
    traceback: str = ""
    cause: ErrorInfo | None = None
    group: tuple[ErrorInfo, ...] = ()


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(ErrorInfo)
encode_error: Final = _encoder.encode


def decode_error(payload: bytes) -> ErrorInfo:
    """A recorded error. Raises `HistoryError` for bytes that are none."""
    try:
        return _decoder.decode(payload)
    except (ValueError, RecursionError) as damage:
        raise HistoryError(f"a recorded error cannot be read: {damage}") from damage


def type_name(type_: type[BaseException]) -> str:
    """The name an exception type is recorded under."""
    if type_.__module__ == "builtins":
        return type_.__qualname__
    return _utf8(f"{type_.__module__}.{type_.__qualname__}")


def describe(error: BaseException) -> ErrorInfo:
    """An exception as data. Never raises: what fails of a hostile one (its `str`, its notes) is recorded as such."""
    return _Recorder().record(error)


class _Recorder:
    """Describes one exception and what hangs on it, within limits that hold for all of it together."""

    def __init__(self) -> None:
        self._errors = ERRORS_MAX
        self._characters = TEXTS_MAX

    def record(self, error: BaseException) -> ErrorInfo:
        self._errors -= 1
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        args = _args_of_ours(error) or _args_of(error)
        return ErrorInfo(
            type=type_name(type(error)),
            message=self._text(error),
            args=self._recordable(args),
            notes=tuple(self._text(note) for note in _notes_of(error)),
            traceback=self._clip("".join(tracebacks.format_tb(error.__traceback__))),
            cause=self.record(cause) if cause is not None and self._errors > 0 else None,
            group=tuple(self.record(member) for member in members if self._errors > 0),
        )

    def _text(self, value: object) -> str:
        return self._clip(_str(value))

    def _clip(self, text: str) -> str:
        clipped = _clip(text, min(TEXT_MAX, self._characters))
        self._characters = max(0, self._characters - len(clipped))
        return clipped

    def _recordable(self, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The arguments, if every one of them can be written as JSON and read back."""
        if len(args) > ITEMS_MAX or not all(type(arg) in _SCALARS for arg in args):
            return None
        if any(isinstance(arg, float) and not math.isfinite(arg) for arg in args):
            return None
        if any(isinstance(arg, int) and not _INT_MIN <= arg <= _INT_MAX for arg in args):
            return None
        return tuple(self._clip(arg) if isinstance(arg, str) else arg for arg in args)


def plain_text(value: object) -> str:
    """`str` of whatever it is, fit to be recorded: never fails, is never huge, can be written as UTF-8."""
    return _clip(_str(value), TEXT_MAX)


def rebuild(info: ErrorInfo, raises: Sequence[type[BaseException]] = ()) -> BaseException:
    """The exception that workflow code sees for a recorded error, with its causes chained by `__cause__`."""
    error = _instance(info, raises)
    with suppress(Exception):  # a type may be as hostile coming back as it was going
        for note in info.notes:
            error.add_note(note)
        if info.traceback:
            error.add_note(f"Recorded traceback (most recent call last):\n{info.traceback.rstrip()}")
    if info.cause is not None:
        error.__cause__ = rebuild(info.cause, raises)
    return error


def _instance(info: ErrorInfo, raises: Sequence[type[BaseException]]) -> BaseException:
    type_ = _lookup(info.type, raises)
    if type_ is not None:
        args: tuple[Any, ...] = (info.message,) if info.args is None else info.args
        try:
            error = _run_failed(*args) if type_ is RunFailedError else type_(*args)
        except Exception:
            # A constructor that wants something else than its args (UnicodeDecodeError, a user's own): data it stays.
            return TaskError(info.type, info.message, info.traceback)
        if isinstance(error, TaskError):
            error.traceback = info.traceback
        elif isinstance(error, RunFailedError) and info.cause is not None:
            error.traceback = info.cause.traceback
        return error
    return TaskError(info.type, info.message, info.traceback)


def _lookup(name: str, raises: Sequence[type[BaseException]]) -> type[BaseException] | None:
    for declared in raises:
        if type_name(declared) == name and not issubclass(declared, _NEVER_ITSELF):
            return declared
    own = name.removeprefix("engine.errors.")
    type_ = getattr(errors, own, None) if own != name else getattr(builtins, name, None)
    # Only ordinary exceptions come back as themselves: a recorded SystemExit must not end a process.
    if isinstance(type_, type) and issubclass(type_, Exception) and not issubclass(type_, _NEVER_ITSELF):
        return type_
    return None


def _run_failed(run_id: str, type_: str, message: str) -> RunFailedError:
    return RunFailedError(run_id, type=type_, message=message, traceback="")


def _args_of_ours(error: BaseException) -> tuple[Any, ...] | None:
    """What errors of ours are made of that say more than their text; recorded before they had that, they are data."""
    match error:
        case RunFailedError():
            return error.run_id, error.type, error.message
        case ResultError():
            return error.run_id, str(error)
        case RequestRefused() | RequestFailedError():
            return error.request_id, str(error)
        case TaskError():
            return error.type, error.message
        case _:
            return None


def _args_of(error: BaseException) -> tuple[Any, ...]:
    """What its type was called with. An `OSError` keeps its file names beside its `args`."""
    try:
        args = error.args
    except Exception:
        return (None,) * (ITEMS_MAX + 1)  # more than are recorded: its text will do
    if isinstance(error, OSError) and len(args) == 2 and isinstance(error.filename, str):
        if isinstance(error.filename2, str):
            return (*args, error.filename, None, error.filename2)
        return (*args, error.filename)
    return args


def _notes_of(error: BaseException) -> list[Any]:
    try:
        notes = getattr(error, "__notes__", [])
    except Exception:
        return []
    return notes[:ITEMS_MAX] if isinstance(notes, list) else []


def _str(value: object) -> str:
    try:
        return str(value)
    except Exception as failure:
        return f"<str() of {type(value).__qualname__} failed with {type(failure).__qualname__}>"


def _utf8(text: str) -> str:
    # Lone surrogates cannot be written as UTF-8; what cannot be recorded is escaped rather than lost.
    return text.encode("utf-8", "backslashreplace").decode()


def _clip(text: str, limit: int) -> str:
    text = _utf8(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n... {left_out} characters left out ...\n{text[len(text) - half :]}"
