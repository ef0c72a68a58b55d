"""Checks: which streams need attention, and who gets them. From what is stored, never from an edge."""

from __future__ import annotations

from itertools import product
from typing import Final

from msgspec import UNSET, Struct

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    all_of,
    begin,
    claim,
    control,
    data,
    event,
    mail,
    refused,
    step,
)
from eventstore.errors import InvalidArgument, VersionConflict
from eventstore.port import CLAIM_LIMIT_MAX, NEW, EventStore, Opening, StreamHead, StreamQuery

_OWNERS: Final = ("nobody", "mine", "another", "dead")
_ALARMS: Final = ("none", "later", "due")


class _Row(Struct, frozen=True):
    closed: bool
    held: bool
    control: bool
    data: bool
    alarm: str
    owner: str

    @property
    def stream(self) -> str:
        marks = (name for name in ("closed", "held", "control", "data") if getattr(self, name))
        return f"run:{'+'.join(marks)} alarm={self.alarm} owner={self.owner}"

    @property
    def claimable(self) -> bool:
        """The rule of the port, as a formula."""
        if self.owner == "another":
            return False
        if self.closed or self.held:
            return self.control
        return self.control or self.data or self.alarm == "due" or self.owner == "dead"


async def every_row_of_the_rule(harness: StoreHarness) -> None:
    """Closed, held, control, data, alarm, owner in all combinations: exactly those that the rule names are claimed."""
    store = await harness.open()
    marks = product((False, True), (False, True), (False, True), (False, True), _ALARMS, _OWNERS)
    rows = [_Row(*row) for row in marks]
    async with store.lease("mine") as mine, store.lease("another") as another, store.lease("dead") as dead:
        leases = {"nobody": None, "mine": mine, "another": another, "dead": dead}
        alarms = {"none": UNSET, "later": harness.now() + 10**9, "due": harness.now()}
        for row in rows:
            assert row.owner in leases
        await all_of(store.commit(step(row.stream, NEW, event(), lease=leases[row.owner])) for row in rows)
        await all_of(store.send(control(row.stream, "control")) for row in rows if row.control)
        await all_of(store.send(data(row.stream, "data")) for row in rows if row.data)
        await all_of(
            store.commit(
                step(
                    row.stream,
                    1,
                    event(),
                    closed=row.closed,
                    held=row.held,
                    alarm=alarms[row.alarm],
                    lease=leases[row.owner],
                )
            )
            for row in rows
        )
        await harness.crash_lease(dead)
        claimed = await claim(store, mine)
        assert claimed == sorted(row.stream for row in rows if row.claimable)
        for row in rows:
            head = await store.head(row.stream)
            assert head.claims == (1 if row.claimable else 0)
            if row.claimable:
                assert head.owner == mine.token


async def attention_does_not_depend_on_when_it_arose(harness: StoreHarness) -> None:
    """What was in need before the lease was made, or the store opened, is claimed; and again, while it is in need."""
    store = await harness.open()
    await begin(store, "run:mail", "run:alarm")
    await store.send(data("run:mail", "m"))
    await store.commit(step("run:alarm", 1, alarm=harness.now()))
    async with store.lease("gone") as gone:
        await begin(store, "run:orphan", lease=gone)
    if harness.reopenable:
        await store.aclose()
        store = await harness.open()
    async with store.lease("late") as lease:
        assert await claim(store, lease) == ["run:alarm", "run:mail", "run:orphan"]
        assert await claim(store, lease) == ["run:alarm", "run:mail"]
        await store.commit(step("run:mail", 1, consumes=("m",), lease=lease))
        assert await claim(store, lease) == ["run:alarm"]
        await store.commit(step("run:alarm", 1, alarm=None, lease=lease))
        assert await claim(store, lease) == []


async def an_alarm_needs_attention_when_due_and_as_long_as_it_is(harness: StoreHarness) -> None:
    """Not before its time, from its time on, not after it was moved or cleared, and held back by held and closed."""
    store = await harness.open()
    due = harness.now() + 60_000_000
    await begin(store, "run:a", "run:held", "run:closed", "run:moved")
    for stream, mark in (("run:held", {"held": True}), ("run:closed", {"closed": True}), ("run:a", {})):
        await store.commit(step(stream, 1, alarm=due, **mark))
    await store.commit(step("run:moved", 1, alarm=due))
    await store.commit(step("run:moved", 1, alarm=due + 60_000_000))
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []
        await harness.turn(61)
        assert await claim(store, lease) == ["run:a"]
        assert await claim(store, lease) == ["run:a"]
        await store.commit(step("run:held", 1, held=False))
        await store.commit(step("run:closed", 1, closed=False))
        await store.commit(step("run:a", 1, alarm=None, lease=lease))
        assert await claim(store, lease) == ["run:closed", "run:held"]
        await harness.turn(60)
        assert await claim(store, lease, busy=("run:closed", "run:held")) == ["run:moved"]


