"""People outside of the simulated machines, whose own do not fail: they let children go on that are parked, pause some,
change limits, and answer whoever gave them a completion token.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine import Engine
from engine.errors import RunEnded, TokenError
from tests.simulation.outside import OUTSIDE, Letter
from tests.simulation.scenarios import Run
from tests.simulation.tasks import POOL, handed

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["People"]


class People:
    """Of one play."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self._desk = asyncio.Lock()  # one letter at a time: which answer is the first is known

    def _engine(self) -> Engine:
        return Engine(self.play.store, clock=self.play.clock, entropy=self.play.entropy)

    async def help_children(self) -> None:
        """Lets children go on that are parked, for their workers died under them: no client of theirs would."""
        async with self._engine() as engine:
            while True:
                await asyncio.sleep(2)
                for stream in list(self.play.runs()):
                    run_id = stream.name.partition(":")[2]
                    if "/" in run_id and stream.attributes.get("status") == "suspended":
                        await engine.run(run_id).resume()

    async def pause_children(self, run_id: str, run: Run) -> None:
        """Those that a run has at that moment, and lets them go on later."""
        if run.children is None:
            return
        begin, end = run.children
        await asyncio.sleep(begin)
        async with self._engine() as engine:
            ids = [stream.name.partition(":")[2] for stream in self.play.runs() if not stream.closed]
            mine = [engine.run(id_) for id_ in ids if id_.startswith(f"{run_id}/")]
            for handle in mine:
                await handle.pause()
            await asyncio.sleep(end - begin)
            for handle in mine:
                await handle.unpause()

    async def tighten(self) -> None:
        """For a while there are fewer slots, or none."""
        scenario = self.play.scenario
        if scenario.tight is None:
            return
        begin, end, slots = scenario.tight
        async with self._engine() as engine:
            await asyncio.sleep(begin)
            if POOL not in {limit.name for limit in await engine.limits()}:
                return  # nobody has declared it yet
            await engine.set_pool(POOL, slots)
            await asyncio.sleep(end - begin)
            await engine.set_pool(POOL, scenario.slots)

    async def answer_tokens(self) -> None:
        """Ends each task whose token was told, once for each time that it was."""
        letters: asyncio.Queue[Letter] = asyncio.Queue()
        OUTSIDE.told = letters.put_nowait
        async with self._engine() as engine, asyncio.TaskGroup() as group:
            while True:
                letter = await letters.get()
                group.create_task(self._answer(engine, letter))

    async def _answer(self, engine: Engine, letter: Letter) -> None:
        await asyncio.sleep(letter.seconds)
        async with self._desk:
            await self._send(engine, letter)

    async def _send(self, engine: Engine, letter: Letter) -> None:
        answer: Any = [letter.value, OUTSIDE.next_serial()] if letter.accepts else None
        sent = OUTSIDE.answers.setdefault(letter.one, [])
        sent.append(answer)
        OUTSIDE.sending = letter.one
        try:
            if letter.accepts:
                await engine.complete(letter.token, answer, task=handed, by="bank")
            else:
                await engine.reject(letter.token, "no", by="bank")
        except (RunEnded, TokenError):  # its epoch is over
            OUTSIDE.checks["too late"] += 1
        finally:
            OUTSIDE.sending = None
