"""Checks: who may write a stream. Ownership is checked with the write, never time."""

from __future__ import annotations

from eventstore.conformance.harness import (
    StoreHarness,
    begin,
    claim,
    control,
    data,
    event,
    history,
    refused,
    step,
)
from eventstore.errors import InvalidArgument, LeaseLost, UnknownMessage, VersionConflict
from eventstore.port import NEW, Opening


async def a_new_stream_is_owned_by_its_lease(harness: StoreHarness) -> None:
    """A stream created under a lease is the lease's, and its commits pass."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        head = await store.commit(step("run:a", NEW, event(), lease=lease))
        assert head.owner == lease.token
        head = await store.commit(step("run:a", 1, event(), lease=lease))
        assert (head.version, head.owner) == (2, lease.token)
    assert (await store.head("run:a")).owner == lease.token


async def a_lease_cannot_write_what_it_does_not_own(harness: StoreHarness) -> None:
    """A lease is refused on another's stream and on nobody's; a claim makes the difference."""
    store = await harness.open()
    await begin(store, "run:free")
    async with store.lease("one") as one, store.lease("two") as two:
        await begin(store, "run:a", lease=one)
        for stream in ("run:a", "run:free"):
            with refused(LeaseLost) as refusal:
                await store.commit(step(stream, 1, event("stolen"), lease=two))
            assert (refusal.error.stream, refusal.error.token) == (stream, two.token)
        await store.send(data("run:free", "m"))
        assert await claim(store, two) == ["run:free"]
        assert (await store.commit(step("run:free", 1, event(), lease=two))).owner == two.token
    assert await history(store, "run:a") == ["begun"]


async def a_commit_without_a_lease_is_refused_while_a_live_lease_owns(harness: StoreHarness) -> None:
    """Nobody writes past a live owner, from no handle."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
        for handle in (store, other):
            with refused(LeaseLost) as refusal:
                await handle.commit(step("run:a", 1, event()))
            assert (refusal.error.stream, refusal.error.token) == ("run:a", None)
    assert (await store.head("run:a")).version == 1


async def an_orphan_can_be_written_without_a_lease(harness: StoreHarness) -> None:
    """A dead owner does not keep others out."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
        await harness.crash_lease(lease)
        assert (await store.commit(step("run:a", 1, event()))).version == 2
    assert (await store.commit(step("run:a", 2, event()))).version == 3


async def an_ended_lease_cannot_write(harness: StoreHarness) -> None:
    """Once it was left, a lease writes nothing: neither what it owned nor what is new."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
    for stream, version in (("run:a", 1), ("run:b", NEW)):
        with refused(LeaseLost) as refusal:
            await store.commit(step(stream, version, event(), lease=lease))
        assert refusal.error.token == lease.token
    assert (await store.head("run:a")).version == 1


async def a_stale_token_cannot_write(harness: StoreHarness) -> None:
    """The holder that was paused, judged dead and replaced cannot write, with the right version in hand."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("paused") as paused, other.lease("heir") as heir:
        await begin(store, "run:a", lease=paused)
        await harness.stall_lease(paused)
        assert not paused.fresh()
        assert await claim(other, heir) == ["run:a"]
        with refused(LeaseLost) as refusal:
            await store.commit(step("run:a", 1, event("resurrected"), lease=paused))
        assert (refusal.error.stream, refusal.error.token) == ("run:a", paused.token)
        await other.commit(step("run:a", 1, event("inherited"), lease=heir))
        with refused(LeaseLost):
            await store.commit(step("run:a", 2, event("resurrected"), lease=paused))
    assert await history(store, "run:a") == ["begun", "inherited"]


async def a_stalled_holder_writes_until_somebody_takes_over(harness: StoreHarness) -> None:
    """Commits check ownership, never time: a late holder that nobody replaced has lost nothing."""
    store = await harness.open()
    async with store.lease("paused") as paused:
        await begin(store, "run:a", lease=paused)
        await harness.stall_lease(paused)
        assert (await store.commit(step("run:a", 1, event(), lease=paused))).version == 2


async def a_released_stream_is_nobodys(harness: StoreHarness) -> None:
    """Release gives the stream up with the commit: its lease may write no more, a commit without a lease may."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
        assert (await store.commit(step("run:a", 1, event(), lease=lease, release=True))).owner is None
        with refused(LeaseLost):
            await store.commit(step("run:a", 2, event(), lease=lease))
        assert (await store.commit(step("run:a", 2, event()))).version == 3
        assert (await store.commit(step("run:b", NEW, event(), lease=lease, release=True))).owner is None


