"""Places where attempts run: the event loop for coroutine functions, threads for plain ones."""

from __future__ import annotations

from engine.executors.coroutines import LoopExecutor
from engine.executors.port import Encoded, Executor, Nowhere, Slots, Work, WorkFailed
from engine.executors.threads import ThreadExecutor

__all__ = [
    "Encoded",
    "Executor",
    "LoopExecutor",
    "Nowhere",
    "Slots",
    "ThreadExecutor",
    "Work",
    "WorkFailed",
]
