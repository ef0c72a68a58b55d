"""Checks: pools of slots (capability ``permits``). No limit is exceeded, nobody forgotten, the dead hold nothing."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from eventstore.conformance.harness import (
    Shared,
    StoreHarness,
    all_of,
    begin,
    collect,
    data,
    event,
    give_back,
    mail,
    refused,
    shared_pool,
    step,
    take,
    wait,
)
from eventstore.errors import (
    CommitTooLarge,
    InvalidArgument,
    LimitReached,
    MailWaiting,
    UnknownPool,
    VersionConflict,
)
from eventstore.port import (
    COMMIT_PERMITS_MAX,
    NEW,
    POOL_BYTES_MAX,
    Permit,
    StreamHead,
    StreamQuery,
    Transaction,
)

_RUNS: Final = StreamQuery(category="run", limit=1_000)


async def slots_are_taken_and_returned(harness: StoreHarness) -> None:
    """As many as the limit says; taking again what one has, and returning what one has not, changes nothing."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("a1"))
        await shared.does("run:b", take("b1"))
        await shared.does("run:a", take("a1"))
        refusal = await shared.full("run:c", take("c1"))
        assert (refusal.pool, refusal.holder, refusal.retry_at) == ("p", "c1", None)
        await shared.full("run:a", take("a2"))
        await shared.does("run:c", give_back("c1"))
        await shared.full("run:c", take("c1"))
        await shared.does("run:a", give_back("a1"))
        await shared.does("run:a", give_back("a1"))
        await shared.does("run:c", take("c1"))
        await shared.full("run:a", take("a1"))
        await shared.does("run:b", give_back("b1"), take("b2"))  # in order: the slot is free when it is asked for
        await shared.full("run:b", take("b3"), give_back("b2"))
        await shared.does("run:a")  # a commit without permits is none of this


async def several_permits_are_had_together_or_not_at_all(harness: StoreHarness) -> None:
    """Of one pool and of several: what was taken before the one that is not to be had is not held."""
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.limit(1, pool="q")
        await shared.does("run:a", take("a1", "q"))
        refusal = await shared.full("run:b", take("b1"), take("b2"), take("b3", "q"))
        assert (refusal.pool, refusal.holder) == ("q", "b3")
        refusal = await shared.full("run:b", take("b1"), take("b2"), take("b3"))
        assert (refusal.pool, refusal.holder) == ("p", "b3")
        await shared.does("run:c", take("c1"), take("c2"))
        await shared.full("run:a", give_back("a1", "q"), take("a2"))
        await shared.full("run:b", take("b1", "q"))  # a's return was not accepted
        await shared.does("run:a", give_back("a1", "q"))
        await shared.does("run:b", take("b1", "q"))


async def a_refused_commit_changes_nothing(harness: StoreHarness) -> None:
    """Neither its stream nor others; and nobody is granted what it would have freed on its way."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        store = shared.store
        await begin(store, "run:mail")
        async with store.lease("dead") as dead:
            await shared.does("run:dead", take("d1"), lease=dead)
            await shared.does("run:a", wait("a1"))
            await harness.crash_lease(dead)
        before = [await store.head(name) for name in ("run:a", "run:mail", "pool:p", "run:dead")]
        log = await collect(store.read_all())
        sends = (data("run:mail", "never"),)
        await shared.full("run:b", take("b1"), sends=sends, attributes={"x": 1}, closed=True)
        assert [await store.head(name) for name in ("run:a", "run:mail", "pool:p", "run:dead")] == before
        assert await collect(store.read_all()) == log
        await shared.does("run:b", wait("b1"))
        assert await shared.granted("run:a") == ["a1"]
        assert await shared.granted("run:b") == []


async def an_unknown_pool_is_named(harness: StoreHarness) -> None:
    """One without a stream, and one whose stream makes no sense as a limit, to which a permit can be returned still."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        for permit in (take("h", "q"), wait("h", "q"), give_back("h", "q")):
            with refused(UnknownPool) as refusal:
                await shared.does("run:a", permit)
            assert refusal.error.pool == "q"
            assert "pool:q" in str(refusal.error)
        await shared.does("run:a", take("a1"))
        for limit, window in ((None, None), (-1, None), (1.0, None), (True, None), ("1", None), (1, 0), (1, "x")):
            await shared.limit(limit, window)
            for permit in (take("h"), wait("h")):
                with refused(UnknownPool):
                    await shared.does("run:b", permit)
        await shared.does("run:a", give_back("a1"))
        await shared.limit(1)
        await shared.does("run:b", take("b1"))


