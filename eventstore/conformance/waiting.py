"""Checks: sleeping until there is something to claim. No wake-up is ever lost; none is needed to be correct."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from eventstore.conformance.harness import (
    StoreHarness,
    begin,
    claim,
    control,
    data,
    event,
    refused,
    soon,
    step,
)
from eventstore.errors import InvalidArgument
from eventstore.port import NEW, EventStore, Lease, Opening, StreamQuery

_LONG: Final = 3_600.0
"""A timeout that no check waits for: returning because of it would fail the check's patience."""
_PING: Final = ("run:ping", "run:pong")

_Change = Callable[[EventStore], Awaitable[object]]


async def a_sleeper_wakes_for_whatever_makes_a_stream_need_attention(harness: StoreHarness) -> None:
    """Mail, sent or committed, data or control; a release, a resumption, an alarm set or fallen due, a lease's end."""
    await _wake(harness, turns=400)


async def a_wait_that_has_just_begun_ends_for_the_same(harness: StoreHarness) -> None:
    """The same changes, made while the waiter is on its way to sleep."""
    await _wake(harness, turns=2)


async def a_commit_between_claim_and_wait_is_not_missed(harness: StoreHarness) -> None:
    """What happened after the claim and before the wait ends the wait at once, from the same handle or another."""
    store, other = await harness.open(), await harness.open()
    await begin(store, *(f"run:{number}" for number in range(6)))
    async with store.lease("worker") as lease:
        claimed: set[str] = set()
        for number in range(6):
            await _settle(store, lease, claimed)
            handle = other if number % 2 else store
            if number < 4:
                await handle.send(data(f"run:{number}", "m"))
            else:
                await handle.commit(step(f"run:{number}", 1, alarm=harness.now()))
            await soon(_until_claimed(store, lease, f"run:{number}", claimed))


async def need_that_was_there_before_anybody_waited_is_seen(harness: StoreHarness) -> None:
    """A wait without any claim before it returns when there is something to claim already."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    async with store.lease("worker") as lease:
        await soon(store.wait(lease, timeout=_LONG))
        assert await claim(store, lease) == ["run:a"]


async def mail_to_a_stream_wakes_its_living_owner(harness: StoreHarness) -> None:
    """Sent or committed, data or control, from the owner's handle or another: whoever owns the stream need not poll."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("owner") as lease:
        await begin(store, "run:a", "run:held", lease=lease)
        await store.commit(step("run:held", 1, held=True, lease=lease))
        for number, handle in enumerate((store, other, store, other)):
            messages = (
                data("run:a", f"sent {number}"),
                data("run:a", f"committed {number}"),
                control("run:held", f"sent {number}"),
            )
            for message in messages:
                claimed: set[str] = set()
                await _settle(store, lease, claimed)
                assert claimed == set()
                sleeper = asyncio.create_task(_until_claimed(store, lease, message.stream, claimed))
                for _ in range(50):
                    await asyncio.sleep(0)
                if message.id.startswith("committed"):
                    await handle.commit(step(f"run:{message.id}", NEW, sends=(message,)))
                else:
                    await handle.send(message)
                await soon(sleeper)
                await store.commit(step(message.stream, 1, consumes=(message.id,), lease=lease))


async def a_claim_cut_by_its_limit_is_not_slept_on(harness: StoreHarness) -> None:
    """When a claim left some for the next, the next is not slept for."""
    store = await harness.open()
    streams = [f"run:{number}" for number in range(9)]
    await begin(store, *streams)
    for stream in streams:
        await store.send(data(stream, "m"))
    async with store.lease("worker") as lease:
        claimed: set[str] = set()

        async def work() -> None:
            while len(claimed) < len(streams):
                claimed.update(await claim(store, lease, limit=2, busy=claimed))
                await store.wait(lease, timeout=_LONG if len(claimed) < len(streams) else 0)

        await soon(work())


async def two_workers_play_ball_without_a_pause(harness: StoreHarness) -> None:
    """Two workers on two handles hand a message to and fro, each sleeping between: one lost wake-up would stop them."""
    stores = [await harness.open(), await harness.open()]
    rounds = 25
    await begin(stores[0], *_PING)
    await stores[0].send(data(_PING[0], "0"))

    async def play(number: int) -> None:
        store, own, opposite = stores[number], _PING[number], _PING[1 - number]
        async with store.lease(own) as lease:
            version, done = 1, -1
            while done < 2 * rounds - 2:
                for head in await store.claim(lease, query=_only(own), limit=1):
                    for message in head.messages:
                        done = int(message.id)
                        sends = (data(opposite, str(done + 1)),)
                        commit = step(own, version, event(), consumes=(message.id,), sends=sends, lease=lease)
                        version = (await store.commit(commit)).version
                for _ in range(done % 7):  # sometimes the answer is there before the wait
                    await asyncio.sleep(0)
                if done < 2 * rounds - 2:
                    await store.wait(lease, timeout=_LONG)

    await soon(asyncio.gather(play(0), play(1)))


