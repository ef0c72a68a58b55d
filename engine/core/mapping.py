"""Calling one task or workflow for each of very many inputs, with a bounded number of calls under way.

Plain asyncio, which an author could write as well; a `gather` over 100,000 calls holds all of them in memory, this
holds a window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["mapped"]

T = TypeVar("T")
R = TypeVar("R")


async def mapped(
    call: Callable[[T], Coroutine[Any, Any, R]],
    inputs: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int,
    ordered: bool,
) -> AsyncGenerator[R, None]:
    """Results of `call(each)`: in the order of the inputs, or as they come. See `Definition.map`."""
    under_way: deque[asyncio.Task[R]] = deque()
    try:
        async for each in _each(inputs):
            under_way.append(asyncio.create_task(call(each)))
            if len(under_way) >= concurrency:
                yield await _next(under_way, ordered=ordered)
        while under_way:
            yield await _next(under_way, ordered=ordered)
    finally:
        for branch in under_way:
            branch.cancel()
        if under_way:
            await asyncio.wait(under_way)
        for branch in under_way:
            if not branch.cancelled():
                branch.exception()  # heard: the first failure is the one that is raised


async def _next(under_way: deque[asyncio.Task[R]], *, ordered: bool) -> R:
    """The next result, its branch taken out."""
    if not ordered:
        done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        first = next(branch for branch in under_way if branch in done)
        under_way.remove(first)
        return first.result()
    first = under_way[0]
    result = await first
    under_way.popleft()
    return result


async def _each(inputs: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(inputs, AsyncIterable):
        async for each in inputs:
            yield each
    else:
        for each in inputs:
            yield each
