"""What the client of a run does about it when it has ended, one thing after the other, through all of its lives."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from engine import Engine, RunHandle
from engine.core.events import TaskCompleted, TaskFailed, TaskScheduled
from engine.errors import RepairRefused, RunEnded
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import asked, told
from tests.simulation.repaired import Copy
from tests.simulation.scenarios import Repair, count_of

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
        self.cut = 0  # where the fork that is to be made is cut, once that is known
        self.given: dict[str, int] = {}  # outcomes that it is given
        self.book = client.play.ledger.repaired
        if any(repair.kind == "reopen" for repair in self.left):
            OUTSIDE.down.add(client.id)

    async def mend(self, engine: Engine, handle: RunHandle[Any]) -> None:
        """All that is left to do."""
        while self.left:
            await asyncio.sleep(self.left[0].behind)
            if self.left[0].kind == "reopen":
                await self._reopen(engine, handle)
            else:
                await self._copy(engine, handle, self.left[0])
            del self.left[0]
            self.done, self.cut, self.given = self.done + 1, 0, {}

    async def _copy(self, engine: Engine, handle: RunHandle[Any], repair: Repair) -> None:
        """Asks for it, in each life, and sees it through."""
        copy = Copy(repair.kind, handle.id)
        new_id = f"{handle.id}-{repair.kind}{self.done}"
        try:
            if repair.kind == "rerun":
                made = await engine.rerun(handle.id, id=new_id, by="smith", reason="once more")
            else:
                if not self.cut:
                    await self._choose_cut(handle, repair)
                made = await engine.fork(
                    handle.id, at=self.cut, id=new_id, substitute=self.given, by="smith", reason="otherwise"
                )
        except RepairRefused as error:
            self.book.not_made(copy, str(error))
            return
        self.book.made(new_id, copy)
        await self._see_through(made)

    async def _choose_cut(self, handle: RunHandle[Any], repair: Repair) -> None:
        """Once, whatever becomes of the origin until it is forked: the same again is the same fork."""
        items = [item async for item in handle.events()]
        cut = max(1, round(len(items) * repair.part))
        numbers: dict[str, int] = {}  # of tasks whose outcome is their number
        for item in items[:cut]:
            if isinstance(item.event, TaskScheduled) and item.event.task in ("ok", "flaky", "outage"):
                numbers[item.event.id] = json.loads(item.payload or b"")["n"]
        last = items[cut - 1].event
        if repair.given and isinstance(last, TaskCompleted | TaskFailed) and last.id in numbers:
            self.given = {last.id: numbers[last.id]}
        self.cut = cut

    async def _reopen(self, engine: Engine, handle: RunHandle[Any]) -> None:
        OUTSIDE.down.discard(handle.id)
        while True:
            before = self.book.asked(handle.id)
            try:
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
        run, client = self.client.run, self.client
        try:
            for _ in range(count_of("receive", run.epochs)):
                serial = OUTSIDE.next_serial()
                await handle.signal(told, serial, id=f"{handle.id}.again{serial}")
        except RunEnded:
            OUTSIDE.checks["too late"] += 1
        serials = [OUTSIDE.next_serial() for _ in range(count_of("take", run.epochs))]
        await client.all_of(
            [
                client.await_end(handle),
                *(client.ask(handle, 0, asked, f"{handle.id}.asked.again{serial}", serial) for serial in serials),
            ]
        )