async def a_wait_ends_at_its_timeout(harness: StoreHarness) -> None:
    """With nothing to claim a wait is no longer than asked, nothing being an answer; nonsense is refused."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []
        for timeout in (0, 0.01, 0.05):
            await soon(store.wait(lease, timeout=timeout))
        for timeout in (-1, float("nan")):
            with refused(InvalidArgument):
                await store.wait(lease, timeout=timeout)


async def a_wait_for_nothing_sleeps(harness: StoreHarness) -> None:
    """Spurious returns are allowed, spinning is not: also beside a stream that is in need and busy, or another's."""
    store = await harness.open()
    async with store.lease("another") as another, store.lease("worker") as lease:
        await begin(store, "run:another", lease=another)
        await begin(store, "run:busy", lease=lease)
        for stream in ("run:another", "run:busy"):
            await store.send(data(stream, "m"))
        await store.commit(step("run:busy", 1, alarm=harness.now(), lease=lease))
        rounds = 0

        async def work() -> None:
            nonlocal rounds
            while True:
                assert await claim(store, lease, busy=("run:busy",)) == []
                await store.wait(lease, timeout=_LONG)
                rounds += 1

        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await work()
        assert rounds < 40, f"a worker with nothing to do went round {rounds} times in 0.3 seconds"


async def a_cancelled_wait_leaves_nothing_behind(harness: StoreHarness) -> None:
    """A waiter can be cancelled at any time; the next one works as if it had not been."""
    store = await harness.open()
    await begin(store, "run:a")
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []
        for turns in range(6):
            sleeper = asyncio.create_task(store.wait(lease, timeout=_LONG))
            for _ in range(turns):
                await asyncio.sleep(0)
            sleeper.cancel()
            await asyncio.wait([sleeper])
        sleeper = asyncio.create_task(_until_claimed(store, lease, "run:a", set()))
        await asyncio.sleep(0)
        await store.send(data("run:a", "m"))
        await soon(sleeper)


async def _until_claimed(store: EventStore, lease: Lease, stream: str, claimed: set[str]) -> None:
    while stream not in claimed:
        await store.wait(lease, timeout=_LONG)
        claimed.update(await claim(store, lease, busy=claimed))


async def _settle(store: EventStore, lease: Lease, claimed: set[str]) -> None:
    """Take in all news so far, so that the next wait has something to sleep for."""
    await store.wait(lease, timeout=0)
    claimed.update(await claim(store, lease, busy=claimed))


def _only(stream: str) -> StreamQuery:
    return StreamQuery(streams=(stream,))


async def _wake(harness: StoreHarness, *, turns: int) -> None:
    """Make every change that can make a stream need attention, each while somebody waits for it.

    `turns` of the event loop lie between the beginning of the wait and the change.
    """
    store, other = await harness.open(), await harness.open()
    run = f"run:{turns} "
    async with store.lease("other") as mortal, store.lease("paused") as paused, store.lease("worker") as lease:
        await begin(store, *(run + name for name in ("data", "control", "sent", "held", "set")))
        await begin(store, run + "orphan", run + "released", lease=mortal)
        await begin(store, run + "paused", lease=paused)
        await store.commit(step(run + "held", 1, held=True))
        await store.send(data(run + "held", "m"))
        await store.send(data(run + "released", "m"))
        await store.commit(step(run + "due", NEW, alarm=harness.now() + 60_000_000))
        changes: list[tuple[str, _Change]] = [
            ("data", lambda by: by.send(data(run + "data", "m"))),
            ("control", lambda by: by.send(control(run + "control", "m"))),
            ("sent", lambda by: by.commit(step(run + "x", NEW, sends=(data(run + "sent", "m"),)))),
            ("opened", lambda by: by.send(data(run + "opened", "m", opens=Opening()))),
            ("held", lambda by: by.commit(step(run + "held", 1, held=False))),
            ("set", lambda by: by.commit(step(run + "set", 1, alarm=harness.now()))),
            ("released", lambda _: store.commit(step(run + "released", 1, release=True, lease=mortal))),
            ("due", lambda _: harness.turn(61)),
            ("orphan", lambda _: harness.crash_lease(mortal)),
            ("paused", lambda _: harness.stall_lease(paused)),
        ]
        claimed: set[str] = set()
        for number, (name, change) in enumerate(changes):
            await _settle(store, lease, claimed)
            assert run + name not in claimed
            sleeper = asyncio.create_task(_until_claimed(store, lease, run + name, claimed))
            for _ in range(turns):
                await asyncio.sleep(0)
            await change(other if number % 2 else store)
            await soon(sleeper)
