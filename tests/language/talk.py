"""What the tests of talking with runs share: the names, mail sent by hand, and looks at histories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine import Engine, RunHandle
from engine.core.events import RequestReceived, SignalIgnored, SignalReceived
from engine.runtime.mail import RequestMail, SignalMail, data_message
from eventstore import EventStore
from tests.runtime.faulty import FaultyStore
from tests.runtime.worlds import World, events_of, until_async


@asynccontextmanager
async def client(world: World) -> AsyncIterator[Engine]:
    """An engine without workflows on a handle of its own: another program, which can only talk."""
    async with world.engine() as engine:
        yield engine


@asynccontextmanager
async def crashing(world: World, *workflows: Any, **options: Any) -> AsyncIterator[tuple[Engine, FaultyStore]]:
    """An engine that dies with its block, as kill -9 would have it: nothing is written, its lease is dead."""
    handle = await world.store()
    store = FaultyStore(handle)
    try:
        async with Engine(store, workflows=workflows, clock=world.clock, grace=0, **options) as engine:
            try:
                yield engine, store
            finally:
                store.die()
    finally:
        await world.release(handle)


async def send_raw(store: EventStore, run_id: str, name: str, payload: bytes, *, id: str, kind: str = "signal") -> None:  # noqa: A002
    """Mail as a program without the types, or of another version, would send it."""
    mail = SignalMail(name=name) if kind == "signal" else RequestMail(name=name)
    await store.send(data_message(f"run:{run_id}", id, mail, payload))


async def signals_in(run: RunHandle[Any]) -> list[str]:
    """The ids of the signals in the run's history."""
    return [event.id for event in await events_of(run) if isinstance(event, SignalReceived | SignalIgnored)]


async def requests_in(run: RunHandle[Any]) -> list[str]:
    """The ids of the requests in the run's history."""
    return [event.id for event in await events_of(run) if isinstance(event, RequestReceived)]


async def has(run: RunHandle[Any], kind: type[Any], count: int = 1) -> None:
    """Wait until the history has that many events of this kind."""

    async def there() -> bool:
        return sum(isinstance(event, kind) for event in await events_of(run)) >= count

    await until_async(there)


async def is_status(run: RunHandle[Any], status: str) -> None:
    """Wait until the run has this status."""

    async def there() -> bool:
        return await run.status() == status

    await until_async(there)
