"""What the memory store offers beyond the port, and what it must not cost."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from eventstore import NEW, Commit, Message, NewEvent, Opening, StoreClosed, StreamNotFound, StreamQuery
from eventstore.conformance import TurnedClock
from eventstore.memory import LEASE_TTL_SECONDS, MemoryLease, MemoryStore


def commit(stream: str, version: int, **parts: object) -> Commit:
    return Commit(id=f"{stream} {version}", stream=stream, expected_version=version, **parts)


def mail(stream: str, message_id: str = "m") -> Message:
    return Message(id=message_id, stream=stream, header=b"{}")


async def test_a_commit_can_be_cancelled_before_it_happened_and_behind() -> None:
    """Whoever tests with the double meets what a real store does: cancelled, and not applied; cancelled, and applied."""
    store = MemoryStore()
    first = asyncio.create_task(store.commit(commit("run:b", NEW)))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(StreamNotFound):
        await store.head("run:b")
    second = asyncio.create_task(store.commit(commit("run:b", NEW)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (await store.head("run:b")).version == 0
    await store.aclose()


async def test_a_lease_lives_however_the_clock_is_turned_until_it_stalls() -> None:
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    async with store.lease("worker") as lease:
        clock.let_pass(1_000_000)
        assert lease.fresh()
        assert isinstance(lease, MemoryLease)
        lease.stall()
        clock.let_pass(LEASE_TTL_SECONDS - 1)
        assert lease.fresh()
        lease.resume()
        clock.let_pass(LEASE_TTL_SECONDS)
        assert lease.fresh()
        lease.stall()
        clock.let_pass(LEASE_TTL_SECONDS)
        lease.resume()
        assert not lease.fresh(), "a lapse is final"
    await store.aclose()


async def test_the_time_to_live_is_the_callers() -> None:
    clock = TurnedClock()
    store = MemoryStore(clock=clock, lease_ttl=2.0)
    async with store.lease("worker") as lease:
        assert isinstance(lease, MemoryLease)
        lease.stall()
        clock.let_pass(1.9)
        assert lease.fresh()
        clock.let_pass(0.2)
        assert not lease.fresh()
    await store.aclose()


async def test_ending_a_lease_twice_does_nothing() -> None:
    store = MemoryStore()
    async with store.lease("worker") as lease:
        store.end(lease)
        store.end(lease)
        assert not lease.fresh()
    await store.aclose()


async def test_notify_wakes_a_waiter_as_soon_as_the_clock_was_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the waiter finds out at its next look; with it, at once."""
    monkeypatch.setattr("eventstore.memory.POLL_SECONDS", 3_600.0)
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    await store.commit(commit("run:a", NEW, alarm=clock.now() + 1_000_000))
    async with store.lease("worker") as lease:
        assert await store.claim(lease, query=StreamQuery(), limit=1) == []
        waiter = asyncio.create_task(store.wait(lease, timeout=3_600))
        for _ in range(5):
            await asyncio.sleep(0)
        clock.turn(2)
        store.notify()
        async with asyncio.timeout(10):
            await waiter
        assert len(await store.claim(lease, query=StreamQuery(), limit=1)) == 1
    await store.aclose()


async def test_a_claim_looks_only_where_attention_may_be() -> None:
    """Ten thousand idle and finished streams beside one in need: the claim looks at a few, not at all."""
    store = MemoryStore()
    looked = 0
    needs = store._streams.needs

    def counting(stream: object) -> bool:
        nonlocal looked
        looked += 1
        return needs(stream)

    async with store.lease("gone") as gone:
        for number in range(2_000):
            await store.commit(commit(f"run:idle{number}", NEW))
            await store.commit(commit(f"run:asleep{number}", NEW, alarm=2**62))
            await store.commit(commit(f"run:done{number}", NEW, alarm=0, lease=gone))
            await store.send(mail(f"run:done{number}"))
            await store.commit(
                Commit(id="close", stream=f"run:done{number}", expected_version=0, closed=True, lease=gone)
            )
    await store.send(mail("run:idle7"))
    store._streams.needs = counting
    async with store.lease("worker") as lease:
        heads = await store.claim(lease, query=StreamQuery(), limit=10)
    assert [head.stream for head in heads] == ["run:idle7"]
    assert looked < 20
    await store.aclose()


async def test_a_claim_looks_at_no_more_in_need_than_it_may_take() -> None:
    """A run with thousands of children that all wait to begin: each claim looks at a few of them."""
    store = MemoryStore()
    children = tuple(
        Message(id="start", stream=f"run:{number:04}", header=b"{}", opens=Opening()) for number in range(5_000)
    )
    await store.commit(commit("run:parent", NEW, sends=children))
    looked = 0
    needs = store._streams.needs

    def counting(stream: object) -> bool:
        nonlocal looked
        looked += 1
        return needs(stream)

    store._streams.needs = counting
    async with store.lease("worker") as lease:
        heads = await store.claim(lease, query=StreamQuery(), limit=10)
    assert sorted(head.stream for head in heads) == [f"run:{number:04}" for number in range(10)]
    assert looked < 50
    await store.aclose()


async def test_an_alarm_that_is_moved_at_every_step_costs_no_memory() -> None:
    clock = TurnedClock()
    store = MemoryStore(clock=clock)
    for number in range(1_000):
        await store.commit(
            Commit(
                id=str(number),
                stream="run:a",
                expected_version=0 if number else NEW,
                alarm=clock.now() + number + 1,
            )
        )
    assert len(store._streams._alarms) < 200
    async with store.lease("worker") as lease:
        assert await store.claim(lease, query=StreamQuery(), limit=1) == []
        clock.turn(1)
        assert len(await store.claim(lease, query=StreamQuery(), limit=1)) == 1
    await store.aclose()


async def test_leases_and_waits_leave_nothing_behind() -> None:
    store = MemoryStore()
    gc.collect()
    for _ in range(50):
        async with store.lease("worker") as lease:
            await store.commit(
                Commit(id=str(lease.token), stream=f"run:{lease.token}", expected_version=NEW, lease=lease)
            )
            await store.wait(lease, timeout=0)
        heads = await _claim_all_and_release(store)
        assert len(heads) == 1
    assert store._leases == {}
    assert store._streams._owned == {}
    assert sys.getrefcount(store._bell) < 10
    await store.aclose()


async def test_a_reading_that_the_store_was_closed_under_says_so() -> None:
    store = MemoryStore()
    await store.commit(commit("run:a", NEW, events=(NewEvent(b"{}"),) * 1_200))
    seen = 0
    with pytest.raises(StoreClosed):
        async for _ in store.read("run:a"):
            seen += 1
            if seen == 10:
                await store.aclose()
    assert 10 <= seen < 1_200


async def _claim_all_and_release(store: MemoryStore) -> list[object]:
    async with store.lease("cleaner") as lease:
        heads = await store.claim(lease, query=StreamQuery(), limit=10)
        for head in heads:
            await store.commit(
                Commit(id="release", stream=head.stream, expected_version=head.version, lease=lease, release=True)
            )
        return list(heads)
