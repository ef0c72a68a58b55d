"""Who debounces calls: clients, whose stores fail and who die; each makes its calls, again until it has heard of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from engine import Engine
from tests.simulation.footprints import Doing
from tests.simulation.loops import Actor
from tests.simulation.programs import WORKFLOWS, sim
from tests.simulation.scenarios import Burst

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["Caller", "callers_of"]

KEY = "k"


class Caller:
    """One of those who make the calls of a burst, each its own, through all of its lives."""

    def __init__(self, play: Play, burst: Burst, number: int) -> None:
        self.play = play
        self.burst = burst
        self.slot = play.scenario.first_caller + number
        self.left = [(n, at) for n, at in enumerate(burst.calls) if n % burst.callers == number]

    async def whole(self) -> None:
        await self.play.lives(self.slot, self._visit, lambda: not self.left)

    async def _visit(self, actor: Actor) -> None:
        """One life; whoever serves begins what comes of it."""
        async with self.play.engine(self.slot, actor, workflows=WORKFLOWS, only=["nobody"]) as engine:
            while self.left:
                await self._call(engine, *self.left[0])
                del self.left[0]

    async def _call(self, engine: Engine, n: int, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.play.loop.time()))
        burst, ledger = self.burst, self.play.ledger
        with ledger.footprints.doing(Doing("debounce", KEY, n=n)):
            call = sim([["ok", n, 0]], [])
            handle = await engine.debounce(call, key=KEY, seconds=burst.seconds, longest=burst.longest)
        ledger.bursts.acknowledged(handle.id, n)


def callers_of(play: Play) -> list[Coroutine[Any, Any, None]]:
    """What those do who debounce calls, and the book of them."""
    if (burst := play.scenario.burst) is None:
        return []
    book = play.ledger.bursts
    book.seconds, book.longest, book.slack = burst.seconds, burst.longest, play.ledger.keys.slack
    return [Caller(play, burst, number).whole() for number in range(burst.callers)]