async def an_opened_stream_needs_attention(harness: StoreHarness) -> None:
    """A stream that a message has opened is found by a claim, at version 0."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await store.commit(
            step("run:parent", NEW, event(), lease=lease, sends=(data("run:child", "start", opens=Opening()),))
        )
        heads = await store.claim(lease, query=ANY, limit=10)
        assert [(head.stream, head.version, mail(head)) for head in heads] == [("run:child", 0, ["start"])]


async def a_claim_says_what_the_stream_is(harness: StoreHarness) -> None:
    """The heads returned are those of the streams after the claim, mail included."""
    store, other = await harness.open(), await harness.open()
    await store.commit(step("run:a", NEW, event(), attributes={"state": "new"}, alarm=5))
    await store.send(data("run:a", "m"))
    async with store.lease("worker") as lease:
        (head,) = await store.claim(lease, query=ANY, limit=10)
        assert (head.owner, head.claims, mail(head), head.attributes) == (lease.token, 1, ["m"], {"state": "new"})
        assert head == await store.head("run:a")
        assert head == await other.head("run:a")


async def a_claim_counts_and_only_progress_resets(harness: StoreHarness) -> None:
    """Each claim raises the count durably; commits, releases and other owners leave it; progress sets it to 0."""
    store, other = await harness.open(), await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    async with store.lease("one") as one:
        assert await claim(store, one) == ["run:a"]
        assert (await other.head("run:a")).claims == 1
        assert (await store.commit(step("run:a", 1, event(), alarm=5, lease=one))).claims == 1
        assert await claim(store, one) == ["run:a"]
        assert (await store.commit(step("run:a", 2, event(), lease=one, release=True))).claims == 2
        assert await claim(store, one) == ["run:a"]
        await harness.crash_lease(one)
    async with other.lease("two") as two:
        assert await claim(other, two) == ["run:a"]
        assert (await store.head("run:a")).claims == 4
        assert (await other.commit(step("run:a", 3, event(), lease=two, progress=True))).claims == 0
        assert await claim(other, two) == ["run:a"]
        assert (await store.head("run:a")).claims == 1


async def a_refused_commit_resets_no_claims(harness: StoreHarness) -> None:
    """Progress that was not recorded is none."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == ["run:a"]
        with refused(VersionConflict):
            await store.commit(step("run:a", 7, event(), lease=lease, progress=True))
        assert (await store.head("run:a")).claims == 1


