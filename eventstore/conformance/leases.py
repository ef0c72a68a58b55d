"""Checks: leases. One per worker, tokens that rise for ever, and an end that is seen at once."""

from __future__ import annotations

from eventstore.conformance.harness import ANY, StoreHarness, begin, claim, event, refused, step
from eventstore.errors import InvalidArgument, LeaseLost
from eventstore.port import NEW, Lease


async def tokens_rise(harness: StoreHarness) -> None:
    """A later lease has a higher token, whoever asks, whatever ended, and whether the store was reopened."""
    store, other = await harness.open(), await harness.open()
    tokens = []
    async with store.lease("one") as one:
        async with other.lease("two") as two:
            tokens += [one.token, two.token]
        async with store.lease("one") as again:
            tokens.append(again.token)
    if harness.reopenable:
        await store.aclose()
        await other.aclose()
        store = await harness.open()
    async with store.lease("one") as later:
        tokens.append(later.token)
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0


async def a_lease_is_fresh_until_it_ends(harness: StoreHarness) -> None:
    """A lease says whose it is, and lives while its block runs, however the time of day is turned."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        assert isinstance(lease, Lease)
        assert lease.worker == "worker"
        assert lease.fresh()
        assert lease.lag >= 0
        await harness.turn(1)
        assert lease.fresh()
    assert not lease.fresh()


async def a_lease_ends_when_its_block_raises(harness: StoreHarness) -> None:
    """An error in the block ends the lease and goes on."""
    store = await harness.open()
    ended = []
    with refused(KeyError):
        async with store.lease("worker") as lease:
            ended.append(lease)
            await begin(store, "run:a", lease=lease)
            _fail()
    assert not ended[0].fresh()
    async with store.lease("heir") as heir:
        assert await claim(store, heir) == ["run:a"]


async def leaving_a_lease_frees_its_streams_at_once(harness: StoreHarness) -> None:
    """No time to live has to pass after a goodbye."""
    store, other = await harness.open(), await harness.open()
    async with other.lease("heir") as heir:
        async with store.lease("worker") as lease:
            await begin(store, "run:a", lease=lease)
            assert await claim(other, heir) == []
        assert await claim(other, heir) == ["run:a"]
        assert (await other.head("run:a")).owner == heir.token


async def a_crashed_holder_frees_its_streams_at_once(harness: StoreHarness) -> None:
    """Nor after a death that said nothing; the dead write no more, and their block can still be left."""
    store, other = await harness.open(), await harness.open()
    async with other.lease("heir") as heir:
        async with store.lease("worker") as lease:
            await begin(store, "run:a", "run:b", lease=lease)
            await harness.crash_lease(lease)
            assert await claim(other, heir) == ["run:a", "run:b"]
            with refused(LeaseLost):
                await store.commit(step("run:a", 1, event(), lease=lease))
        assert (await other.head("run:b")).owner == heir.token


async def a_paused_holder_is_not_fresh_and_others_are(harness: StoreHarness) -> None:
    """A pause longer than the time to live: the lease knows it, others may take over, and they live."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("paused") as paused, other.lease("heir") as heir:
        await begin(store, "run:a", lease=paused)
        assert await claim(other, heir) == []
        await harness.stall_lease(paused)
        assert not paused.fresh()
        assert heir.fresh()
        with refused(LeaseLost):
            await store.claim(paused, query=ANY, limit=10)
        assert await claim(other, heir) == ["run:a"]
        with refused(LeaseLost):
            await store.commit(step("run:a", 1, event(), lease=paused))


async def an_ended_lease_claims_nothing(harness: StoreHarness) -> None:
    """A claim of an ended lease is refused and takes nothing."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
    with refused(LeaseLost) as refusal:
        await store.claim(lease, query=ANY, limit=10)
    assert refusal.error.token == lease.token
    assert (await store.head("run:a")).claims == 0


async def owners_may_have_many_streams_and_end_once(harness: StoreHarness) -> None:
    """One end frees all that a lease owned, and only that."""
    store = await harness.open()
    owned = [f"run:{number:03}" for number in range(120)]
    async with store.lease("other") as other, store.lease("heir") as heir:
        await begin(store, "run:other", lease=other)
        async with store.lease("worker") as lease:
            await begin(store, *owned, lease=lease)
            await store.commit(step("run:new", NEW, event(), lease=lease, release=True))
        assert await claim(store, heir) == owned


async def workers_have_names(harness: StoreHarness) -> None:
    """An empty or endless name is refused; the same name twice is two leases."""
    store = await harness.open()
    for worker in ("", "x" * 513):
        with refused(InvalidArgument):
            async with store.lease(worker):
                raise AssertionError("a lease without a proper name")
    async with store.lease("same") as one, store.lease("same") as two:
        assert one.token != two.token


def _fail() -> None:
    raise KeyError("of the block")
