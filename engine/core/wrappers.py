"""Tasks that a Python version adds on its own account: they are not branches of the author's.

3.11's `asyncio.wait_for` wraps what it waits for in a task; later versions do not. Histories replay on all of them.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

__all__ = ["ENSURE_FUTURE", "WAIT_FOR_WRAPS", "made_by_wait_for"]

WAIT_FOR_WRAPS: Final = sys.version_info < (3, 12)
"""Whether this Python's `asyncio.wait_for` makes a task."""
_WAIT_FOR: Final = asyncio.wait_for.__code__
ENSURE_FUTURE: Final = asyncio.ensure_future.__code__
"""What `wait_for` goes through, and `gather`, whose branches are many, does not."""


def made_by_wait_for() -> bool:
    """Whether the loop's `create_task`, which asks, was reached from `asyncio.wait_for` through `ensure_future`.

    That is two frames further up; whoever asks looks for the first of them itself, since a call takes as long as that.
    """
    caller = sys._getframe(3).f_back
    return caller is not None and caller.f_code is _WAIT_FOR
