"""Checks: queues of pools (capability ``permits``). Who is next, how it is told, and what if it does not come."""

from __future__ import annotations

from typing import Final

from msgspec.json import decode

from eventstore.conformance.harness import (
    Shared,
    StoreHarness,
    claim,
    give_back,
    shared_pool,
    take,
    wait,
)
from eventstore.port import GRANT_SECONDS, StreamQuery

_RUNS: Final = StreamQuery(category="run", limit=1_000)


async def the_first_of_the_queue_is_granted_and_told(harness: StoreHarness) -> None:
    """By a control message, for which its rested stream is claimed; nobody passes it, and taking confirms it."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None or shared.lease is None:
            return
        store, lease = shared.store, shared.lease
        await shared.does("run:a", take("a1"))
        await shared.does("run:b", wait("b1"), release=True, held=True)
        await shared.does("run:c", wait("c1"), release=True)
        assert await claim(store, lease) == []
        await shared.full("run:a", take("a2"))
        await shared.does("run:a", give_back("a1"))
        (message,) = (await store.head("run:b")).messages
        assert decode(message.header) == {"type": "PermitGranted", "pool": "p", "holder": "b1"}
        assert (message.control, message.payload, message.sender) == (True, None, "pool:p")
        assert await claim(store, lease) == ["run:b"]
        await shared.full("run:a", take("a1"))
        await shared.does("run:b", take("b1"), consumes=(message.id,))
        await shared.does("run:b", wait("b1"))  # it holds: nothing to wait for
        assert await shared.granted("run:c") == []
        await shared.does("run:b", give_back("b1"))
        assert await shared.granted("run:c") == ["c1"]
        assert await claim(store, lease) == ["run:c"]
        head = await shared.does("run:c", give_back("c1"))
        await shared.does("run:b", wait("b1"))
        again = [one for one in (await store.head("run:b")).messages if one.id != message.id]
        assert len(again) == 1, "a second grant is a second message"
        assert len(head.messages) == 1


async def waiting_with_room_is_granted_at_once(harness: StoreHarness) -> None:
    """With a message to itself, unless the same commit takes it; a new stream may wait as well."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        head = await shared.does("run:a", wait("a1"))
        assert len(head.messages) == 1
        assert head == await shared.store.head("run:a")
        head = await shared.does("run:b", wait("b1"), take("b1"))
        assert head.messages == ()
        await shared.full("run:c", take("c1"))
        head = await shared.does("run:a", give_back("a1"), wait("a2"), give_back("a2"))
        assert len(head.messages) == 1
        await shared.does("run:c", take("c1"))


async def the_queue_goes_by_priority_then_by_turns_then_by_arrival(harness: StoreHarness) -> None:
    """A key that came with many does not stand before the first of another key; a priority does."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        await shared.does("run:holds", take("x"))
        for number in range(4):
            await shared.does("run:a", wait(f"a{number}", key="a"))
        for number in range(2):
            await shared.does("run:b", wait(f"b{number}", key="b"))
        await shared.does("run:c", wait("c0"), wait("urgent", priority=1), wait("never", priority=-1))
        order = await _order(shared, 4)
        assert order == ["urgent", "a0", "b0", "c0"]
        await shared.does("run:d", wait("d0", key="d"), wait("d1", key="d"))  # a1 has its turn already
        assert await _order(shared, 7) == ["a1", "b1", "a2", "d0", "a3", "d1", "never"]


async def a_key_with_many_does_not_starve_another(harness: StoreHarness) -> None:
    """Whoever comes while a busy key has hundreds waiting is next but one, every time, whatever the priorities."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        await shared.does("run:holds", take("x"))
        for priority in (0, 5):
            waits = tuple(wait(f"busy {priority} {number:03}", key="busy", priority=priority) for number in range(200))
            await shared.does("run:busy", *waits)
        for round_number in range(5):
            await shared.does("run:late", wait(f"late {round_number}", key="late", priority=5))
            assert f"late {round_number}" in await _order(shared, 3)
        await shared.does("run:low", wait("low 0", key="low"), wait("low 1", key="low"))
        told = tuple(message_id for stream, message_id, _ in await _grants(shared) if stream == "run:busy")
        returns = (give_back(f"busy 5 {number:03}") for number in range(200))
        await shared.does("run:busy", *returns, consumes=told)
        order = await _order(shared, 6)
        assert ("low 0" in order[:3], "low 1" in order) == (True, True), order


