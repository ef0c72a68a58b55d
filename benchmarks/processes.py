"""Measuring in a process of its own: memory that another measurement left behind would be found free, and reused."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

__all__ = ["in_fresh_process", "peak_bytes", "resident_bytes"]

P = ParamSpec("P")
R = TypeVar("R")


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of a module in a new interpreter, and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def resident_bytes() -> int:
    """Memory that this process has now. Where the system does not tell, the most that it ever had."""
    return _status("VmRSS") or _most_ever()


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return _status("VmHWM") or _most_ever()


def _status(field: str) -> int | None:
    """A field of Linux's status file. `ru_maxrss` begins with what the parent process had, this does not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


def _most_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * unit