async def what_the_dead_held_is_free(harness: StoreHarness) -> None:
    """Of a holder that crashed, stalled, or left; and what was taken and nobody owns. A living owner's is not."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        store, other = shared.store, await harness.open()
        for number, how in enumerate(("crash", "stall", "leave", "release")):
            name = f"run:{how}"
            async with other.lease("short") as short:
                await Shared(other, short).does(name, take(how), release=how == "release")
                if how != "release":
                    await shared.full(f"run:heir {number}", take("heir"))
                if how == "crash":
                    await harness.crash_lease(short)
                if how == "stall":
                    await harness.stall_lease(short)
                if how != "leave":
                    await shared.does(f"run:heir {number}", take(f"heir {number}"))
            if how == "leave":
                await shared.does(f"run:heir {number}", take(f"heir {number}"))
            assert (await store.head(name)).closed is False
            await shared.full("run:heir", take("one more"))
            await shared.does(f"run:heir {number}", give_back(f"heir {number}"))


async def a_changed_limit_is_seen_by_all(harness: StoreHarness) -> None:
    """A lower one takes nothing away and grants nothing until there is room; a higher one serves the queue at once."""
    async with shared_pool(harness, limit=3) as shared:
        if shared is None:
            return
        elsewhere = Shared(await harness.open(), shared.lease)
        await shared.does("run:a", take("a1"), take("a2"), take("a3"))
        await elsewhere.limit(1)
        await shared.does("run:a", take("a1"), take("a2"), take("a3"))
        await shared.does("run:b", wait("b1"), wait("b2"), wait("b3"))
        await shared.does("run:a", give_back("a1"), give_back("a2"))
        assert await shared.granted("run:b") == []
        await elsewhere.limit(3)
        assert await shared.granted("run:b") == ["b1", "b2"]
        await elsewhere.limit(0)
        await shared.does("run:a", give_back("a3"))
        await shared.does("run:b", take("b1"), take("b2"), give_back("b1"), give_back("b2"))
        assert await shared.granted("run:b") == ["b1", "b2"]
        await shared.full("run:c", take("c1"))
        await elsewhere.limit(1)
        assert await shared.granted("run:b") == ["b1", "b2", "b3"]


async def a_holder_belongs_to_its_stream(harness: StoreHarness) -> None:
    """Whoever else names it is told whose it is: holding, granted or waiting."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("held"), wait("waits"))
        for holder in ("held", "waits"):
            for permit in (take(holder), wait(holder), give_back(holder)):
                with refused(InvalidArgument) as refusal:
                    await shared.does("run:b", permit)
                assert "run:a" in str(refusal.error)
        await shared.does("run:a", give_back("held"), give_back("waits"))
        await shared.does("run:b", take("held"))


async def a_repeated_commit_takes_nothing_again(harness: StoreHarness) -> None:
    """Its first outcome is returned, whoever has the slot by now."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        last = step("run:a", NEW, event(), permits=(take("a1"),), lease=shared.lease)
        first = await shared.store.commit(last)
        assert await shared.store.commit(last) == first
        returned = step("run:a", 1, event(), permits=(give_back("a1"),), lease=shared.lease)
        first = await shared.store.commit(returned)
        await shared.does("run:b", take("b1"))
        for store in (shared.store, await harness.open()):
            assert await store.commit(returned) == first
        await shared.full("run:a", take("a1"))
        async with shared.store.lease("dead") as dead:
            await shared.does("run:b", give_back("b1"))
            last = step("run:d", NEW, event(), permits=(take("d1"),), lease=dead)
            first = await shared.store.commit(last)
            await harness.crash_lease(dead)
            await shared.does("run:b", take("b1"))
            assert await shared.store.commit(last) == first
        waits = step("run:c", NEW, event(), permits=(wait("c1"),), lease=shared.lease)
        first = await shared.store.commit(waits)
        await shared.does("run:b", give_back("b1"))
        assert await shared.store.commit(waits) == first
        assert await shared.granted("run:c") == ["c1"]


async def everything_else_is_refused_before(harness: StoreHarness) -> None:
    """The version, the lease and the mail come first; the commit's own transaction is not called for a full pool."""
    async with shared_pool(harness, limit=0) as shared:
        if shared is None:
            return
        store = shared.store
        await shared.does("run:a")
        await store.send(data("run:a", "m"))
        with refused(VersionConflict):
            await store.commit(step("run:a", 7, event(), permits=(take("a1"),), lease=shared.lease))
        with refused(MailWaiting):
            await shared.does("run:a", take("a1"), drained=True)
        await shared.full("run:a", take("a1"), consumes=("m",), drained=True)
        assert mail(await store.head("run:a")) == ["m"]
        if "transaction" not in store.capabilities:
            return

        def never(_: Transaction) -> bytes:
            raise AssertionError("called for a commit that is refused")

        await shared.full("run:a", take("a1"), transaction=never)
        await shared.limit(1)

        def fails(_: Transaction) -> bytes:
            raise ZeroDivisionError("by the function")

        with refused(ZeroDivisionError):
            await shared.does("run:a", take("a1"), transaction=fails)
        await shared.does("run:b", take("b1"))


