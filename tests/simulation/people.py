"""People outside of the simulated machines, whose own do not fail: they let children go on that are parked, pause some,
change limits, ask children, and answer whoever gave them a completion token.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine import Engine, Request, RunHandle
from engine.errors import HistoryError, RunEnded, RunPrunedError, TokenError
from tests.simulation.asking import ask
from tests.simulation.given import programs_of
from tests.simulation.outside import OUTSIDE, Letter
from tests.simulation.programs import asked, served
from tests.simulation.scenarios import Run, count_of
from tests.simulation.tasks import POOL, handed

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["People"]


class People:
    """Of one play."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.unheard = 0  # questions to children that nobody knows yet what came of
        self._desk = asyncio.Lock()  # one letter at a time: which answer is the first is known

    def _engine(self) -> Engine:
        return Engine(self.play.store, clock=self.play.clock, entropy=self.play.entropy)

    async def help_children(self) -> None:
        """Lets runs go on that have no client, and are parked, for their workers died under them."""
        async with self._engine() as engine:
            while True:
                await asyncio.sleep(2)
                for stream in list(self.play.runs()):
                    run_id = stream.name.partition(":")[2]
                    if self.play.is_nobodys(run_id) and stream.attributes.get("status") == "suspended":
                        await engine.run(run_id).resume()

    async def ask_children(self) -> None:
        """Asks each for what it takes by hand, as often as it does, and whatever else the scenario says."""
        seen: set[str] = set()
        async with self._engine() as engine, asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(1)
                for stream in list(self.play.runs()):
                    run_id = stream.name.partition(":")[2]
                    run = self.play.run_of(run_id)
                    if "/" not in run_id or run is None or run_id in seen or not stream.head().version:
                        continue
                    seen.add(run_id)
                    takes = count_of("take", await programs_of(self.play.remembered, run_id))
                    questions = [(asked, 0.0, n) for n in range(takes)]
                    questions += [(served, seconds, value) for seconds, value in run.child_asks]
                    for number, one in enumerate(questions):
                        self.unheard += 1
                        group.create_task(self._ask(engine.run(run_id), f"{run_id}.{number}", *one))

    async def _ask(
        self, handle: RunHandle[Any], id_: str, request: Request[int, Any], seconds: float, value: int
    ) -> None:
        await asyncio.sleep(seconds)
        await ask(self.play, handle, request, id_, value)
        self.unheard -= 1

    async def have_heard(self) -> None:
        """Whoever has asked hears of it, also if that is the end."""
        while self.unheard:
            await asyncio.sleep(1)

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
        except (RunPrunedError, HistoryError) as error:
            self.play.ledger.taken.missed(letter.one[0], error)
        finally:
            OUTSIDE.sending = None