async def what_the_dead_held_goes_to_who_waits(harness: StoreHarness) -> None:
    """Nobody cleans up: the next who comes to the pool serves the queue; the dead's own places stay in it."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None or shared.lease is None:
            return
        async with shared.store.lease("short") as short:
            await shared.does("run:dead", take("d1"), take("d2"), wait("d3"), lease=short)
            await shared.does("run:a", wait("a1"))
            await harness.crash_lease(short)
        assert await shared.granted("run:a") == []
        await shared.does("run:b", wait("b1"))
        assert await shared.granted("run:dead") == ["d3"]
        assert await shared.granted("run:a") == ["a1"]
        assert await claim(shared.store, shared.lease) == ["run:a", "run:dead"]
        await shared.does("run:dead", take("d3"))  # by who takes the stream over
        await shared.full("run:dead", take("d1"))


async def a_grant_that_nobody_takes_goes_to_the_next(harness: StoreHarness) -> None:
    """After GRANT_SECONDS, and not before; its holder waits again at the end. A rested stream has that long."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        await shared.does("run:holds", take("x"))
        await shared.does("run:a", wait("a1"), release=True)
        await shared.does("run:b", wait("b1"), release=True)
        await shared.does("run:c", wait("c1"), release=True)
        await shared.does("run:holds", give_back("x"))
        await harness.turn(GRANT_SECONDS - 1)
        await shared.does("run:holds", wait("x"))
        assert [await shared.granted(f"run:{name}") for name in "abc"] == [["a1"], [], []]
        await harness.turn(1)
        await shared.does("run:holds", wait("x"))
        assert [await shared.granted(f"run:{name}") for name in "abc"] == [["a1"], ["b1"], []]
        await shared.full("run:a", take("a1"), lease=None)
        await shared.does("run:b", take("b1"), lease=None)
        for name, expected in (("c", ["c1"]), ("holds", ["x"]), ("a", ["a1", "a1"])):
            await shared.does("run:b", give_back("b1"), lease=None)
            await harness.turn(GRANT_SECONDS)
            await shared.does("run:d", give_back("none"))
            await shared.does("run:b", wait("b1"), lease=None)
            assert await shared.granted(f"run:{name}") == expected


async def a_late_confirmation_counts_while_nobody_else_wants_it(harness: StoreHarness) -> None:
    """A grant lapses only for others: who takes it at last has it."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        await shared.does("run:a", wait("a1"))
        await harness.turn(10 * GRANT_SECONDS)
        await shared.does("run:a", take("a1"))
        await harness.turn(10 * GRANT_SECONDS)
        await shared.full("run:b", take("b1"))


async def _order(shared: Shared, count: int) -> list[str]:
    """The next of the queue as they are granted one after the other, each giving back what it was granted."""
    order: list[str] = []
    if not await _grants(shared):
        await shared.does("run:holds", give_back("x"))
    while len(order) < count:
        ((stream, message_id, holder),) = await _grants(shared)
        order.append(holder)
        await shared.does(stream, give_back(holder), consumes=(message_id,))
    return order


async def _grants(shared: Shared) -> list[tuple[str, str, str]]:
    """Every grant that no stream has consumed: stream, message and holder."""
    heads = [await shared.store.head(summary.stream) for summary in (await shared.store.find(_RUNS)).items]
    return [(head.stream, message.id, decode(message.header)["holder"]) for head in heads for message in head.messages]
