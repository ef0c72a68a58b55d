"""Runs that may be what kills their workers, and how one of them is parked without convicting the others.

A worker that dies leaves every run that it had: one of them may be the reason (a task that exhausts the memory, code
that crashes the interpreter), and whoever claims them next would die of it again. The store counts claims without a
fact in between; a run with two of them is a *suspect*. Suspects are run one at a time, beside the runs that are none,
and before each time it is recorded that this one runs alone. A suspect that gets somewhere (a fact, or a proper rest)
is none any more. One whose worker has died five times while it ran alone is parked: suspended with that diagnosis,
until a person lets it go on.

An engine that closes in good order takes its record back: ending is no crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from msgspec import Struct

from engine.core.compare import Diagnosis
from engine.runtime.recovery import suspend
from engine.runtime.residents import Residents
from engine.runtime.site import Site
from engine.runtime.streams import ALONE, run_id_of
from eventstore import Commit, EventStoreError, StreamHead
from eventstore.errors import VersionConflict

__all__ = ["CRASHES_ALONE_MAX", "SUSPECT_CLAIMS", "SUSPECT_SECONDS", "Suspects"]

SUSPECT_CLAIMS: Final = 2
"""Claims without a fact that make a suspect of a run: one worker has died with it already."""
CRASHES_ALONE_MAX: Final = 5
"""Deaths of a worker with this run as its only suspect, after which the run is parked."""
SUSPECT_SECONDS: Final = 1.0
"""How long a suspect keeps the next one waiting, the first time; twice as long with each further claim without a fact.
Whoever takes longer to kill has not been alone then, and is not counted; in the end it is."""
SUSPECT_SECONDS_MAX: Final = 60.0
"""Who has lived that long is no suspect any more."""
_TRIES: Final = 5


class Home(Site, Protocol):
    """The worker that suspects are run in."""

    residents: Residents


class Alone(Struct, frozen=True):
    """How often a run's worker has died, or is dying just now, while it ran alone; and at which claim that was."""

    times: int
    claims: int

    def __str__(self) -> str:
        return f"{self.times}@{self.claims}"


def alone_of(head: StreamHead) -> Alone:
    """What its stream says, if that is of now: a fact resets the count of claims, and so makes it void."""
    text = str(head.attributes.get(ALONE, ""))
    times, _, claims = text.partition("@")
    if not (times.isdigit() and claims.isdigit()) or head.claims <= int(claims):
        return Alone(0, 0)
    return Alone(int(times), int(claims))


class Suspects:
    """The suspects of one worker: whose turn it is."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._turn = asyncio.Lock()
        self._now: tuple[str, Alone] | None = None  # the stream that runs alone, and what was recorded before
        self._waiting = 0
        self._look = asyncio.Event()  # something has changed for the one that runs alone, or for those who wait
        self._passed: set[str] = set()  # runs that had their time, live on, and have not got anywhere yet

    @asynccontextmanager
    async def turn(self, head: StreamHead) -> AsyncIterator[StreamHead | None]:
        """Bring the run back inside of this; None when there is nothing to bring back: it was parked.

        The next suspect waits until this one has got somewhere, or has left, or has had its time (`SUSPECT_SECONDS`).
        """
        if head.claims < SUSPECT_CLAIMS or head.held or head.closed:
            yield head
            return
        self._waiting += 1
        self._look.set()
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            found = None if self._home.stopping else await self._record(head)
            yield found
        except BaseException:
            self._turn.release()
            raise
        if found is None:
            self._turn.release()
        else:
            self._home.spawn(self._until_cleared(run_id_of(head.stream), head.claims))

    def look(self) -> None:
        """The worker stops: nobody waits for the one that runs alone any more."""
        self._look.set()

    async def forgive(self) -> None:
        """Take back what was recorded of the one that runs alone: its worker ends in good order, or it lives on."""
        if self._now is None:
            return
        (stream, before), self._now = self._now, None
        for _ in range(_TRIES):
            try:
                await self._write(await self._home.store.head(stream), before)
            except VersionConflict:  # its driver has written meanwhile
                continue
            except EventStoreError:  # it is not ours any more; then it counts, and nobody is parked for one
                return
            return

    async def _record(self, head: StreamHead) -> StreamHead | None:
        """Record that the run runs alone from here on, or park it."""
        home, before = self._home, alone_of(head)
        if before.times >= CRASHES_ALONE_MAX:
            diagnosis = _diagnosis(head, before.times)
            commit_id = home.next_commit_id()
            await suspend(home.store, home.lease, head, diagnosis, clock=home.clock, commit_id=commit_id)
            return None
        self._passed = {run_id for run_id in self._passed if not self._is_cleared(run_id)}
        if self._passed:  # if the worker dies now, it may be for one of these
            return head
        written = await self._write(head, Alone(before.times + 1, head.claims))
        self._now = head.stream, before
        return written

    async def _write(self, head: StreamHead, alone: Alone) -> StreamHead:
        return await self._home.store.commit(
            Commit(
                id=self._home.next_commit_id(),
                stream=head.stream,
                expected_version=head.version,
                attributes={ALONE: str(alone) if alone.times else None},
                lease=self._home.lease,
            )
        )

    async def _until_cleared(self, run_id: str, claims: int) -> None:
        home = self._home
        seconds = min(SUSPECT_SECONDS * 2 ** (claims - SUSPECT_CLAIMS), SUSPECT_SECONDS_MAX)
        enough = home.clock.now() + round(seconds * 1_000_000)
        alarm = home.alarms.at(enough, self._look.set)
        watch = home.watches.of(run_id)  # it rings whenever the run has moved, or has left
        try:
            while not self._is_cleared(run_id):
                if home.stopping:
                    return  # whoever stops forgives
                if self._waiting and home.clock.now() >= enough:
                    if seconds < SUSPECT_SECONDS_MAX:  # else it is not the one
                        self._passed.add(run_id)
                    await self.forgive()
                    return
                self._look.clear()
                bell = watch.bell()
                bell.add_done_callback(lambda _: self._look.set())
                try:
                    await self._look.wait()
                finally:
                    watch.forget(bell)
            self._now = None
        finally:
            alarm.cancel()
            self._turn.release()

    def _is_cleared(self, run_id: str) -> bool:
        """Whether the run has got somewhere, or has left this worker alive."""
        driver = self._home.residents.drivers.get(run_id)
        return driver is None or driver.pen.progressed


def _diagnosis(head: StreamHead, times: int) -> Diagnosis:
    return Diagnosis(
        reason="crashes",
        message=f"its worker died {times} times while this run was the only one under suspicion: it is parked",
        version=head.version,
        advice=(
            "look at what it was doing (holdfast show), and at the log of the worker (memory, a crash of the"
            " interpreter); mend that or run the task elsewhere, then let the run go on with: holdfast resume"
        ),
    )
