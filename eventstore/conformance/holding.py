"""Checks: how long a permit is held (capability ``permits``). As long as its lease, or if it is lasting its stream."""

from __future__ import annotations

from typing import Final

from eventstore.conformance.harness import (
    Shared,
    StoreHarness,
    claim,
    data,
    give_back,
    refused,
    shared_pool,
    take,
    wait,
)
from eventstore.errors import LeaseLost
from eventstore.port import GRANT_SECONDS, Permit

_ENDS: Final = ("crash", "stall", "leave")


async def what_the_dead_held_is_free_though_its_stream_lives_on(harness: StoreHarness) -> None:
    """A worker that took over the stream of a dead one has none of its permits, whatever it commits to it."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None or shared.lease is None:
            return
        for how in _ENDS:
            name = f"run:{how}"
            await _dies_holding(harness, shared, name, how, take(f"{how} 1"), take(f"{how} 2"))
            assert await claim(shared.store, shared.lease) == [name]
            await shared.does(name)
            await shared.does("run:a", take(f"a {how}"))
            await shared.does("run:b", take(f"b {how}"))
            await shared.full(name, take(f"{how} 1"))
            await shared.does("run:a", give_back(f"a {how}"))
            await shared.does("run:b", give_back(f"b {how}"))


async def who_takes_a_stream_over_is_not_in_its_own_way(harness: StoreHarness) -> None:
    """What the stream held under an older lease is free for its new owner's other holders, and for who waits."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None or shared.lease is None:
            return
        await _dies_holding(harness, shared, "run:dead", "crash", take("d1"), take("d2"))
        assert await claim(shared.store, shared.lease) == ["run:dead"]
        await shared.does("run:dead", take("d3"), wait("d4"))
        assert await shared.granted("run:dead") == ["d4"]
        await shared.full("run:dead", take("d5"))
        await shared.full("run:a", take("a1"))


async def what_is_taken_again_under_the_next_lease_goes_on(harness: StoreHarness) -> None:
    """By its holder, though the pool looks full; then it is held as long as that lease, and what was not is free."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await _dies_holding(harness, shared, "run:dead", "crash", take("d1"), take("d2"))
        async with shared.store.lease("heir") as heir:
            assert await claim(shared.store, heir) == ["run:dead"]
            await shared.does("run:dead", take("d1"), lease=heir)
            await shared.does("run:a", take("a1"))
            await shared.full("run:a", take("a2"))
            await shared.full("run:dead", take("d2"), lease=heir)
            await shared.does("run:dead", take("d1"), lease=heir)
            await harness.crash_lease(heir)
        await shared.does("run:a", take("a2"))
        await shared.full("run:a", take("a3"))


async def who_waits_for_what_a_dead_owner_held_is_in_the_queue(harness: StoreHarness) -> None:
    """The heir of a stream asks to wait under the name by which the dead owner held a permit: it is not forgotten."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        for how in _ENDS:
            name = f"run:{how}"
            await _dies_holding(harness, shared, name, how, take(f"{how} 1"))
            async with shared.store.lease("heir") as heir:
                assert await claim(shared.store, heir) == [name]
                await shared.does(name, wait(f"{how} 1"), lease=heir, release=True)
                assert await shared.granted(name) == [f"{how} 1"]
                await shared.full("run:a", take("a1"))
                assert await claim(shared.store, heir) == [name], "it is told, so that it is claimed again"
                (message,) = (await shared.store.head(name)).messages
                await shared.does(name, give_back(f"{how} 1"), lease=heir, consumes=(message.id,), closed=True)


async def what_is_taken_without_a_lease_is_free_when_it_is_wanted(harness: StoreHarness) -> None:
    """Whoever owns the stream by then, but not for the commit itself; taken under a lease it is that lease's."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None or shared.lease is None:
            return
        await shared.full("run:a", take("a1"), take("a2"), lease=None)
        await shared.does("run:a", take("a1"), lease=None)
        await shared.store.send(data("run:a", "m"))
        assert await claim(shared.store, shared.lease) == ["run:a"]
        await shared.does("run:a", consumes=("m",))
        await shared.does("run:b", take("b1"))
        await shared.full("run:a", take("a1"))
        await shared.does("run:b", give_back("b1"))
        await shared.does("run:c", take("c1"), lease=None)
        await shared.store.send(data("run:c", "m"))
        assert await claim(shared.store, shared.lease) == ["run:c"]
        await shared.does("run:c", take("c1"), consumes=("m",))
        await shared.full("run:b", take("b1"))


async def releasing_a_stream_returns_what_it_holds(harness: StoreHarness) -> None:
    """At once, to who waits, also what the same commit took; places in the queue, grants and what is lasting stay."""
    async with shared_pool(harness, limit=3) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("a1"), take("a2"), take("lasting", lasting=True))
        await shared.does("run:b", wait("b1"), wait("b2"), wait("b3"))
        with refused(LeaseLost):
            await shared.does("run:a", lease=None, release=True)
        assert await shared.granted("run:b") == []
        await shared.does("run:a", wait("a3"), release=True)
        assert await shared.granted("run:b") == ["b1", "b2"]
        await shared.does("run:b", take("b1"), take("b2"))
        await shared.does("run:b", release=True)
        assert await shared.granted("run:b") == ["b1", "b2", "b3"]
        assert await shared.granted("run:a") == ["a3"]
        await shared.full("run:c", take("c1"))
        await shared.does("run:b", lease=None, release=True)  # what is granted waits for who claims the stream
        await shared.full("run:c", take("c1"))
        await shared.does("run:b", give_back("b3"), lease=None)
        head = await shared.does("run:c", take("c1"), release=True)
        assert (head.owner, head.messages) == (None, ())
        await shared.does("run:d", take("d1"))
        await shared.full("run:e", take("e1"))


async def closing_gives_up_what_the_stream_has(harness: StoreHarness) -> None:
    """Slots go to the next when it is given up with that, and places in the queue are gone; and of many pools."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.limit(1, pool="q")
        await shared.does("run:a", take("a1"), take("a2", lasting=True), take("a3", "q"))
        await shared.does("run:b", wait("b1"), wait("b2", "q"))
        await shared.does("run:c", wait("c1"), wait("c2", "q"), wait("c3"))
        await shared.does("run:b", closed=True)
        assert await shared.granted("run:c") == []
        await shared.does("run:a", closed=True, release=True)
        assert sorted(await shared.granted("run:c")) == ["c1", "c2", "c3"]
        assert await shared.granted("run:b") == []
        await shared.full("run:d", take("d1"))
        await shared.does("run:c", closed=True)  # what was granted is given up, too
        await shared.does("run:d", take("d1"), take("d2"))
        head = await shared.does("run:d", wait("d3"), closed=True)
        assert head.messages == ()
        await shared.full("run:e", take("e1"))
        head = await shared.does("run:d", give_back("d1"), release=True)
        assert head.messages == ()
        await shared.does("run:e", take("e1"), take("e2"))
        await shared.does("run:e", closed=True, release=True)
        await shared.does("run:f", take("f1"), closed=True, release=True)
        await shared.does("run:g", take("g1"), closed=True, lease=None)  # nothing stays with who is closed under none
        await shared.does("run:h", take("h1"), take("h2"))


async def a_closed_stream_holds_what_its_owner_took(harness: StoreHarness) -> None:
    """Until it is returned or given up, or its owner's lease ends; what it waits for, and what is lasting, is gone."""
    async with shared_pool(harness, limit=3) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("a1"), take("a2"), take("a3", lasting=True))
        await shared.does("run:a", wait("a4"))
        await shared.does("run:b", wait("b1"), wait("b2"))
        await shared.does("run:a", closed=True)
        assert await shared.granted("run:b") == ["b1"]
        await shared.full("run:c", take("c1"))
        await shared.does("run:a")  # the owner still asks its attempts to end
        assert await shared.granted("run:b") == ["b1"]
        await shared.does("run:a", give_back("a1"))
        assert await shared.granted("run:b") == ["b1", "b2"]
        await shared.does("run:c", wait("c1"))
        await shared.does("run:a", release=True)
        assert await shared.granted("run:c") == ["c1"]
        assert await shared.granted("run:a") == []
        await shared.does("run:b", give_back("b1"), give_back("b2"))
        await shared.does("run:c", give_back("c1"))
        for number, how in enumerate(_ENDS):
            holders = [f"{how} {more}" for more in range(3)]
            await _dies_holding(harness, shared, f"run:{how}", how, *map(take, holders), closed=True)
            await shared.does("run:d", *(take(f"d{number} {more}") for more in range(3)))
            await shared.does("run:d", *(give_back(f"d{number} {more}") for more in range(3)))


async def a_lasting_permit_is_the_streams_own(harness: StoreHarness) -> None:
    """Kept when its owner dies, leaves, gives the stream up, or there never was one; until returned, or closed."""
    async with shared_pool(harness, limit=5) as shared:
        if shared is None or shared.lease is None:
            return
        for how in _ENDS:
            await _dies_holding(harness, shared, f"run:{how}", how, take(how, lasting=True))
        await shared.does("run:release", take("release", lasting=True), release=True)
        await shared.does("run:free", take("free", lasting=True), lease=None)
        await shared.full("run:a", take("a1"))
        assert await claim(shared.store, shared.lease) == sorted(f"run:{how}" for how in _ENDS)
        await shared.does("run:crash")
        await shared.does("run:stall", take("stall", lasting=True))
        await shared.full("run:a", take("a1"))
        await shared.does("run:a", wait("a1"), wait("a2"), wait("a3"), wait("a4"))
        await shared.does("run:crash", give_back("crash"))
        await shared.does("run:stall", closed=True)
        await shared.does("run:release", closed=True, lease=None)
        assert await shared.granted("run:a") == ["a1", "a2", "a3"]
        await shared.does("run:free", give_back("free"), lease=None)
        assert await shared.granted("run:a") == ["a1", "a2", "a3", "a4"]


