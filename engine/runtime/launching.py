"""New runs: made in memory, written with their first turn in one commit, and only then among the others.

Until its first commit is durable a new run is nobody's but the launch's: the id may turn out to belong to a run that
exists, which this worker may even be claiming at the same moment.
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

__all__ = ["NONE_YET", "AtTheDoor", "Launches"]

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

        Raises what the store raises: `VersionConflict` when a stream of that name exists, whoever owns it; `LeaseLost`
        when there is none and the worker's lease is lost.
        """
        driver = Driver(
            self._site, Instance(definition, run_id, tables=TABLES), version=NEW, last_at=fact.at, attempts={}
        )
        launch = self._under_way[run_id] = driver.pen.first_commit = _Launch(self, driver)
        driver.begin(Arrival(fact, arguments, attributes=attributes))
        error = await launch.outcome()
        if error is not None:
            raise error

    async def settled(self, run_id: str) -> None:
        """Wait until a launch of this id, if one is under way, has been written or refused."""
        if (launch := self._under_way.get(run_id)) is not None:
            await launch.outcome()

    def ended(self, driver: Driver, *, written: bool) -> None:
        """A launch is over: its run was written, and is one of the residents, or was not."""
        self._under_way.pop(driver.run_id, None)
        if written:
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

    __slots__ = ("_driver", "_launches", "_waiting")

    def __init__(self, launches: Launches, driver: Driver) -> None:
        self._launches = launches
        self._driver = driver
        self._waiting: list[asyncio.Future[BaseException | None]] = []

    def __call__(self, error: BaseException | None) -> None:
        """The first commit is durable, or (`error`) was refused."""
        self._launches.ended(self._driver, written=error is None)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(error)

    async def outcome(self) -> BaseException | None:
        """Wait until it is over; why it failed, if it did."""
        waiting: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting
