"""Appending to one stream from many places: once each, together, and what is refused alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.assets.appending import Appender
from eventstore import NewEvent, StreamNotFound
from eventstore.limits import HEADER_BYTES_MAX
from tests.runtime.worlds import World


async def _appender(world: World) -> tuple[Appender, Any]:
    store = await world.store()

    async def refresh() -> int:
        try:
            return (await store.head("asset:prod/a")).version
        except StreamNotFound:
            return 0

    return Appender(store, "asset:prod/a", refresh, attributes={}), store


async def test_one_that_is_too_large_is_refused_alone(world: World) -> None:
    appender, store = await _appender(world)
    large = NewEvent(b'{"type":"x","text":"' + b"x" * HEADER_BYTES_MAX + b'"}')
    events = [NewEvent(b'{"type":"x"}'), large, NewEvent(b'{"type":"y"}')]
    found = await asyncio.gather(
        *(appender.append(str(number), lambda event=event: event) for number, event in enumerate(events)),
        return_exceptions=True,
    )
    assert isinstance(found[1], Exception)
    assert [found[0], found[2]] == [1, 2]
    assert [each.header async for each in store.read("asset:prod/a")] == [events[0].header, events[2].header]


async def test_a_caller_that_is_cancelled_leaves_the_others(world: World) -> None:
    appender, store = await _appender(world)
    tasks = [asyncio.create_task(appender.append(str(n), lambda: NewEvent(b'{"type":"x"}'))) for n in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[2], asyncio.CancelledError)
    assert all(isinstance(each, int) for place, each in enumerate(found) if place != 2)
    assert (await store.head("asset:prod/a")).version in (4, 5)


async def test_what_a_decider_raises_is_its_own(world: World) -> None:
    appender, _ = await _appender(world)

    def refuse() -> NewEvent | None:
        raise LookupError("no")

    one, two, three = await asyncio.gather(
        appender.append("1", refuse),
        appender.append("2", lambda: None),
        appender.append("3", lambda: NewEvent(b'{"type":"x"}')),
        return_exceptions=True,
    )
    assert (type(one), two, three) == (LookupError, 0, 1)
    with pytest.raises(LookupError):
        await appender.append("1", refuse)