async def taking_makes_a_permit_lasting_and_never_the_reverse(harness: StoreHarness) -> None:
    """Whatever was said when it was taken first, or waited for."""
    async with shared_pool(harness, limit=4) as shared:
        if shared is None:
            return
        async with shared.store.lease("short") as short:
            mine = Shared(shared.store, short)
            await mine.does("run:dead", take("d1", lasting=True), wait("d2"), take("d3"), wait("d4"))
            await mine.does("run:dead", take("d1"), take("d2", lasting=True), take("d3", lasting=True), take("d4"))
            await mine.does("run:dead", wait("d4", lasting=True))  # it holds: nothing to wait for
            await harness.crash_lease(short)
        await shared.does("run:a", take("a1"))
        await shared.full("run:a", take("a2"))


async def who_waits_for_a_lasting_permit_has_it_when_it_is_granted(harness: StoreHarness) -> None:
    """Told by the same message; it never goes to the next, whatever becomes of its owner, and need not be taken."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None or shared.lease is None:
            return
        await shared.does("run:holds", take("x"), take("y"))
        await shared.does("run:rests", wait("r1", lasting=True), release=True)
        await _dies_holding(harness, shared, "run:dead", "crash", wait("d1", lasting=True))
        await shared.does("run:holds", give_back("x"), give_back("y"))
        assert [await shared.granted(f"run:{name}") for name in ("rests", "dead")] == [["r1"], ["d1"]]
        await shared.does("run:a", wait("a1"))
        await harness.turn(10 * GRANT_SECONDS)
        await shared.does("run:a", wait("a2"))
        await shared.full("run:a", take("a1"))
        assert await shared.granted("run:a") == []
        assert await claim(shared.store, shared.lease) == ["run:dead", "run:rests"]
        await shared.does("run:rests", take("r1"))
        await shared.does("run:rests", release=True)
        await shared.full("run:a", take("a1"))
        head = await shared.does("run:dead", give_back("d1"))
        assert await shared.granted("run:a") == ["a1"]
        assert len(head.messages) == 1
        await shared.does("run:a", take("a1"), give_back("a2"))
        await shared.does("run:rests", give_back("r1"), lease=None)
        head = await shared.does("run:b", wait("b1", lasting=True), take("b1"))
        assert head.messages == ()


async def lasting_permits_outlive_the_store(harness: StoreHarness) -> None:
    """They are kept, also those that are granted after; what was held under a lease is free, the lease having ended."""
    if not harness.reopenable:
        return
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("a1", lasting=True), take("a2"))
        await shared.does("run:b", wait("b1", lasting=True))
        await shared.store.aclose()
    shared = Shared(await harness.open(), None)
    await shared.full("run:c", take("c1"))
    await shared.does("run:c", wait("c1"))
    assert await shared.granted("run:b") == ["b1"]
    await harness.turn(GRANT_SECONDS)
    await shared.does("run:c", wait("c2"))
    assert await shared.granted("run:c") == []
    await shared.does("run:a", give_back("a1"))
    assert await shared.granted("run:c") == ["c1"]


async def who_is_refused_learns_who_holds(harness: StoreHarness) -> None:
    """Of several who took it first, or was granted it; nobody of a limit of 0. Taking again makes nobody younger."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.does("run:z", take("z1"))
        await harness.turn(1)
        await shared.does("run:a", take("a1"))
        await harness.turn(1)
        await shared.does("run:z", take("z1"))
        refusal = await shared.full("run:c", take("c1"))
        assert refusal.held_by == "z1"
        assert "z1" in str(refusal)
        await shared.does("run:b", wait("b1"))
        await shared.does("run:z", give_back("z1"))
        assert (await shared.full("run:c", take("c1"))).held_by == "a1"
        await shared.does("run:a", give_back("a1"))
        await harness.turn(1)
        await shared.does("run:c", take("c1"))
        assert (await shared.full("run:d", take("d1"))).held_by == "b1"
        await shared.limit(0)
        assert (await shared.full("run:d", take("d1"))).held_by is None
        await shared.limit(1, 60_000_000, pool="rate")
        await shared.does("run:a", take("start", "rate"))
        await shared.does("run:a", closed=True, release=True)
        assert (await shared.full("run:d", take("d1", "rate"))).held_by == "start"


async def _dies_holding(
    harness: StoreHarness, shared: Shared, stream: str, how: str, *permits: Permit, **parts: bool
) -> None:
    """A worker that commits permits to a new stream, and whose lease then ends in one of `_ENDS`."""
    async with shared.store.lease("short") as short:
        await shared.does(stream, *permits, lease=short, **parts)
        if how == "crash":
            await harness.crash_lease(short)
        elif how == "stall":
            await harness.stall_lease(short)
