"""Of what takes long, the default test command does every few; `HOLDFAST_TEST_EVERY=1` does all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["numbers"]

STRIDE = 8


def numbers(limit: int, *, offset: int = 0) -> Iterator[int]:
    """The numbers of calls to crash at, below `limit`: all of them, or every eighth from an offset on."""
    if os.environ.get("HOLDFAST_TEST_EVERY"):
        return iter(range(1, limit))
    return iter(range(1 + offset % STRIDE, limit, STRIDE))