async def mail_needs_no_lease(harness: StoreHarness) -> None:
    """Messages are not fenced: anybody sends to an owned stream, and from a commit of another."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
        await other.send(data("run:a", "sent"))
        await other.commit(step("run:b", NEW, event(), sends=(control("run:a", "committed"),)))
        head = await store.commit(step("run:a", 1, event(), consumes=("sent", "committed"), lease=lease))
        assert head.messages == ()


async def refusals_come_in_order(harness: StoreHarness) -> None:
    """Arguments, then the lease, then the version, then the messages; `NEW` of what exists stands before the lease."""
    store = await harness.open()
    async with store.lease("owner") as owner, store.lease("other") as other:
        await begin(store, "run:a", lease=owner)
        with refused(InvalidArgument):
            await store.commit(step("run:a", 7, event(), attributes={"": 1}, consumes=("unknown",), lease=other))
        with refused(LeaseLost):
            await store.commit(step("run:a", 7, event(), consumes=("unknown",), lease=other))
        with refused(VersionConflict):
            await store.commit(step("run:a", 7, event(), consumes=("unknown",), lease=owner))
        with refused(UnknownMessage):
            await store.commit(step("run:a", 1, event(), consumes=("unknown",), lease=owner))


async def new_is_refused_for_the_version_whoever_owns_the_stream(harness: StoreHarness) -> None:
    """Mine, another's, nobody's, a dead one's, with a live lease, an ended one or none: the name is taken."""
    store, other = await harness.open(), await harness.open()
    async with store.lease("ended") as ended:
        await begin(store, "run:ended's", lease=ended)
    async with store.lease("mine") as mine, other.lease("another") as another, store.lease("dead") as dead:
        for owner, lease in (("mine", mine), ("dead", dead), ("nobody", None)):
            await begin(store, f"run:{owner}'s", lease=lease)
        await begin(other, "run:another's", lease=another)
        await other.send(data("run:opened", "start", opens=Opening()))
        await harness.crash_lease(dead)
        for lease in (mine, ended, None):
            for owner in ("mine", "another", "dead", "ended", "nobody"):
                with refused(VersionConflict) as refusal:
                    await store.commit(step(f"run:{owner}'s", NEW, event(), consumes=("unknown",), lease=lease))
                assert (refusal.error.expected, refusal.error.actual) == (NEW, 1)
            with refused(VersionConflict) as refusal:
                await store.commit(step("run:opened", NEW, event(), lease=lease))
            assert (refusal.error.expected, refusal.error.actual) == (NEW, 0)
        with refused(LeaseLost):  # nothing is there: what is wrong is the lease
            await store.commit(step("run:none", NEW, event(), lease=ended))
        for lease, stream in ((mine, "run:another's"), (mine, "run:nobody's"), (None, "run:another's")):
            with refused(LeaseLost):
                await store.commit(step(stream, 7, event(), lease=lease))


async def a_repeated_commit_is_known_after_its_lease_ended(harness: StoreHarness) -> None:
    """Whoever did not see the outcome learns it, lease or no lease."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        commit = step("run:a", NEW, event("once"), lease=lease)
        first = await store.commit(commit)
    again = await store.commit(commit)
    assert (again.version, again.digest) == (first.version, first.digest)
    assert await history(store, "run:a") == ["once"]


async def a_repeated_commit_is_known_after_the_stream_was_taken_over(harness: StoreHarness) -> None:
    """The same when the stream has a new owner that has not written yet; behind its first commit it is a refusal."""
    store = await harness.open()
    async with store.lease("worker") as lease, store.lease("heir") as heir:
        await begin(store, "run:a", lease=lease)
        commit = step("run:a", 1, event("last words"), lease=lease)
        first = await store.commit(commit)
        await harness.crash_lease(lease)
        assert await claim(store, heir) == ["run:a"]
        again = await store.commit(commit)
        assert (again.version, again.digest) == (first.version, first.digest)
        await store.commit(step("run:a", 2, event("inherited"), lease=heir))
        with refused(LeaseLost):
            await store.commit(commit)
    assert await history(store, "run:a") == ["begun", "last words", "inherited"]
