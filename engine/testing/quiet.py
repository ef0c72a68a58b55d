"""Telling when nothing can happen any more unless time passes."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from engine.testing.errors import Stuck
from engine.testing.fakes import Fakes, TaskCall
from engine.testing.store import WatchedStore

__all__ = ["Quiet"]

ROUNDS: Final = 60
"""On loops that do not show what is ready (uvloop): turns of the loop without a sign of life that count as quiet."""
KEPT_MAIL_SECONDS: Final = 0.11
"""How long an engine may take, in real time, to see mail of a run that keeps other mail it cannot take yet."""
SETTLES_MAX: Final = 100_000
"""More than this, and something moves for ever."""


class Quiet:
    """Settles one engine, on one store. `patience`: real seconds for an attempt that is not a fake."""

    def __init__(self, store: WatchedStore, fakes: Fakes, *, patience: float) -> None:
        self._store = store
        self._fakes = fakes
        self._patience = patience
        self._given_up: set[TaskCall] = set()  # they wait for something that is no real work, as it seems
        self._nudged_at = -1
        self._kept: frozenset[str] = frozenset()
        self._one_at_a_time = asyncio.Lock()  # two who look whether anything is ready would always find each other

    async def settle(self) -> None:
        """Let everything happen that can without time passing."""
        async with self._one_at_a_time:
            await self._settle()

    async def _settle(self) -> None:
        for _ in range(SETTLES_MAX):
            await self._idle()
            if self._fakes.problem is not None:
                raise self._fakes.problem
            if self._store.dead:
                return
            if not (await self._asked_again() or await self._kept_mail_seen() or await self._real_work_done()):
                return
        raise Stuck("the engine does not come to rest: something moves for ever without time passing")

    async def _idle(self) -> None:
        """Until the loop has nothing to run, twice: the second look is behind one at sockets and threads."""
        ready: Any = getattr(asyncio.get_running_loop(), "_ready", None)
        idle, seen = 0, -1
        while idle < (2 if ready is not None else ROUNDS):
            await asyncio.sleep(0)
            calls = self._store.calls + len(self._fakes.calls)
            still = not ready if ready is not None else calls == seen
            idle, seen = idle + 1 if still else 0, calls

    async def _asked_again(self) -> bool:
        """A worker leaves out what it is busy with: let it ask again. Whether that led to anything."""
        before = self._store.moves
        if before == self._nudged_at and not self._store.busy:
            return False
        self._store.nudge()
        await self._idle()
        self._nudged_at = before
        return self._store.moves != before

    async def _kept_mail_seen(self) -> bool:
        """Whether there was mail for a run that an engine looks at by and by only, and it was given the time."""
        kept: set[str] = set()
        for stream in self._store.busy:
            kept.update(message.id for message in (await self._store.inner.head(stream)).messages)
        new, self._kept = kept - self._kept, frozenset(kept)
        if new:
            await asyncio.sleep(KEPT_MAIL_SECONDS)
            self._store.nudge()
        return bool(new)

    async def _real_work_done(self) -> bool:
        """Whether an attempt of a real task was under way, and has ended within our patience."""
        waited_for = self._fakes.waited_for - self._given_up
        if not waited_for:
            return False
        moved = asyncio.Event()
        before, self._fakes.on_move = self._fakes.on_move, moved.set
        try:
            await asyncio.wait_for(moved.wait(), self._patience)
        except TimeoutError:
            self._given_up |= waited_for
            return False
        finally:
            self._fakes.on_move = before
            if before is not None:
                before()
        return True
