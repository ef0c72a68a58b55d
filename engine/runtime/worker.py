"""The worker of one engine: holds the lease, claims the runs that need attention, keeps those in memory.

Claiming is level-triggered: what needs attention is asked of the store again and again, so nothing is missed that a
notification failed to tell. Everything that may begin or end here is bounded by a named limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from engine.core.call import Definition
from engine.core.events import RunStarted
from engine.errors import EngineFailed
from engine.executors import Executor
from engine.runtime.alarms import Alarms
from engine.runtime.breakers import Breakers
from engine.runtime.bringing import bring_back
from engine.runtime.capacity import Capacity
from engine.runtime.claims import busy_streams, claimable, of_residents
from engine.runtime.codes import Codes
from engine.runtime.dispatch import Dispatcher
from engine.runtime.driver import Driver
from engine.runtime.large_values import keep_of
from engine.runtime.launching import NONE_YET, Launches
from engine.runtime.memos import Memos
from engine.runtime.mending import Mending
from engine.runtime.pausing import PausedWorkflows
from engine.runtime.places import places_on
from engine.runtime.residents import Residents
from engine.runtime.serving import Served
from engine.runtime.shared_limits import NO_KINDS, SharedLimits
from engine.runtime.spawning import Spawner
from engine.runtime.standing_in import StandIn
from engine.runtime.streams import run_id_of
from engine.runtime.suspects import Suspects
from engine.runtime.watchdog import Watchdog
from engine.runtime.watches import Watches
from engine.workflows import SignalMessage
from eventstore import (
    Clock,
    EventStore,
    EventStoreError,
    Lease,
    LeaseLost,
    StreamHead,
    StreamNotFound,
    StreamQuery,
)
from eventstore.errors import UnknownMessage, VersionConflict
from eventstore.port import CLAIM_LIMIT_MAX

__all__ = ["Worker"]

REBUILDS_AT_ONCE: Final = 16
"""Histories that are read and replayed at the same time."""
WAIT_SECONDS: Final = 30.0
"""The longest that the worker sleeps without asking the store what needs attention."""
BUSY_SECONDS: Final = 0.1
"""How soon it asks again about runs that it left out, because it was just then answering their mail."""
FULL_SECONDS: Final = 0.1
"""How often a worker whose memory is full looks for mail of the runs in it, and for room."""
CANCEL_SECONDS: Final = 5.0
"""How long cancelled attempts may take to end, at the end of the grace period, before they are left behind."""


class Worker:
    """See the module. Used as: `open`, then `launch` any number of times, then `aclose`."""

    def __init__(
        self,
        store: EventStore,
        definitions: Served,
        *,
        name: str,
        capacity: Capacity,
        only: Collection[str] | None,
        clock: Clock,
        watches: Watches,
        executors: Sequence[Executor] = (),
        shared: Mapping[str, bool] = NO_KINDS,
        breakers: Breakers,
        stand_in: StandIn | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.watches = watches
        self.stopping = False
        self.failure: BaseException | None = None
        self.lease: Lease
        self.alarms: Alarms
        self.dispatcher: Dispatcher
        self.definitions = definitions
        self._name = name
        self._capacity = capacity
        self._given = tuple(executors)
        self._stand_in = stand_in
        self._breakers = breakers
        self._only = None if only is None else tuple(only)
        self.paused = PausedWorkflows(store, clock)
        self.limits = SharedLimits(clock, shared)
        self.spawn = Spawner(self.failed)
        self.memos = Memos(store, clock=clock, spawn=self.spawn, next_commit_id=self.next_commit_id)
        warn, limit = capacity.turn_seconds
        self.watchdog = Watchdog(clock, warn=warn, limit=limit)
        self.residents = Residents(watches, cached=capacity.cached)
        self.launches = Launches(self, self.residents, self.paused, room_left=self._room_left)
        self.suspects = Suspects(self)
        self.codes = Codes()
        self.mending = Mending(self, name=name, only=self._only)
        self._rebuilding: set[str] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._rebuilds = asyncio.Semaphore(REBUILDS_AT_ONCE)
        self._hurry = asyncio.Event()
        self._roused = asyncio.Event()  # what is asked for, or how often, is another matter than when it went to sleep
        self._drowsing = False
        self._asked_for = 0
        self._commits = 0
        self._exit = AsyncExitStack()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take a lease and begin to claim."""
        to_be_checked = list(self.definitions.every()) if self._stand_in is None else ()
        executors = places_on(self.store, self._capacity, self._given, workflows=to_be_checked)
        self.lease = await self._exit.enter_async_context(self.store.lease(self._name))
        try:
            await self.paused.look()  # before anything begins here
        except BaseException:
            await self._exit.aclose()  # else the lease of a worker that there is not would live on
            raise
        self.alarms = Alarms(self.clock)
        self.dispatcher = Dispatcher(
            executors,
            clock=self.clock,
            alarms=self.alarms,
            spawn=self.spawn,
            breakers=self._breakers,
            stand_in=self._stand_in,
            keep=keep_of(self.store),
        )
        self.watchdog.open()
        self._claiming = self.spawn(self._claim_forever())

    async def aclose(self) -> None:
        """Stop: let attempts finish within the grace period, cancel the rest, write what they said, end the lease.

        Cancelling whoever waits for this cuts the grace period short; everything is put away all the same.
        """
        # On this loop or none: one that is collected as garbage behind the end of its loop is not to close on another.
        closing = asyncio.get_running_loop().create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
                self._hurry.set()
        closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        self.stopping = True
        for driver in list(self.residents.drivers.values()):
            driver.kick()  # nobody waits for attempts any more, who may never end
        self.suspects.look()
        if self._claiming is not None:
            self._claiming.cancel()
        self.dispatcher.stop()
        if self.failure is None:
            await self.dispatcher.wait_for_attempts(self._capacity.grace, self._hurry)
        self.dispatcher.cancel_all()
        await self.dispatcher.wait_for_attempts(CANCEL_SECONDS, asyncio.Event())
        # What is being written is written; attempts that do not end are left behind, and write nothing any more.
        await self.spawn.wait(but=self.dispatcher.tasks(), seconds=CANCEL_SECONDS)
        self.residents.clear()
        if self.failure is None:
            await self.suspects.forgive()
        self.alarms.close()
        self.watchdog.close()
        await self.dispatcher.aclose()
        await self._exit.aclose()
        if self.failure is None:
            with suppress(EventStoreError):  # others come upon it a little later
                await self.limits.sweep(self.store, self.next_commit_id, last=True)  # what we had is free now

    def failed(self, error: BaseException) -> None:
        """The store, or this engine, cannot go on: stop taking work, tell everybody who waits."""
        if self.failure is not None:
            return
        self.failure = error
        self.dispatcher.stop()
        self.residents.clear()  # what an instance knows and the log does not is not to be built upon
        if self._claiming is not None:
            self._claiming.cancel()
        self.watches.fail(error)

    def check(self) -> None:
        """Raise `EngineFailed` once the engine cannot go on."""
        if self.failure is not None:
            raise EngineFailed(
                f"the engine stopped taking work: {self.failure}; runs stay as recorded, open the engine again"
            ) from self.failure

    # -- new runs -----------------------------------------------------------------------------------------------------

    async def launch(
        self,
        definition: Definition[..., Any],
        run_id: str,
        fact: RunStarted,
        arguments: bytes,
        signals: Mapping[str, SignalMessage] = NONE_YET,
        *,
        attributes: bytes | None = None,
    ) -> None:
        """Create a run; returns when that is durable.

        One that is told something with its start, or may not begin yet, is recorded first and then claimed.

        Raises `VersionConflict` when the id is taken, `LeaseLost` when it is not and the worker must take a new lease.
        """
        crowded = len(self.launches) >= self._capacity.runs
        if crowded or self.stopping or signals or fact.begins_at or definition.name in self.paused:
            await self.launches.enqueue(definition, run_id, fact, arguments, signals, attributes=attributes)
        else:
            await self.launches.launch(definition, run_id, fact, arguments, attributes=attributes)
            if definition.name in self.paused and (driver := self.residents.drivers.get(run_id)) is not None:
                driver.hold(pause=self.paused.pause_of(definition.name))  # since we asked: it was not among ours yet
            if self._drowsing:  # from now on pauses are to be looked at
                self._roused.set()

    def has(self, run_id: str) -> bool:
        """Whether the run is in this worker's memory, or about to be."""
        return run_id in self.residents.drivers or run_id in self._rebuilding or run_id in self.launches

    # -- claiming -----------------------------------------------------------------------------------------------------

    async def _claim_forever(self) -> None:
        while not self.stopping:
            try:
                await self._claim_once()
            except LeaseLost:
                # We were held dead (a long pause): whoever took over has our runs. Begin again as a new worker.
                await self._renew_lease()
            except EventStoreError as error:
                self.failed(error)
                return

    async def _claim_once(self) -> None:
        self.residents.freed.clear()
        self._roused.clear()
        await self.look_at_pauses()
        await self.limits.sweep(self.store, self.next_commit_id)
        full = self._room_left() <= 0
        busy = busy_streams(self.residents.drivers.values(), self._rebuilding)
        limit = min(CLAIM_LIMIT_MAX, max(self._room_left(), 1))
        self._asked_for = limit  # room that new runs may not take meanwhile
        heads: list[StreamHead] = []
        try:
            for query in self._queries(full=full):
                heads += await self.store.claim(self.lease, query=query, limit=limit, busy=busy)
        finally:
            self._asked_for = 0
        for head in heads:
            self.take(head)
        await self._look_into_boxes()
        if full:
            # Others may need attention that we cannot give, so the store's own `wait` would not sleep.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.residents.freed.wait(), FULL_SECONDS)
        elif not heads:
            if not self._rebuilding and self.mending.is_due:  # whoever can go on goes first
                self.mending.look()
            # What was left out for being busy may need attention again as soon as it is not, and no news tells that.
            watching = bool(self.residents.drivers or self.paused)
            longest = self.paused.look_seconds if watching else WAIT_SECONDS
            await self._wait(BUSY_SECONDS if busy else min(longest, self.limits.sweep_seconds))

    async def _look_into_boxes(self) -> None:
        """Runs with mail that stays in the box are not claimed, which would be a write each time, but looked at."""
        now = asyncio.get_running_loop().time()
        drivers = [driver for driver in self.residents.drivers.values() if driver.intake.is_to_be_looked_at(now)]
        for driver in drivers:
            head = await self.store.head(driver.stream)
            if not driver.discarded:
                driver.receive(head)

    async def _wait(self, seconds: float) -> None:
        """Until there may be something to claim: the store has news, or this worker knows more workflows now."""
        if self._roused.is_set():  # the store's news may have been of a workflow that we did not know when we asked
            return
        self._drowsing = seconds > self.paused.look_seconds
        news = asyncio.ensure_future(self.store.wait(self.lease, timeout=seconds))
        roused = asyncio.ensure_future(self._roused.wait())
        try:
            await asyncio.wait([news, roused], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._drowsing = False
            for waiting in (news, roused):
                waiting.cancel()
            await asyncio.wait([news, roused])
        if not news.cancelled():
            news.result()

    async def look_at_pauses(self, *, afresh: bool = False) -> None:
        """Take in which workflows are paused; `afresh`: this process has changed that, so at once."""
        if afresh:
            self.paused.forget()
        if await self.paused.look():
            self._roused.set()  # what was asked of the store meanwhile was asked for the pauses there were
            for driver in list(self.residents.drivers.values()):
                driver.hold(pause=self.paused.pause_of(driver.instance.definition.name))

    async def _renew_lease(self) -> None:
        self.residents.clear()
        await self._exit.aclose()
        self.lease = await self._exit.enter_async_context(self.store.lease(self._name))

    def _queries(self, *, full: bool) -> Iterable[StreamQuery]:
        if full:
            return of_residents(self.residents.drivers.values())
        codes = [self.codes.of(definition) for definition in self.definitions.every()]
        return claimable(self.definitions, self.paused, self._only, codes=codes)

    def _room_left(self) -> int:
        taken = len(self.residents.drivers) + len(self._rebuilding) + self.launches.begun
        return self._capacity.runs - taken - self._asked_for

    def take(self, head: StreamHead) -> None:
        """A stream was claimed."""
        run_id = run_id_of(head.stream)
        driver = self.residents.drivers.get(run_id)
        if driver is None:
            self._rebuild_soon(head)
        elif driver.releasing:
            driver.reclaimed = head
        else:
            driver.receive(head)

    def _rebuild_soon(self, head: StreamHead) -> None:
        run_id = run_id_of(head.stream)
        if run_id not in self._rebuilding:
            self._rebuilding.add(run_id)
            self.spawn(self._rebuild(head, run_id))

    async def _rebuild(self, head: StreamHead, run_id: str) -> None:
        try:
            async with self.suspects.turn(head) as found, self._rebuilds:
                await self.launches.settled(run_id)
                if self.stopping or self.failure is not None or found is None:
                    return
                if (driver := self.residents.drivers.get(run_id)) is not None:
                    driver.receive(found)  # it was launched here, and claimed before we heard that it was written
                else:
                    await bring_back(self, found, run_id)
        except (LeaseLost, UnknownMessage, VersionConflict):
            return  # somebody else has it now; or it was seen as it is no more, and is claimed again
        except EventStoreError as error:
            self.failed(error)
        finally:
            self._rebuilding.discard(run_id)
            self.watches.ring(run_id)  # whatever became of it: not all of that shows in the stream, or has a driver

    # -- what drivers ask (see `site.Site`) -------------------------------------------------------------------------

    def next_commit_id(self) -> str:
        self._commits += 1
        return f"{self.lease.token}-{self._commits}"

    def learn(self, definitions: Mapping[str, Definition[..., Any]]) -> None:
        for definition in definitions.values():
            if self.definitions.add(definition, newest=False):
                self._roused.set()

    def left(self, driver: Driver, *, lost: bool = False) -> None:
        """The run has ended here, or (`lost`) was refused to us."""
        if self.residents.drop(driver) and lost and not self.stopping and self.failure is None:
            self.spawn(self._make_sure(driver.stream))

    async def _make_sure(self, stream: str) -> None:
        """A commit was refused. If the stream is ours all the same, nobody else will ever claim it: bring it back."""
        try:
            head = await self.store.head(stream)
        except StreamNotFound:
            return
        except EventStoreError as error:
            self.failed(error)
            return
        if head.owner == self.lease.token and self.lease.fresh() and not head.closed:
            self._rebuild_soon(head)

    def parked(self, driver: Driver) -> None:
        """The run was given up, unharmed."""
        self.residents.rest(driver)
