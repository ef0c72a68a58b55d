"""What a driver needs of the worker that it lives in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from engine.core.call import Definition
from engine.runtime.alarms import Alarms
from engine.runtime.codes import Codes
from engine.runtime.dispatch import Dispatcher
from engine.runtime.memos import Memos
from engine.runtime.serving import Served
from engine.runtime.shared_limits import SharedLimits
from engine.runtime.watchdog import Watchdog
from engine.runtime.watches import Watches
from eventstore import Clock, EventStore, Lease

__all__ = ["Site"]


class Site(Protocol):
    """One worker, as its drivers see it."""

    store: EventStore
    lease: Lease
    clock: Clock
    alarms: Alarms
    dispatcher: Dispatcher
    limits: SharedLimits
    memos: Memos
    watches: Watches
    watchdog: Watchdog
    codes: Codes
    definitions: Served
    stopping: bool  # no attempt begins any more

    def spawn(self, coro: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Run a coroutine beside everything else."""

    def next_commit_id(self) -> str:
        """An id that no commit had before."""

    def learn(self, definitions: Mapping[str, Definition[..., Any]]) -> None:
        """Hear which workflows the runs here start as children: this worker may claim those too."""

    def left(self, driver: Any, *, lost: bool = False) -> None:
        """Hear that the run of this driver has ended here, or (`lost`) was refused to us."""

    def parked(self, driver: Any) -> None:
        """Hear that the run of this driver was given up, unharmed."""

    def failed(self, error: BaseException) -> None:
        """The store, or this engine, cannot go on."""

    def check(self) -> None:
        """Raise `EngineFailed` once that is so."""
