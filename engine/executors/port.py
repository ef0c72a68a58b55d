"""The executor port: a place with a limited number of slots, where attempts run.

Processes, Dask and Ray are further executors; what they must promise is here. A slot is given back when the work has
*really* ended, which may be long after whoever awaited it was cancelled: a thread cannot be stopped from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from engine.tasks import Attempt

__all__ = ["Executor", "Slots", "Work"]


class Work(Struct, frozen=True):
    """One attempt's function and arguments, and the attempt it is."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    attempt: Attempt


class Executor(Protocol):
    """Where attempts run."""

    @property
    def name(self) -> str:
        """What histories call it."""

    @property
    def slots(self) -> Slots:
        """How many attempts may be here at once."""

    async def run(self, work: Work) -> Any:
        """Run it in a slot taken before, and return its result or raise what it raised.

        Cancelling the caller asks the work to end. The slot is given back exactly once, when the work has ended.
        """

    async def aclose(self) -> None:
        """End what can be ended; nothing is run here any more."""


class Slots:
    """A counted set of places, all on one event loop: no locks."""

    __slots__ = ("_on_free", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._on_free: Callable[[], None] | None = None

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give_back(self) -> None:
        """A taken slot is free again; whoever waits for one is told."""
        self.free += 1
        assert self.free <= self.total, "a slot was given back twice"
        if self._on_free is not None:
            self._on_free()

    def when_free(self, callback: Callable[[], None] | None) -> None:
        """Call back, on the loop, whenever a slot is given back. One listener."""
        self._on_free = callback
