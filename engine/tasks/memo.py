"""Memos: what a task has returned once, used again by later calls under the same key, in whichever run.

`Memo` says for how long, under which key, and for which version of the code. What a memo is not is a promise: it may be
missing when it could be there, and then the task runs. So it is for tasks whose result is all that they are for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from math import isfinite
from textwrap import dedent
from typing import Any, Final

from msgspec import Struct

from engine.core.nesting import here
from engine.errors import DefinitionError

__all__ = ["Memo", "SourceVersion", "check_memo"]

_DIGITS: Final = 16  # hex digits of a digest of source: 64 bits, among the versions of one function
_BEGINNINGS: Final = ("def ", "async def ")


class Memo(Struct, frozen=True, kw_only=True):
    """How a task's results are kept for later calls: ``@task(memo=Memo(expires=timedelta(days=1)))``.

    `expires`: for how long a result is used again, as a `timedelta` or in seconds; None: for ever.
    `key`: a plain function of the task's arguments that gives what the result depends on, as a value that can be
    written as JSON: calls with equal keys share a result. It is called by the engine, outside any workflow, on the
    event loop: it must be quick. None: all arguments.
    `version`: of the code; results of another version are not used. None: a digest of the function's source text.
    """

    expires: timedelta | float | None = None
    key: Callable[..., Any] | None = None
    version: str | None = None

    @property
    def lifetime(self) -> int | None:
        """Microseconds for which a result is used again; None: for ever."""
        if self.expires is None:
            return None
        if isinstance(self.expires, timedelta):
            return self.expires // timedelta(microseconds=1)
        return round(self.expires * 1_000_000)


class SourceVersion:
    """The version of a function's code, made of its source text when it is first asked for.

    One for a task and all that its `options` make: inside a workflow no file can be read.
    """

    __slots__ = ("_fn", "_found")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._found = ""

    def get(self, where: str) -> str:
        """16 hex digits. Raises `DefinitionError`, naming `where`, when the source cannot be had."""
        if not self._found:
            self._found = sha256(_source(self._fn, where).encode()).hexdigest()[:_DIGITS]
        return self._found


def check_memo(memo: Any, *, effect: str, where: str, source: SourceVersion) -> None:
    """Raise `DefinitionError` for a memo that cannot be so, or has no place on this task."""
    if not isinstance(memo, Memo):
        raise DefinitionError(f"{where}: memo takes a Memo, as in memo=Memo(expires=3600), not {memo!r}")
    if effect != "idempotent":
        raise DefinitionError(
            f"{where}: memo and effect={effect!r} exclude each other: a memo hands on an earlier result and leaves the"
            " work out, so that an effect which must happen for each call would not. Put what only computes or reads"
            " into a task of its own, and memoise that"
        )
    expires = memo.expires
    if expires is not None:
        is_span = isinstance(expires, timedelta) or (type(expires) in (int, float) and isfinite(expires))
        if not is_span or (memo.lifetime or 0) <= 0:
            raise DefinitionError(
                f"{where}: Memo(expires=...) is a timedelta or a number of seconds, above 0, not {expires!r};"
                " leave it out for what never expires"
            )
    if memo.key is not None and (not callable(memo.key) or inspect.iscoroutinefunction(memo.key)):
        raise DefinitionError(
            f"{where}: Memo(key=...) is a plain function of the task's arguments that gives what the result depends on,"
            f" not {memo.key!r}"
        )
    if memo.version is None:
        if here.loop is None:  # inside a workflow no file is read: the engine asks when it looks the result up
            source.get(where)
    elif not isinstance(memo.version, str) or not memo.version:
        raise DefinitionError(f"{where}: Memo(version=...) is a text such as '2', not {memo.version!r}")


def _source(fn: Callable[..., Any], where: str) -> str:
    """The text of a function, without what decorates it: another timeout makes no other result."""
    try:
        text = dedent("".join(inspect.getsourcelines(fn)[0]))
    except (OSError, TypeError) as error:
        raise DefinitionError(
            f"{where}: its source text cannot be read ({error}), so its memo does not know when the code is another:"
            " say so with Memo(version='1'), and change that with the code"
        ) from error
    lines = text.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if line.startswith(_BEGINNINGS)), 0)
    return "".join(lines[first:])
