"""Call sites: the file and line that asked for a decision, for diagnoses. Never compared."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

__all__ = ["is_library", "site"]

_LIBRARIES: Final = frozenset({"asyncio", "anyio", "engine", "contextlib"})


def is_library(frame: FrameType) -> bool:
    """Whether its code is this library's, asyncio's or anyio's, and not the author's."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _LIBRARIES


def site() -> str:
    """File and line of the nearest caller that is neither this library nor asyncio nor anyio."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_library(frame):
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        if frame.f_code.co_name in ("run_until_quiet", "turn"):
            return ""
        frame = frame.f_back
    return ""
