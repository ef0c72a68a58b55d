"""Checks: a caller that is cancelled while it waits. What it asked for happened wholly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from eventstore.conformance.harness import StoreHarness, begin, claim, data, event, history, mail, soon, step
from eventstore.port import NEW, EventStore

_POINTS: Final = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 144, 377, 987, 2_584)
"""After how many turns of the event loop the caller is cancelled: from before it began to after it was done."""


async def a_cancelled_commit_happens_wholly_or_not_at_all(harness: StoreHarness) -> None:
    """Events, consumed and sent messages and attributes of a cancelled commit: all are there or none is."""
    store = await harness.open()
    for number, point in enumerate(_POINTS):
        stream, to = f"run:{number}", f"run:to{number}"
        await begin(store, stream, to)
        await store.send(data(stream, "in"))
        commit = step(
            stream,
            1,
            event("one"),
            event("two", b"2"),
            consumes=("in",),
            sends=(data(to, "out"),),
            attributes={"state": "done"},
            alarm=77,
        )
        await _cancel_at(point, store.commit(commit))
        await begin(store, f"run:barrier{number}")  # behind whatever the cancelled call still has under way
        head = await store.head(stream)
        parts = {
            head.version == 3,
            len(await history(store, stream)) == 3,
            mail(head) == [],
            mail(await store.head(to)) == ["out"],
            head.attributes == {"state": "done"},
            head.alarm == 77,
        }
        assert len(parts) == 1, f"half a commit when cancelled after {point} turns: {head}"


async def a_cancelled_commit_can_be_tried_again(harness: StoreHarness) -> None:
    """The same commit again has one outcome, and it happened once, whether or not the first try was applied."""
    store = await harness.open()
    for number, point in enumerate(_POINTS):
        stream = f"run:{number}"
        await begin(store, stream)
        commit = step(stream, 1, event("once", b"1"), sends=(data("run:nobody", "m"),))
        await _cancel_at(point, store.commit(commit))
        heads = [await store.commit(commit) for _ in range(2)]
        assert [head.version for head in heads] == [2, 2]
        assert heads[0].digest == heads[1].digest
        assert [len(head.undelivered) for head in heads] == [1, 1]
        assert await history(store, stream) == ["begun", "once"]
        assert (await store.commit(step(stream, 2, event("next")))).version == 3


async def a_cancelled_commit_harms_no_other(harness: StoreHarness) -> None:
    """Commits that were called with a cancelled one happen, and none is left waiting."""
    store = await harness.open()
    for number, point in enumerate(_POINTS):
        streams = [f"run:{number} {more}" for more in range(9)]
        calls = [asyncio.create_task(store.commit(step(stream, NEW, event(stream)))) for stream in streams]
        for _ in range(point):
            await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        await soon(asyncio.wait(calls))
        for index, call in enumerate(calls):
            if index % 3:
                assert call.result().version == 1
                assert await history(store, streams[index]) == [streams[index]]
            else:
                assert call.cancelled() or call.result().version == 1


async def a_cancelled_send_delivers_once_or_not(harness: StoreHarness) -> None:
    """And the same message again is delivered once."""
    store = await harness.open()
    await begin(store, "run:a")
    for number, point in enumerate(_POINTS):
        message = data("run:a", f"m{number}")
        await _cancel_at(point, store.send(message))
        await store.send(message)
    assert mail(await store.head("run:a")) == [f"m{number}" for number in range(len(_POINTS))]


async def a_cancelled_claim_owns_and_counts_alike(harness: StoreHarness) -> None:
    """A claim whose caller was cancelled owned and counted, or did neither; the lease can claim the stream again."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        for number, point in enumerate(_POINTS):
            stream = f"run:{number}"
            await begin(store, stream)
            await store.send(data(stream, "m"))
            await _cancel_at(point, claim(store, lease))
            await begin(store, f"run:barrier{number}")
            head = await store.head(stream)
            assert (head.owner, head.claims) in ((None, 0), (lease.token, 1))
            assert await claim(store, lease) == [stream]
            await store.commit(step(stream, 1, consumes=("m",), lease=lease))


async def a_cancelled_reading_leaves_the_store_usable(harness: StoreHarness) -> None:
    """Reads and searches cancelled anywhere leave nothing behind that holds up the next."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, *(event() for _ in range(1_200))))
    for point in _POINTS:
        await _cancel_at(point, history(store, "run:a"))
        await _cancel_at(point, _whole_log(store))
        await _cancel_at(point, store.head("run:a"))
    assert len(await soon(history(store, "run:a"))) == 1_200
    assert (await soon(store.commit(step("run:a", 1_200, event())))).version == 1_201


async def a_timeout_is_a_cancellation_like_any_other(harness: StoreHarness) -> None:
    """A commit under a timeout that is over at once can be tried again without one."""
    store = await harness.open()
    version = NEW
    for _ in range(20):
        commit = step("run:a", version, event())
        try:
            async with asyncio.timeout(0):
                await store.commit(commit)
        except TimeoutError:
            pass
        version = (await store.commit(commit)).version
    assert version == 20


async def _whole_log(store: EventStore) -> int:
    return len([recorded async for recorded in store.read_all()])


async def _cancel_at(point: int, coroutine: Coroutine[Any, Any, object]) -> None:
    call = asyncio.create_task(coroutine)
    for _ in range(point):
        if call.done():
            break
        await asyncio.sleep(0)
    call.cancel()
    await soon(asyncio.wait([call]))
    if not call.cancelled():
        call.result()  # done before it could be cancelled: then it must have gone well
