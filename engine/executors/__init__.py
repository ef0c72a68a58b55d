"""Places where attempts run: the event loop for coroutine functions; threads, or processes, for plain ones."""

from __future__ import annotations

from engine.executors.coroutines import LoopExecutor
from engine.executors.port import Encoded, Executor, NotBegun, Nowhere, Slots, Work, WorkFailed
from engine.executors.processes import ProcessExecutor
from engine.executors.threads import ThreadExecutor
from engine.tasks import bind_attempt

__all__ = [
    "Encoded",
    "Executor",
    "LoopExecutor",
    "NotBegun",
    "Nowhere",
    "ProcessExecutor",
    "Slots",
    "ThreadExecutor",
    "Work",
    "WorkFailed",
    "bind_attempt",
]
