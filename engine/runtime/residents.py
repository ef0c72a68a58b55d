"""Which runs are in this worker's memory: driven ones, and resting ones whose live instance is kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from msgspec import Struct

from engine.core.instance import Instance
from engine.core.replay import Attempts
from engine.runtime.driver import Driver
from engine.runtime.watches import Watches

__all__ = ["Residents", "Rested"]


class Rested(Struct):
    """The live instance of a run that was given up, in case it comes back to us unchanged."""

    instance: Instance
    version: int
    last_at: int
    attempts: dict[str, Attempts]


class Residents:
    """Drivers by run id, and at most `cached` rested instances, the longest rested making room."""

    def __init__(self, watches: Watches, *, cached: int) -> None:
        self.freed = asyncio.Event()  # set whenever a driver has left; whoever waits for room clears it first
        self._watches = watches
        self._cached = cached
        self._rested: OrderedDict[str, Rested] = OrderedDict()
        self.drivers: dict[str, Driver] = {}

    def adopt(self, driver: Driver) -> None:
        """The run is driven here: whoever waits for it will be told by its driver, of all that comes from now on."""
        self.drivers[driver.run_id] = driver
        self._watches.goes_on(driver.run_id)

    def drop(self, driver: Driver) -> bool:
        """The run is no longer driven here, and its instance is put away. Whether it was driven by this driver."""
        mine = self._forget(driver)
        driver.discard()
        return mine

    def rest(self, driver: Driver) -> None:
        """The run was given up unharmed: keep its instance."""
        self._forget(driver)
        self._rested[driver.run_id] = Rested(
            driver.instance, driver.pen.version, driver.turns.last_at, driver.board.attempts
        )
        while len(self._rested) > self._cached:
            _, oldest = self._rested.popitem(last=False)
            oldest.instance.let_go()

    def wake(self, run_id: str, version: int) -> Rested | None:
        """The run's rested instance, if it is at this version; one at another is put away."""
        rested = self._rested.pop(run_id, None)
        if rested is not None and rested.version != version:
            rested.instance.let_go()
            return None
        return rested

    def forget(self, run_id: str) -> None:
        """Put the run's rested instance away, if there is one."""
        if (rested := self._rested.pop(run_id, None)) is not None:
            rested.instance.let_go()

    def clear(self) -> None:
        """Put everything out of memory."""
        for driver in list(self.drivers.values()):
            self.drop(driver)
        for rested in self._rested.values():
            rested.instance.let_go()
        self._rested.clear()

    def _forget(self, driver: Driver) -> bool:
        if self.drivers.get(driver.run_id) is not driver:
            return False
        del self.drivers[driver.run_id]
        self.freed.set()
        self._watches.ring(driver.run_id)
        return True
