"""Tasks that a Python version adds on its own account: they are not branches of the author's.

3.11's `asyncio.wait_for` wraps what it waits for in a task; later versions do not. Histories replay on all of them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

__all__ = ["WAIT_FOR_WRAPS", "made_by_wait_for"]

WAIT_FOR_WRAPS: Final = sys.version_info < (3, 12)
"""Whether this Python's `asyncio.wait_for` makes a task."""
_WAIT_FOR: Final = asyncio.wait_for.__code__
_ENSURE_FUTURE: Final = asyncio.ensure_future.__code__


def made_by_wait_for() -> bool:
    """Whether the loop's `create_task`, which asks, was reached from `asyncio.wait_for` through `ensure_future`.

    That is two frames further up: `gather`, whose branches are many, goes without the first of them, and is known at
    once; of frames that are only passed by no object is made.
    """
    frame = sys._getframe(3)
    if frame.f_code is not _ENSURE_FUTURE:
        return False
    caller = frame.f_back
    return caller is not None and caller.f_code is _WAIT_FOR
