"""Of what takes long, the default test command does every few; `HOLDFAST_TEST_EVERY=1` does all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["numbers", "some"]

T = TypeVar("T")

STRIDE = 23


def numbers(limit: int, *, offset: int = 0) -> Iterator[int]:
    """The numbers of calls to crash at, below `limit`: all of them, or every twenty-third from an offset on."""
    if os.environ.get("HOLDFAST_TEST_EVERY"):
        return iter(range(1, limit))
    return iter(range(1 + offset % STRIDE, limit, STRIDE))


def some(items: Sequence[T], *, of: int = 3) -> list[T]:
    """All of them, or one of so many, the first among them."""
    return list(items if os.environ.get("HOLDFAST_TEST_EVERY") else items[::of])
