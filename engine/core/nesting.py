"""One event loop inside another: steps aside for whatever loop and task are current, and puts them back.

Meanwhile nothing is garbage collected. A collection runs code: `finally` blocks of coroutines and generators that some
other part of the process has left, which would find this loop to be the running one, and decide in the name of its run.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import events
from collections.abc import Callable
from threading import get_ident, local
from typing import Any, ParamSpec, TypeVar

__all__ = ["here", "outside", "run_nested"]

P = ParamSpec("P")
R = TypeVar("R")


class _Here(local):
    """Which of these loops is the running one in this thread, if one is. asyncio would tell, too, but before Python
    3.12 it asks the system for the process's id each time, which takes as long as all else that a call does.
    """

    loop: Any = None


here = _Here()


def run_nested(loop: Any, work: Callable[..., None], *args: Any) -> None:
    """Call `work(*args)` with `loop` as the running loop of this thread.

    Meanwhile the loop's `thread` is this thread's identity, and 0 otherwise; async generators that begin or are
    collected inside are handed to its `generator_begins` and `generator_dies`.
    The outer loop may be asyncio's or uvloop's, or there may be none. Its current task is left and entered again,
    which CPython 3.14 insists on and earlier versions allow.
    """
    outer_loop = asyncio._get_running_loop()
    outer_task = asyncio.current_task(outer_loop) if outer_loop is not None else None
    if outer_loop is not None and outer_task is not None:
        asyncio.tasks._leave_task(outer_loop, outer_task)
    outer_hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=loop.generator_begins, finalizer=loop.generator_dies)
    events._set_running_loop(loop)
    before, here.loop = here.loop, loop
    loop.thread = get_ident()
    collecting = gc.isenabled()
    gc.disable()
    try:
        work(*args)
    finally:
        if collecting:
            gc.enable()
        loop.thread = 0
        here.loop = before
        events._set_running_loop(outer_loop)
        sys.set_asyncgen_hooks(*outer_hooks)
        if outer_loop is not None and outer_task is not None:
            asyncio.tasks._enter_task(outer_loop, outer_task)


def outside(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `work` as what is not the workflow's own code, from wherever that is: it may reach outside."""
    loop, here.loop = here.loop, None
    try:
        return work(*args, **kwargs)
    finally:
        here.loop = loop