async def a_claim_leaves_out_what_is_busy(harness: StoreHarness) -> None:
    """A stream in flight is not claimed again, and not counted."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    async with store.lease("worker") as lease:
        for stream in ("run:a", "run:b"):
            await store.send(data(stream, "m"))
        assert await claim(store, lease, busy=("run:a",)) == ["run:b"]
        assert (await store.head("run:a")).claims == 0
        assert await claim(store, lease, busy=("run:a", "run:b", "run:unknown")) == []


async def a_claim_keeps_to_its_query(harness: StoreHarness) -> None:
    """A worker gets only what it asked for: by category, name, attribute, held; order and page do not matter."""
    store = await harness.open()
    for stream, name in (("run:a", "etl"), ("run:b", "train"), ("run:c", None), ("asset:a", "etl")):
        await store.commit(step(stream, NEW, event(), attributes={"workflow": name} if name else {}))
        await store.send(control(stream, "m"))
    await store.commit(step("run:b", 1, held=True))
    for query, expected in (
        (StreamQuery(category="asset"), ["asset:a"]),
        (StreamQuery(category="nothing"), []),
        (StreamQuery(streams=("run:a", "run:unknown")), ["run:a"]),
        (StreamQuery(streams=()), []),
        (StreamQuery(category="run", attributes={"workflow": "etl"}), ["run:a"]),
        (StreamQuery(attributes={"workflow": ("etl", "train")}), ["asset:a", "run:a", "run:b"]),
        (StreamQuery(attributes={"workflow": None}), ["run:c"]),
        (StreamQuery(held=True), ["run:b"]),
        (StreamQuery(limit=1, newest_first=False), ["asset:a", "run:a", "run:b", "run:c"]),
    ):
        async with store.lease("worker") as lease:
            assert await claim(store, lease, query=query) == expected


async def a_claim_for_control_mail_takes_nothing_else(harness: StoreHarness) -> None:
    """Who asks for control mail gets the streams that have some, whatever else they need; and the other way round."""
    store = await harness.open()
    await begin(store, "run:idle", "run:mailed", "run:due", "run:told", "run:held", "run:both")
    for stream in ("run:due", "run:both"):
        await store.commit(step(stream, 1, alarm=harness.now()))
    await store.commit(step("run:held", 1, held=True))
    for stream in ("run:mailed", "run:both"):
        await store.send(data(stream, "m"))
    for stream in ("run:told", "run:held", "run:both", "run:orphan"):
        if stream == "run:orphan":
            async with store.lease("gone") as gone:
                for name in ("run:orphan", "run:alone"):
                    await store.commit(step(name, NEW, event(), lease=gone))
        await store.send(control(stream, "c"))
    told, others = ["run:both", "run:held", "run:orphan", "run:told"], ["run:alone", "run:due", "run:mailed"]
    names = ("run:both", "run:due", "run:orphan", "run:alone")
    for query, expected in (
        (StreamQuery(control=True), told),
        (StreamQuery(control=True, held=False), ["run:both", "run:orphan", "run:told"]),
        (StreamQuery(control=True, streams=names), ["run:both", "run:orphan"]),
        (StreamQuery(control=False, streams=names), ["run:alone", "run:due"]),
        (StreamQuery(control=False), others),
        (StreamQuery(), sorted(told + others)),
    ):
        async with store.lease("worker") as lease:
            assert await claim(store, lease, query=query) == expected, query


async def a_claim_takes_no_more_than_its_limit(harness: StoreHarness) -> None:
    """At most `limit`; the rest stays unowned; a limit out of range is refused."""
    store = await harness.open()
    streams = [f"run:{number:02}" for number in range(25)]
    await begin(store, *streams)
    await all_of(store.send(data(stream, "m")) for stream in streams)
    async with store.lease("one") as one, store.lease("two") as two:
        first = await claim(store, one, limit=10)
        assert len(first) == 10
        assert sum(head.claims for head in await _heads(store, streams)) == 10
        second = await claim(store, two, limit=10)
        third = await claim(store, one, limit=10, busy=first)
        assert sorted(first + second + third) == streams
        for limit in (0, -1, CLAIM_LIMIT_MAX + 1):
            with refused(InvalidArgument):
                await store.claim(one, query=ANY, limit=limit)


async def of_two_claimers_one_gets_it(harness: StoreHarness) -> None:
    """Concurrent claims from two handles share the streams out, none twice."""
    store, other = await harness.open(), await harness.open()
    streams = [f"run:{number:02}" for number in range(40)]
    await begin(store, *streams)
    await all_of(store.send(data(stream, "m")) for stream in streams)
    async with store.lease("one") as one, other.lease("two") as two:
        claims = [claim(store, one, limit=7), claim(other, two, limit=7)]
        claims += [claim(store, one, limit=40), claim(other, two, limit=40)]
        first, second, third, fourth = await all_of(claims)
        assert not set(first + third) & set(second + fourth)
        assert sorted(set(first + second + third + fourth)) == streams
        tokens = {head.stream: head.owner for head in await _heads(store, streams)}
        assert {tokens[stream] for stream in first + third} <= {one.token}
        assert {tokens[stream] for stream in second + fourth} <= {two.token}


async def release_gives_it_to_the_next(harness: StoreHarness) -> None:
    """A released stream in need is anybody's at once; one without need is nobody's."""
    store = await harness.open()
    async with store.lease("one") as one, store.lease("two") as two:
        await begin(store, "run:a", "run:idle", lease=one)
        await store.send(data("run:a", "m"))
        assert await claim(store, two) == []
        for stream in ("run:a", "run:idle"):
            await store.commit(step(stream, 1, event(), lease=one, release=True))
        assert await claim(store, two) == ["run:a"]
        assert await claim(store, one) == []


async def who_waits_longest_comes_first(harness: StoreHarness) -> None:
    """Roughly: among streams with mail of very different age, the oldest is not the last to be claimed."""
    store = await harness.open()
    await begin(store, "run:a", "run:b", "run:c")
    for stream in ("run:b", "run:c", "run:a"):
        await harness.turn(1)
        await store.send(data(stream, "m"))
    async with store.lease("worker") as lease:
        first = await claim(store, lease, limit=2)
        assert "run:b" in first


async def _heads(store: EventStore, streams: list[str]) -> list[StreamHead]:
    return [await store.head(stream) for stream in streams]
