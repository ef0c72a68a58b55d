"""What the client of a run does about it when it has ended, one thing after the other, through all of its lives: to the
run itself, to what came of it (reruns and forks), and to its children.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from engine import Engine, RunHandle
from engine.core.events import TaskCompleted, TaskFailed, TaskScheduled
from engine.errors import HistoryError, RepairRefused, RunEnded, RunPrunedError
from tests.simulation.footprints import Doing
from tests.simulation.given import number_of, programs_of
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import asked, told
from tests.simulation.repaired import Copy
from tests.simulation.scenarios import Repair, count_of
from tests.simulation.supposing import suppose

if TYPE_CHECKING:
    from tests.simulation.clients import Client

__all__ = ["Mender"]

UNDER_WAY = "attempts of it are still under way"


class Mender:
    """Of one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.left = list(client.run.repairs)
        self.done = 0
        self.made: list[str] = []  # copies, in the order in which they were made
        self.what = ""  # the run that the next repair is of, once that is known
        self.cut = 0  # where it is cut, likewise
        self.given: dict[str, int] = {}  # outcomes that it is given
        self.book = client.play.ledger.repaired
        self.footprints = client.play.ledger.footprints
        if any(repair.kind == "reopen" for repair in self.left):
            OUTSIDE.down.add(client.id)

    async def mend(self, engine: Engine, handle: RunHandle[Any]) -> None:
        """All that is left to do."""
        while self.left:
            repair = self.left[0]
            await asyncio.sleep(repair.behind)
            self.what = self.what or self._choose(repair)
            if self.what:
                try:
                    await self._mend(engine, engine.run(self.what), repair)
                except (RunPrunedError, HistoryError) as error:
                    self.client.play.ledger.taken.missed(self.what, error)
            del self.left[0]
            self.done, self.cut, self.given, self.what = self.done + 1, 0, {}, ""

    def _choose(self, repair: Repair) -> str:
        """Which run it is of; none if there is no such run."""
        match repair.of:
            case "copy":
                return self.made[-1] if self.made else ""
            case "child":
                play, mine = self.client.play, list[str]()
                for stream in play.runs():
                    run_id = stream.name.partition(":")[2]
                    if stream.closed and stream.events and "/" in run_id and number_of(run_id) == self.client.number:
                        mine.append(run_id)
                return mine[int(repair.part * len(mine))] if mine else ""
        return self.client.id

    async def _mend(self, engine: Engine, handle: RunHandle[Any], repair: Repair) -> None:
        match repair.kind:
            case "reopen":
                await self._reopen(engine, handle)
            case "what-if":
                await self._choose_cut(handle, repair)
                await suppose(self.client.play, engine, handle.id, at=self.cut, given=self.given)
            case _:
                await self._copy(engine, handle, repair)

    async def _copy(self, engine: Engine, handle: RunHandle[Any], repair: Repair) -> None:
        """Asks for it, in each life, and sees it through."""
        copy, new_id = Copy(repair.kind, handle.id), f"{self.client.id}-{repair.kind}{self.done}"
        await self._choose_cut(handle, repair)
        if any(each.kind == "reopen" and each.of == "copy" for each in self.left) and new_id not in self.made:
            OUTSIDE.down.add(new_id)
        doing = Doing(repair.kind, handle.id, new_id)
        try:
            with self.footprints.doing(doing, self.client.play.head_of(handle.id)):
                if repair.kind == "rerun":
                    made = await engine.rerun(handle.id, id=new_id, by="smith", reason="once more")
                else:
                    made = await engine.fork(
                        handle.id, at=self.cut, id=new_id, substitute=self.given, by="smith", reason="otherwise"
                    )
        except RepairRefused as error:
            self.book.not_made(copy, str(error))
            return
        if new_id not in self.made:
            self.made.append(new_id)
        self.book.made(new_id, copy)
        await self._see_through(made)

    async def _choose_cut(self, handle: RunHandle[Any], repair: Repair) -> None:
        """Once, whatever becomes of the origin until it is forked: the same again is the same fork."""
        if self.cut or repair.kind == "rerun":
            return
        items = [item async for item in handle.events()]
        cut = max(1, round(len(items) * repair.part))
        numbers: dict[str, int] = {}  # of tasks whose outcome is their number
        for item in items[:cut]:
            if isinstance(item.event, TaskScheduled) and item.payload:
                if item.event.task in ("ok", "flaky", "outage"):
                    numbers[item.event.id] = json.loads(item.payload)["n"]
        last = items[cut - 1].event
        if repair.given and isinstance(last, TaskCompleted | TaskFailed) and last.id in numbers:
            self.given = {last.id: numbers[last.id]}
        self.cut = cut

    async def _reopen(self, engine: Engine, handle: RunHandle[Any]) -> None:
        OUTSIDE.down.discard(handle.id.partition("/")[0])
        while True:
            before = self.book.asked(handle.id)
            try:
                with self.footprints.doing(Doing("reopen", handle.id), self.client.play.head_of(handle.id)):
                    await engine.reopen(handle.id, by="smith", reason="what had failed works again")
            except RepairRefused as error:
                self.book.refused(before, str(error))
                if UNDER_WAY in str(error):
                    await asyncio.sleep(1)
                    continue
            else:
                self.book.acknowledged(before)
            break
        await self._see_through(handle)

    async def _see_through(self, handle: RunHandle[Any]) -> None:
        """To its end: what it waits for may have been said to a run that had ended, so it is said again."""
        client = self.client
        programs = await programs_of(client.play.remembered, handle.id)
        try:
            for _ in range(count_of("receive", programs)):
                serial = OUTSIDE.next_serial()
                await handle.signal(told, serial, id=f"{handle.id}.again{serial}")
        except RunEnded:
            OUTSIDE.checks["too late"] += 1
        serials = [OUTSIDE.next_serial() for _ in range(count_of("take", programs))]
        await client.all_of(
            [
                client.await_end(handle),
                *(client.ask(handle, 0, asked, f"{handle.id}.asked.again{serial}", serial) for serial in serials),
            ]
        )
