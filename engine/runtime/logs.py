"""Plain `logging` and `warnings` in workflow code: said once, when it happens, and not again by every replay.

Record factories are chained (`logging.setLogRecordFactory`), once, when the first engine opens. Inside a workflow a
record gets `run_id`; while a history is replayed, or an instance put away, it gets a level that no handler takes.
Nothing else changes: `isEnabledFor` answers as ever (code may ask), filters and other people's factories see every
record.

Said once means: as often as the turn was taken live. A crash before the turn was committed takes it again, and says it
again.

A warning of a replay is not shown, whatever shows warnings, and does not count as shown: Python shows one once per
process and place, and the next live one there may be another run's. What filters turn into an exception is one at a
replay too: the workflow saw it.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from engine.core.nesting import here

__all__ = ["quiet_replays"]

_NO_HANDLER: Final = -(1 << 62)
"""A level below that of every handler."""
_PROBE: Final = object()
"""The message of a record that is never handled: whoever finds it is in the chain."""


def quiet_replays() -> None:
    """Let no replay say anything again, in this process; what is done for that once is not done twice."""
    _quiet_records()
    _quiet_warnings()


def _quiet_records() -> None:
    """Chain our record factory on top of the one there is, unless it is somewhere below that already."""
    factory = logging.getLogRecordFactory()
    with suppress(Exception):  # somebody's factory that does not take the probe; ours on top is right all the same
        if getattr(factory(__name__, 0, "", 0, _PROBE, (), None), "quiets_replays", False):
            return
    logging.setLogRecordFactory(_Factory(factory))


class _Factory:
    """Makes a record by the factory that was there before."""

    def __init__(self, before: Callable[..., logging.LogRecord]) -> None:
        self._before = before

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._before(*args, **kwargs)
        loop = here.loop
        if loop is not None:
            if loop.replaying:
                record.levelno = _NO_HANDLER
            if not _brings_its_own():
                record.run_id = loop.host.run_id
        elif record.msg is _PROBE:
            record.quiets_replays = True
        return record


def _brings_its_own() -> bool:
    """Whether the record is made with `extra={"run_id": ...}`: `logging` refuses one that is there already."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not _MAKE_RECORD:
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return "run_id" in (frame.f_locals.get("extra") or ())


_MAKE_RECORD: Final = logging.Logger.makeRecord.__code__


def _quiet_warnings() -> None:
    # The one function that each warning to be shown goes through, by C code too. Above it are filters; below it is
    # `warnings.showwarning`, which `logging`, pytest and `catch_warnings` change, and change back, as they need it.
    show: Any = getattr(warnings, _SHOW, None)
    if show is not None and not isinstance(show, _Show):
        setattr(warnings, _SHOW, _Show(show))


class _Show:
    """Shows a warning as it was shown before, unless a replay gives it."""

    def __init__(self, before: Callable[[Any], None]) -> None:
        self._before = before

    def __call__(self, message: Any) -> None:
        if here.loop is not None and here.loop.replaying:
            _forget_shown(message, sys._getframe(1))
        else:
            self._before(message)


def _forget_shown(message: Any, frame: Any) -> None:
    """Take it out of what `warnings` remembers to have shown: by the place that it blames, or once and for all."""
    text, category = str(message.message), message.category
    while frame is not None:
        if frame.f_code.co_filename == message.filename and frame.f_lineno == message.lineno:
            shown = frame.f_globals.get("__warningregistry__", {})
            for line in (message.lineno, 0):  # of the filters "default" and "module"
                shown.pop((text, category, line), None)
            break
        frame = frame.f_back
    getattr(warnings, "onceregistry", {}).pop((text, category), None)


_SHOW: Final = "_showwarnmsg"
