"""New runs: made in memory, written with their first turn in one commit, and only then among the others.

Until its first commit is durable a new run is nobody's but the launch's: the id may turn out to belong to a run that
exists, which this worker may even be claiming at the same moment.

So many are under way at once, and the others wait at the door: what has begun gets on before more begins. Of a thousand
runs that are started at once some hundred are then in memory at a time, and not all of them from first to last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
    """The launches of one worker that are under way, by run id."""

    def __init__(self, site: Site, residents: Residents) -> None:
        self._site = site
        self._residents = residents
        self._under_way: dict[str, _Launch] = {}
        self._door = asyncio.Semaphore(LAUNCHES_AT_ONCE)

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

        Where the worker stops before it is its turn, it is only recorded, for others to claim; cancelled before that,
        it is not made.

        Raises what the store raises: `VersionConflict` when a stream of that name exists, whoever owns it; `LeaseLost`
        when there is none and the worker's lease is lost. And `EngineFailed` once the engine cannot go on.
        """
        launch = self._under_way[run_id] = _Launch(self, run_id)
        try:
            async with self._door:
                self._site.check()
                if not self._site.stopping:
                    driver = self._new_driver(definition, run_id, at=fact.at)
                    await launch.run(driver, Arrival(fact, arguments, attributes=attributes))
                    return
        finally:
            launch.leave()
        await self.enqueue(definition, run_id, fact, arguments, attributes=attributes)

    def _new_driver(self, definition: Definition[..., Any], run_id: str, *, at: int) -> Driver:
        instance = Instance(definition, run_id, tables=TABLES)
        return Driver(self._site, instance, version=NEW, last_at=at, attempts={})

    async def settled(self, run_id: str) -> None:
        """Wait until a launch of this id, if one is under way, has been written, refused or given up."""
        if (launch := self._under_way.get(run_id)) is not None:
            await launch.outcome()

    def over(self, run_id: str, driver: Driver | None) -> None:
        """A launch is over: its run was written, and this driver's is one of the residents, or it was not."""
        self._under_way.pop(run_id, None)
        if driver is not None:
            self._residents.adopt(driver)

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

    __slots__ = ("_driver", "_launches", "_run_id", "_waiting")

    def __init__(self, launches: Launches, run_id: str) -> None:
        self._launches = launches
        self._run_id = run_id
        self._driver: Driver | None = None
        self._waiting: list[asyncio.Future[BaseException | None]] = []

    async def run(self, driver: Driver, arrival: Arrival) -> None:
        """Let it begin, and wait until its first commit is durable; raises why it was refused."""
        self._driver = driver
        driver.pen.first_commit = self._committed
        driver.begin(arrival)
        error = await self.outcome()
        if error is not None:
            raise error

    async def outcome(self) -> BaseException | None:
        """Wait until it is over; why it failed, if it did."""
        waiting: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting

    def leave(self) -> None:
        """Who asked for it waits no more. It goes on without, if it has begun; else it is given up."""
        if self._driver is None:
            self._over(None, None)

    def _committed(self, error: BaseException | None) -> None:
        """The first commit is durable, or (`error`) was refused."""
        self._over(self._driver if error is None else None, error)

    def _over(self, driver: Driver | None, error: BaseException | None) -> None:
        self._launches.over(self._run_id, driver)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(error)
