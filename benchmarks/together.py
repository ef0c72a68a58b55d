"""The same work in several worker processes on one store, each of which has its share of it.

SQLite takes one writer at a time, whoever that is, so the limit is still what one file takes. What a worker does beside
is processor time, of which a machine has as many as it has processors.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, TypeAlias

__all__ = ["Work", "seconds_together"]

Work: TypeAlias = Callable[..., Coroutine[Any, Any, float]]
"""``work(path, ready=..., **sizes)``: calls `ready` when its engine is open, and returns the seconds behind that."""

_start: Barrier | None = None  # of this process


def seconds_together(work: Work, path: Path, shares: list[dict[str, Any]]) -> float:
    """Seconds until the last of them has ended, from when all engines are open. One share is done in this process.

    The others collect garbage as often as this one does.
    """
    if len(shares) == 1:
        return asyncio.run(work(path, **shares[0]))
    context = multiprocessing.get_context("spawn")
    prepared = context.Barrier(len(shares)), gc.get_threshold()
    with ProcessPoolExecutor(len(shares), mp_context=context, initializer=_prepare, initargs=prepared) as pool:
        return max(pool.map(partial(_share, work, path), range(len(shares)), shares))


def _prepare(start: Barrier, thresholds: tuple[int, int, int]) -> None:
    global _start  # noqa: PLW0603 - of a process that does nothing else
    _start = start
    gc.set_threshold(*thresholds)


def _share(work: Work, path: Path, index: int, sizes: dict[str, Any]) -> float:
    assert _start is not None
    asyncio.run(work(path.with_name(f"warm-{index}-{path.name}"), **sizes))
    return asyncio.run(work(path, ready=_start.wait, **sizes))
