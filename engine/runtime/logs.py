"""Plain `logging` in workflow code: said once, when it happens, and not again by every replay.

Record factories are chained (`logging.setLogRecordFactory`), once, when the first engine opens. Inside a workflow a
record gets `run_id`; while a history is replayed, or an instance put away, it gets a level that no handler takes.
Nothing else changes: `isEnabledFor` answers as ever (code may ask), filters and other people's factories see every
record.

Said once means: as often as the turn was taken live. A crash before the turn was committed takes it again, and says it
again. `warnings.warn` is not touched: Python shows a warning once per process and place, unless its filters say
otherwise, and `logging.captureWarnings(True)` brings it here.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

__all__ = ["quiet_replays"]

_NO_HANDLER: Final = -(1 << 62)
"""A level below that of every handler."""
_PROBE: Final = object()
"""The message of a record that is never handled: whoever finds it is in the chain."""


def quiet_replays() -> None:
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
        loop: Any = asyncio._get_running_loop()
        if getattr(loop, "holds_workflow", False):
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