async def of_a_group_as_many_are_accepted_as_there_is_room_for(harness: StoreHarness) -> None:
    """Commits called together, on two handles; the refused harm no other."""
    async with shared_pool(harness, limit=5) as shared:
        if shared is None:
            return
        elsewhere = Shared(await harness.open(), None)
        commits = [
            (shared if number % 2 else elsewhere).store.commit(
                step(f"run:{number}", NEW, event(), permits=(take(f"h{number}"),), lease=shared.lease)
            )
            for number in range(30)
        ]
        results = await asyncio.gather(*commits, return_exceptions=True)
        accepted = [number for number, result in enumerate(results) if isinstance(result, StreamHead)]
        assert len(accepted) == 5, results
        assert all(isinstance(result, StreamHead | LimitReached) for result in results)
        assert len((await shared.store.find(_RUNS)).items) == 5


async def no_limit_is_exceeded_however_commits_interleave(harness: StoreHarness) -> None:
    """Many streams on two handles take, wait, confirm, return and close; what all were told is counted throughout."""
    async with shared_pool(harness, limit=3) as shared:
        if shared is None:
            return
        handles = (shared, Shared(await harness.open(), shared.lease))
        holding: set[str] = set()
        taken = [0]

        async def live(number: int) -> None:
            chance, mine = Random(number), handles[number % 2]  # noqa: S311 - a fixed history
            stream = f"run:{number}"
            for turn in range(6):
                holder = f"{number}.{turn}"
                try:
                    await mine.does(stream, take(holder))
                except LimitReached:
                    await mine.does(stream, wait(holder, key=str(number % 3), priority=number % 2))
                    while holder not in await mine.granted(stream):  # noqa: ASYNC110 - the store is what is asked
                        await asyncio.sleep(0)
                    await mine.does(stream, take(holder))
                holding.add(holder)
                taken[0] += 1
                assert len(holding) <= 3, holding
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                holding.remove(holder)
                await mine.does(stream, give_back(holder), closed=turn == 5)

        await all_of(live(number) for number in range(10))
        assert taken == [60]
        await shared.does("run:last", take("l1"), take("l2"), take("l3"))


async def permits_outlive_the_store(harness: StoreHarness) -> None:
    """Who holds, who waits and in which order are there again, and the dead are known to be dead."""
    if not harness.reopenable:
        return
    async with shared_pool(harness, limit=2) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("a1"))
        await shared.does("run:b", wait("b1"), wait("b2"), wait("b3", priority=1), lease=None)
        assert await shared.granted("run:b") == ["b1"]
        await shared.store.aclose()
    shared = Shared(await harness.open(), None)
    await shared.full("run:c", take("c1"), take("c2"))
    await shared.does("run:c", wait("c1"))  # a's owner has ended with its store
    assert await shared.granted("run:b") == ["b1", "b3"]
    await shared.does("run:b", give_back("b1"), give_back("b3"))
    assert await shared.granted("run:b") == ["b1", "b3", "b2"]
    assert await shared.granted("run:c") == ["c1"]


async def what_is_no_permit_is_refused(harness: StoreHarness) -> None:
    """Names, priorities and numbers of them are looked at before anything else."""
    async with shared_pool(harness, limit=1) as shared:
        if shared is None:
            return
        for permit in (
            take(""),
            take("h", ""),
            take("h\x00"),
            wait("h", priority=1 << 63),
            wait("h", priority=True),
            wait("h", key="k\x00"),
            take("h", lasting=1),  # type: ignore[arg-type]
            Permit(pool="p", holder="h", action="hold"),  # type: ignore[arg-type] # as one without a type checker
        ):
            with refused(InvalidArgument):
                await shared.does("run:a", permit)
        for permits in ((take("h", "p" * (POOL_BYTES_MAX + 1)),), (give_back("h"),) * (COMMIT_PERMITS_MAX + 1)):
            with refused(CommitTooLarge):
                await shared.does("run:a", *permits)
        long = "é" * (POOL_BYTES_MAX // 2)
        await shared.limit(1, pool=long)
        head = await shared.does("run:a", wait("☃" * 170, long, priority=-(1 << 62), key="☃" * 170))
        assert len(head.messages) == 1
        await shared.does("run:b", *(wait(f"h{number}") for number in range(COMMIT_PERMITS_MAX)))
