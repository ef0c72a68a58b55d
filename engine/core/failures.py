"""User exceptions as data, and back.

An exception is recorded by type name, text, arguments, notes, traceback and causes. Coming back, builtins and the types
that a task declares are themselves again; everything else is a `TaskError`. Nothing is ever imported by a recorded
path: a name is looked up among builtins and the declared types only.
"""

from __future__ import annotations

import builtins
import math
import traceback as tracebacks
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine import errors
from engine.errors import HistoryError, TaskError

__all__ = ["CAUSES_MAX", "TEXT_MAX", "ErrorInfo", "decode_error", "describe", "encode_error", "rebuild", "type_name"]

TEXT_MAX: Final = 32_768
"""Characters of one message or traceback that are recorded; the middle of a longer one is left out, and says so."""
CAUSES_MAX: Final = 16
"""Causes of causes, and members of a group, that are recorded."""

_SCALARS: Final = (str, int, float, bool, type(None))
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
    except msgspec.MsgspecError as damage:
        raise HistoryError(f"a recorded error cannot be read: {damage}") from damage


def type_name(type_: type[BaseException]) -> str:
    """The name an exception type is recorded under."""
    if type_.__module__ == "builtins":
        return type_.__qualname__
    return f"{type_.__module__}.{type_.__qualname__}"


def describe(error: BaseException, *, depth: int = CAUSES_MAX) -> ErrorInfo:
    """An exception as data. Never raises: an exception whose `str` fails is recorded as such."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    args = _recordable(_args_of(error))
    if isinstance(error, TaskError) and type(error) is TaskError:
        args = (error.type, error.message)
    return ErrorInfo(
        type=type_name(type(error)),
        message=_clip(_text(error)),
        args=args,
        notes=tuple(_clip(str(note)) for note in getattr(error, "__notes__", ())),
        traceback=_clip("".join(tracebacks.format_tb(error.__traceback__))),
        cause=describe(cause, depth=depth - 1) if cause is not None and depth > 0 else None,
        group=tuple(describe(member, depth=depth - 1) for member in members[:CAUSES_MAX]) if depth > 0 else (),
    )


def rebuild(info: ErrorInfo, raises: Sequence[type[BaseException]] = ()) -> BaseException:
    """The exception that workflow code sees for a recorded error, with its causes chained by `__cause__`."""
    error = _instance(info, raises)
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
            error = type_(*args)
        except Exception:
            # A constructor that wants something else than its args (UnicodeDecodeError, a user's own): data it stays.
            return TaskError(info.type, info.message, info.traceback)
        if isinstance(error, TaskError):
            error.traceback = info.traceback
        return error
    return TaskError(info.type, info.message, info.traceback)


def _lookup(name: str, raises: Sequence[type[BaseException]]) -> type[BaseException] | None:
    for declared in raises:
        if type_name(declared) == name:
            return declared
    own = name.removeprefix("engine.errors.")
    type_ = getattr(errors, own, None) if own != name else getattr(builtins, name, None)
    # Only ordinary exceptions come back as themselves: a recorded SystemExit must not end a process.
    if isinstance(type_, type) and issubclass(type_, Exception) and not issubclass(type_, BaseExceptionGroup):
        return type_
    return None


def _args_of(error: BaseException) -> tuple[Any, ...]:
    """What its type was called with. An `OSError` keeps its file names beside its `args`."""
    if isinstance(error, OSError) and len(error.args) == 2 and isinstance(error.filename, str):
        if isinstance(error.filename2, str):
            return (*error.args, error.filename, None, error.filename2)
        return (*error.args, error.filename)
    return error.args


def _recordable(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arguments, if every one of them can be written as JSON and read back."""
    if not all(type(arg) in _SCALARS for arg in args):
        return None
    if any(isinstance(arg, float) and not math.isfinite(arg) for arg in args):
        return None
    if any(isinstance(arg, int) and not _INT_MIN <= arg <= _INT_MAX for arg in args):
        return None
    return tuple(_clip(arg) if isinstance(arg, str) else arg for arg in args[:CAUSES_MAX])


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"<str() of the exception failed with {type(failure).__qualname__}>"


def _clip(text: str) -> str:
    # Lone surrogates cannot be written as UTF-8; what cannot be recorded is escaped rather than lost.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= TEXT_MAX:
        return text
    half = TEXT_MAX // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
