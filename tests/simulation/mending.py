"""What the client of a run does about it when it has ended, one thing after the other, through all of its lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine import Engine, RunHandle
from engine.errors import RepairRefused, RunEnded
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import asked, told
from tests.simulation.scenarios import count_of

if TYPE_CHECKING:
    from tests.simulation.clients import Client

__all__ = ["Mender"]

UNDER_WAY = "attempts of it are still under way"


class Mender:
    """Of one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.left = list(client.run.repairs)
        self.book = client.play.ledger.repaired
        if any(repair.kind == "reopen" for repair in self.left):
            OUTSIDE.down.add(client.id)

    async def mend(self, engine: Engine, handle: RunHandle[Any]) -> None:
        """All that is left to do."""
        while self.left:
            await asyncio.sleep(self.left[0].behind)
            await self._reopen(engine, handle)
            del self.left[0]

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
