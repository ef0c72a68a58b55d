"""Tells those who wait for a run in this process what has become of it, without a look at the store.

A `Watch` lives as long as somebody holds it; the engine itself holds them weakly, so that 100,000 finished runs leave
nothing behind.

Where a run is is not remembered here: whether a driver of this process will tell of it is asked whenever that matters,
for runs come and go while they are waited for. Whoever waits takes a `bell` before looking, never behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from engine.core.fold import RunStatus

__all__ = ["Watch", "Watches"]


class Watch:
    """One run, as seen from this process: its end once known here, and bells that ring when it has moved, or ended."""

    __slots__ = (
        "__weakref__",
        "_bells",
        "_end_bells",
        "_is_resident",
        "failure",
        "payload",
        "reason",
        "run_id",
        "status",
    )

    def __init__(self, run_id: str, is_resident: Callable[[str], bool]) -> None:
        self.run_id = run_id
        self._is_resident = is_resident
        self.status: RunStatus | None = None  # final; None: not known here
        self.payload: bytes | None = None  # result or error
        self.reason = ""
        self.failure: BaseException | None = None  # why nobody in this process will ever know
        # While somebody waits. Who waits for the end alone is not woken at every step of the run.
        self._bells: set[asyncio.Future[None]] | None = None
        self._end_bells: set[asyncio.Future[None]] | None = None

    @property
    def resident(self) -> bool:
        """Whether a driver of this process tells us all there is to know, as of now."""
        return self._is_resident(self.run_id)

    def settle(self, status: RunStatus | None, payload: bytes | None, reason: str) -> None:
        """The run has ended."""
        self.status, self.payload, self.reason = status, payload, reason
        self.ring()

    def moved(self) -> None:
        """The run has taken a step, here, and not ended: who follows it looks again."""
        bells, self._bells = self._bells, None
        for bell in bells or ():
            if not bell.done():
                bell.set_result(None)

    def ring(self) -> None:
        """The run has ended, or moved elsewhere, or has left: everybody who waits looks again."""
        for bell in self._taken():
            if not bell.done():
                bell.set_result(None)

    def tell(self, error: BaseException) -> None:
        """Whoever waits now is told of an error; who asks again looks again."""
        for bell in self._taken():
            if not bell.done():
                bell.set_exception(error)

    def _taken(self) -> set[asyncio.Future[None]]:
        bells, self._bells = self._bells, None
        end_bells, self._end_bells = self._end_bells, None
        return (bells or set()) | (end_bells or set())

    def bell(self) -> asyncio.Future[None]:
        """What the next `ring`, or `moved`, sets. To be taken before looking, awaited behind it, and given back to
        `forget`.
        """
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._bells is None:
            self._bells = set()
        self._bells.add(bell)
        return bell

    def end_bell(self) -> asyncio.Future[None]:
        """The same for who waits for nothing but the end: steps that the run takes here do not set it."""
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._end_bells is None:
            self._end_bells = set()
        self._end_bells.add(bell)
        return bell

    def forget(self, bell: asyncio.Future[None]) -> None:
        """Nobody waits for this bell any more."""
        for bells in (self._bells, self._end_bells):
            if bells is not None:
                bells.discard(bell)
        if bell.done() and not bell.cancelled():
            bell.exception()  # heard, so that nobody reports it as missed

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._bells or self._end_bells)


class Watches:
    """The watches of one engine, by run id, for as long as somebody holds them.

    `is_resident` says whether a run has a driver in this process, which will tell what becomes of it. One that is only
    about to get one may get none: it may be ended without its code, or left to others.
    """

    def __init__(self, is_resident: Callable[[str], bool]) -> None:
        self._is_resident = is_resident
        self._by_id: WeakValueDictionary[str, Watch] = WeakValueDictionary()

    def of(self, run_id: str) -> Watch:
        """The run's watch, made if there is none."""
        watch = self._by_id.get(run_id)
        if watch is None:
            watch = self._by_id[run_id] = Watch(run_id, self._is_resident)
        return watch

    def settle(self, run_id: str, status: RunStatus | None, payload: bytes | None, reason: str) -> None:
        """Tell whoever waits for the run how it has ended."""
        if (watch := self._by_id.get(run_id)) is not None:
            watch.settle(status, payload, reason)

    def moved(self, run_id: str) -> None:
        """Tell whoever follows the run that it has taken a step."""
        if (watch := self._by_id.get(run_id)) is not None:
            watch.moved()

    def goes_on(self, run_id: str) -> None:
        """The run is in memory, or was reopened: an end of it that was told before is none."""
        if (watch := self._by_id.get(run_id)) is not None:
            watch.status, watch.payload, watch.reason = None, None, ""

    def ring(self, run_id: str) -> None:
        """Tell whoever waits for the run to look again."""
        if (watch := self._by_id.get(run_id)) is not None:
            watch.ring()

    def all(self) -> list[Watch]:
        """Those that somebody holds now."""
        return list(self._by_id.values())

    def revive(self) -> None:
        """The engine was opened (again): what was known of an earlier time no longer holds."""
        for watch in self.all():
            watch.failure = None

    def fail(self, failure: BaseException) -> None:
        """Nobody in this process will hear of these runs any more."""
        for watch in self.all():
            watch.failure = failure
            watch.ring()
