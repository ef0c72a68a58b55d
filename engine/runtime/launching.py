"""New runs: made in memory, written with their first turn in one commit, and only then among the others.

Until its first commit is durable a new run is nobody's but the launch's: the id may turn out to belong to a run that
exists, which this worker may even be claiming at the same moment.

So many are under way at once, and the others wait at the door: what has begun gets on before more begins. Of a thousand
runs that are started at once some hundred are then in memory at a time, and not all of them from first to last. Whether
there is room for a run is asked when it is its turn: what waits at the door takes none. But as many may wait there as
may be in memory, and what comes beyond is recorded at once: who starts a run wants to hear soon that it is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.events import AttributesGiven, Note, RunStarted, SignalReceived
from engine.core.instance import Instance
from engine.runtime.driver import Driver
from engine.runtime.large_values import TABLES
from engine.runtime.mail import signal_message
from engine.runtime.residents import Residents
from engine.runtime.site import Site
from engine.runtime.steps import Arrival
from engine.runtime.streams import SINGLETON, STATUS, VERSION, WAITS, WORKFLOW, new_event, set_attributes, stream_of
from engine.workflows import SignalMessage
from eventstore import NEW, Commit, Message, Permit
from eventstore.port import Scalar

__all__ = ["LAUNCHES_AT_ONCE", "NONE_YET", "AtTheDoor", "Launches"]

LAUNCHES_AT_ONCE: Final = 16
"""How many new runs may be between their first turn and the end of its commit.

Few, for what is in memory is what the processor's caches and Python's garbage collector go through; not fewer, for they
share a commit. `benchmarks/many_runs.py` shows both.
"""

NONE_YET: Final[Mapping[str, SignalMessage]] = MappingProxyType({})


class AtTheDoor(Struct, frozen=True):
    """What is said, in the commit that records a run, of how it is to get in."""

    permits: tuple[Permit, ...] = ()
    notes: tuple[Note, ...] = ()
    sends: tuple[Message, ...] = ()
    attributes: Mapping[str, Scalar] = MappingProxyType({})
    held: bool = False


_OPEN: Final = AtTheDoor()


class Launches:
    """The launches of one worker that are under way, by run id. `room_left`: for how many more runs it has room."""

    def __init__(
        self, site: Site, residents: Residents, paused: Container[str], *, room_left: Callable[[], int]
    ) -> None:
        self._site = site
        self._residents = residents
        self._paused = paused  # workflows, by name
        self._room_left = room_left
        self._under_way: dict[str, _Launch] = {}
        self._door = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self.begun = 0  # of those under way: they are in memory, the others wait at the door

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._under_way

    async def launch(
        self,
        definition: Definition[..., Any],
        run_id: str,
        fact: RunStarted,
        arguments: bytes,
        *,
        attributes: bytes | None = None,
    ) -> None:
        """Create a run that is driven here; returns when its first turn is durable.

        Where the worker is full or stops when it is its turn, or its workflow is paused, it is only recorded; cancelled
        before that, it is not made.

        Raises what the store raises: `VersionConflict` when a stream of that name exists, whoever owns it; `LeaseLost`
        when there is none and the worker's lease is lost. And `EngineFailed` once the engine cannot go on.
        """
        launch = self._under_way[run_id] = _Launch(self, run_id)
        try:
            launch.has_place = await self._door.acquire()
            self._site.check()
            if not (self._site.stopping or definition.name in self._paused or self._room_left() <= 0):
                driver = self._new_driver(definition, run_id, at=fact.at)
                launch.begin(driver, Arrival(fact, arguments, attributes=attributes))
        finally:
            launch.leave()
        if launch.driver is None:
            await self.enqueue(definition, run_id, fact, arguments, attributes=attributes)
        elif (error := await launch.outcome()) is not None:
            raise error

    def _new_driver(self, definition: Definition[..., Any], run_id: str, *, at: int) -> Driver:
        instance = Instance(definition, run_id, tables=TABLES)
        return Driver(self._site, instance, version=NEW, last_at=at, attempts={})

    async def settled(self, run_id: str) -> None:
        """Wait until a launch of this id, if one is under way, has been written, refused or given up."""
        if (launch := self._under_way.get(run_id)) is not None:
            await launch.outcome()

    def over(self, launch: _Launch, *, written: bool) -> None:
        """A launch is over: its run was written, and is one of the residents, or it was not. Its place is another's."""
        self._under_way.pop(launch.run_id, None)
        if launch.has_place:
            self._door.release()
        if launch.driver is not None:
            self.begun -= 1
        if written and launch.driver is not None:
            self._residents.adopt(launch.driver)

    async def enqueue(
        self,
        definition: Definition[..., Any],
        run_id: str,
        fact: RunStarted,
        arguments: bytes,
        signals: Mapping[str, SignalMessage] = NONE_YET,
        *,
        attributes: bytes | None = None,
        door: AtTheDoor = _OPEN,
    ) -> None:
        """Create a run that nobody drives yet, with signals that are there before its code begins.

        Whoever has room claims it, when its time has come. The signals are in its mailbox too, by their ids, so that
        none arrives once more. Raises what the store raises.
        """
        fact = structs.replace(fact, carried=len(signals), waits=True)
        told = [
            new_event(SignalReceived(at=fact.at, id=id_, name=signal.name, carried=True), signal.payload)
            for id_, signal in signals.items()
        ]
        given = () if attributes is None else (new_event(AttributesGiven(at=fact.at), attributes),)
        await self._site.store.commit(
            Commit(
                id=self._site.next_commit_id(),
                stream=stream_of(run_id),
                expected_version=NEW,
                events=(new_event(fact, arguments), *given, *told, *map(new_event, door.notes)),
                sends=(*(signal_message(run_id, id_, signal) for id_, signal in signals.items()), *door.sends),
                alarm=max(fact.at, fact.begins_at),
                attributes={
                    WORKFLOW: definition.name,
                    STATUS: "queued",
                    VERSION: fact.version or None,
                    WAITS: fact.begins_at,
                    **({SINGLETON: fact.singleton} if fact.singleton else {}),
                    **door.attributes,
                    **set_attributes(attributes or b"{}"),
                },
                held=door.held,
                permits=door.permits,
                progress=True,
            )
        )


class _Launch:
    """One launch, told by its driver how the first commit went. Each who waits has a future of its own: cancelling one
    is heard by no other.
    """

    __slots__ = ("_error", "_is_over", "_launches", "_waiting", "driver", "has_place", "run_id")

    def __init__(self, launches: Launches, run_id: str) -> None:
        self.run_id = run_id
        self.has_place = False  # among those that are under way
        self.driver: Driver | None = None  # once it has begun
        self._launches = launches
        self._is_over = False
        self._error: BaseException | None = None
        self._waiting: list[asyncio.Future[BaseException | None]] = []

    def begin(self, driver: Driver, arrival: Arrival) -> None:
        """Let it begin: it is over when its first commit is durable, or refused."""
        self.driver = driver
        self._launches.begun += 1
        driver.pen.first_commit = self._over
        driver.begin(arrival)

    async def outcome(self) -> BaseException | None:
        """Wait until it is over; why it failed, if it did."""
        if self._is_over:  # before anybody asked, where the program's loop begins tasks at once
            return self._error
        waiting: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting

    def leave(self) -> None:
        """It goes on by itself, if it has begun; else it is given up."""
        if self.driver is None:
            self._over(None)

    def _over(self, error: BaseException | None) -> None:
        self._is_over, self._error = True, error
        self._launches.over(self, written=error is None)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(error)
