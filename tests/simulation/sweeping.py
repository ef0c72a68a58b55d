"""Who takes away what need not stay: a client, whose store fails and who dies, and asks again until it has heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine import Engine
from engine.errors import KeepingRefused, RunPrunedError
from tests.simulation.footprints import Doing
from tests.simulation.given import number_of
from tests.simulation.loops import Actor
from tests.simulation.scenarios import Sweep

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["Sweeper"]


class Sweeper:
    """Of one play, through all of its lives."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.slot = play.scenario.sweeper
        self.left = list(play.scenario.sweeps)
        self.what = ""  # the run that the next one is of, once that is known
        self.taken = play.ledger.taken

    async def whole(self) -> None:
        await self.play.lives(self.slot, self._visit, lambda: not self.left)

    async def _visit(self, actor: Actor) -> None:
        """One life."""
        async with self.play.engine(self.slot, actor) as engine:
            while self.left:
                sweep = self.left[0]
                await asyncio.sleep(max(0.0, sweep.at - self.play.loop.time()))
                while not (what := self.what or self._choose(sweep)):
                    await asyncio.sleep(1)
                self.what = what
                await self._sweep(engine, sweep, what)
                del self.left[0]
                self.what = ""

    def _choose(self, sweep: Sweep) -> str:
        """One of those that have ended; or, to be refused, that have not."""
        runs = [(stream.name.partition(":")[2], stream.closed) for stream in self.play.runs() if stream.events]
        those = [id_ for id_, closed in runs if closed is not sweep.open and (number_of(id_) is not None or "-" in id_)]
        return those[int(sweep.part * len(those))] if those else ("nobody" if sweep.open else "")

    async def _sweep(self, engine: Engine, sweep: Sweep, run_id: str) -> None:
        if run_id == "nobody":
            return
        self.taken.asked(run_id)
        with self.play.ledger.footprints.doing(Doing(sweep.kind, run_id), self.play.head_of(run_id)):
            try:
                if sweep.kind == "prune":
                    await engine.prune(run_id, by="tidy", reason="enough")
                else:
                    await engine.destroy_payloads(run_id, by="tidy", reason="asked for")
            except KeepingRefused as error:
                self.taken.refused(run_id, str(error))
            except RunPrunedError as error:
                self.taken.missed(run_id, error)
