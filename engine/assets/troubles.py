"""What is said of an error of an author's function: its type and text, where it was raised, and no secret."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final

from engine.assets.values import AssetContext
from engine.errors import AssetError, TaskError

__all__ = ["ERROR_CHARACTERS", "place_of", "text_of", "told", "watched"]

ERROR_CHARACTERS: Final = 10_000
"""Of an error's text, in an event."""

_PLACE: Final = "raised at "
SECRET_CHARACTERS_MIN: Final = 4
"""A secret that is shorter is found everywhere: it is not looked for."""
CAUSES_MAX: Final = 24
"""Causes of causes of an error that are looked at."""


def told(error: Exception) -> str:
    """Type and text of an error that a task has raised, and where, if it says so."""
    place = place_of(error)
    return f"{text_of(error)} ({_PLACE}{place})" if place else text_of(error)


def place_of(error: Exception) -> str:
    """File and line where it was raised, if it says so; else ""."""
    notes = (str(note) for note in getattr(error, "__notes__", ()))
    return next((note.removeprefix(_PLACE) for note in notes if note.startswith(_PLACE)), "")


@contextmanager
def watched(fn: Callable[..., Any] | None, context: AssetContext) -> Iterator[None]:
    """While a function runs: its errors say where in its file they were raised, and none of the secrets it was given.

    It says so in a note, which is recorded with the error: whoever replays the run reads it there.
    """
    try:
        yield
    except Exception as error:
        place = _place(fn, error)
        shown = _without_secrets(error, context)
        if place:
            with suppress(Exception):  # of a hostile one
                shown.add_note(place)
        if shown is error:
            raise
        raise shown.with_traceback(error.__traceback__) from None


def text_of(error: Exception) -> str:
    """Type and text, whatever it is, within ERROR_CHARACTERS."""
    if isinstance(error, TaskError):
        return f"{error.type}: {error.message}"[:ERROR_CHARACTERS]
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception as another:
        text = f"{type(error).__name__}, whose text cannot be made: {type(another).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()[:ERROR_CHARACTERS]  # half a character is no JSON


def _place(fn: Callable[..., Any] | None, error: Exception) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None) if fn is not None else None
    if code is None:
        return ""
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == code.co_filename]
    return f"{_PLACE}{Path(code.co_filename).name}:{lines[-1]}" if lines else ""


def _without_secrets(error: Exception, context: AssetContext) -> Exception:
    found = [each for each in context.given_secrets if len(each) >= SECRET_CHARACTERS_MIN]
    if not any(secret in text for text in _texts(error) for secret in found):
        return error
    said = text_of(error)
    for secret in found:
        said = said.replace(secret, "***")
    return AssetError(said)


def _texts(error: BaseException | None) -> Iterator[str]:
    """What is recorded of an error and its causes."""
    for _ in range(CAUSES_MAX):
        if error is None:
            return
        with suppress(Exception):  # of a hostile one nothing is recorded either
            yield f"{error} {error.args} {getattr(error, '__notes__', '')}"
        for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
            yield from _texts(each)
        error = error.__cause__ or error.__context__
