"""The task in which a driver takes its steps, one after the other, as long as there is something to do.

Always a task of our own: what user code left behind in its task (a cancellation, say) must not reach a step. While
attempts are under way, which will bring more to do, it waits for that instead of ending: a task for each step is dear.

What it promises: of one run one step is under way at a time; a `kick` is never lost; and it is at rest, or has ended,
once its owner says that nothing more is to be waited for and has kicked it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

__all__ = ["Pump", "Pumped"]


class Pumped(Protocol):
    """A driver, as its pump knows it."""

    def has_work(self) -> bool:
        """Whether there is something to do."""

    async def step(self) -> None:
        """Do some of it."""

    def pumped(self) -> bool:
        """Hear that nothing is left to do. Whether there will be soon, and nobody waits for the pump to end."""

    def broke(self, error: Exception) -> None:
        """Hear that a step has failed, which is the last."""

    def discard(self) -> None:
        """The program's loop is ending under us: put the run out of memory."""

    def gone(self) -> None:
        """Hear, once, that the pump is closed and no step is under way: let go of everything."""


class Pump:
    """See the module."""

    __slots__ = ("_idle", "_owner", "_running", "_spawn")

    def __init__(self, owner: Pumped, spawn: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._owner: Pumped | None = owner  # None once closed: they must not keep each other in memory
        self._spawn = spawn
        self._running = False
        self._idle: asyncio.Future[None] | None = None  # what it waits for, between two steps

    def kick(self) -> None:
        """There may be something to do, or nothing to wait for any more."""
        idle = self._idle
        if idle is not None:
            self._idle = None
            if not idle.done():  # it may have been cancelled
                idle.set_result(None)
        elif not self._running and self._owner is not None:
            self._running = True
            self._spawn(self._run(self._owner))

    def close(self) -> None:
        """Its owner wants no further step: let it end, and never begin again."""
        owner, self._owner = self._owner, None
        if self._idle is not None:
            self.kick()
        elif owner is not None and not self._running:
            owner.gone()

    async def _run(self, owner: Pumped) -> None:
        try:
            while True:
                while owner.has_work():
                    await owner.step()
                if self._owner is None or not owner.pumped():
                    break
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
        except asyncio.CancelledError:
            owner.discard()
            raise
        except Exception as error:
            owner.broke(error)
        finally:
            self._running, self._idle = False, None
            if self._owner is None:
                owner.gone()
