"""SQLite does what memory does: random histories on both, with the same clock and the same entropy.

The memory store is the specification. After every step both must show the same streams, and every step must have the
same outcome: the same head, or the same refusal. Two handles write the SQLite file, as two processes would.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, Struct
from msgspec.structs import asdict, astuple, replace

import eventstore.mailbox
import eventstore.sqlite.mailboxes
from eventstore import (
    NEW,
    Commit,
    EventStore,
    Lease,
    LimitReached,
    MailWaiting,
    Message,
    NewEvent,
    Opening,
    Permit,
    StreamQuery,
    Transaction,
    UnknownMessage,
    UnknownPool,
    VersionConflict,
)
from eventstore.conformance import TurnedClock
from eventstore.errors import EventStoreError
from eventstore.memory import MemoryLease, MemoryStore
from eventstore.port import RecordedEvent, StreamHead
from eventstore.sqlite import SqliteStore, WritesOn
from tests.eventstore import canaries, permit_canaries
from tests.eventstore.sqlite.harness import SqliteHarness
from tests.runtime.slices import some

STREAMS = ("run:a", "run:b", "asset:a")
MESSAGES = tuple(f"m{number}" for number in range(6))
VALUES = (None, "x", "1", "", 1, 2, 1.0, 0.5, True, False)
LEASES_MAX = 4
POOLS = ("slots", "rate", "unknown")
WINDOW = 31_000_000  # longer than a grant waits, for a rate's grants to lapse too

streams = st.sampled_from(STREAMS)
attributes = st.dictionaries(st.sampled_from(("p", "q")), st.sampled_from(VALUES), max_size=2)
headers = st.sampled_from((b"{}", b'{"n": 1}', '{"näh":"☃"}'.encode()))
payloads = st.sampled_from((None, b"", b"[1]", b"\x00\xff"))
new_events = st.lists(st.builds(NewEvent, headers, payloads), max_size=3).map(tuple)
messages = st.builds(
    Message,
    id=st.sampled_from(MESSAGES),
    stream=streams,
    header=headers,
    payload=payloads,
    sender=st.sampled_from((None, "run:a")),
    control=st.booleans(),
    opens=st.one_of(st.none(), st.builds(Opening, attributes=attributes)),
).map(lambda message: replace(message, open_only=message.id == MESSAGES[0]))  # no choice more to search through
permits = st.builds(
    Permit,
    pool=st.sampled_from((*POOLS[:2] * 12, POOLS[2])),
    holder=st.sampled_from(("h0", "h1")),
    action=st.sampled_from(("take", "take", "take", "wait", "wait", "wait", "return")),
    priority=st.sampled_from((0, 0, 1)),
    key=st.sampled_from(("", "k")),
    lasting=st.sampled_from((False, False, True)),
)
wanted = st.one_of(st.sampled_from(VALUES), st.lists(st.sampled_from(VALUES), max_size=3).map(tuple))
queries = st.builds(
    StreamQuery,
    category=st.sampled_from((None, None, "run", "asset")),
    streams=st.one_of(st.none(), st.lists(streams, max_size=3).map(tuple)),
    attributes=st.dictionaries(st.sampled_from(("p", "q")), wanted, max_size=2),
    closed=st.sampled_from((None, None, True, False)),
    held=st.sampled_from((None, None, True, False)),
    control=st.sampled_from((None, None, True, False)),
    newest_first=st.booleans(),
    limit=st.sampled_from((1, 2, 100)),
)


def entropy(size: int) -> bytes:
    return b"\x5a" * size


class Pair(Struct, frozen=True):
    """One lease of the test: what each store gave out for it, and through which handle."""

    memory: Lease
    sqlite: Lease
    leave: tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]
    handle: int


class Step(Struct, frozen=True):
    """A commit as drawn, the lease still being a pair."""

    commit: Commit
    pair: Pair | None
    own: bool = False  # SQL of its own on SQLite; memory, which has none, is given what it returns

    def on(self, store: str) -> Commit:
        commit = replace(self.commit, lease=None if self.pair is None else getattr(self.pair, store))
        if not self.own:
            return commit
        if store == "sqlite":
            return replace(commit, transaction=self.note)
        return replace(commit, events=(replace(commit.events[0], payload=self.noted), *commit.events[1:]))

    @property
    def noted(self) -> bytes:
        return f"noted {self.commit.id}".encode()

    def note(self, transaction: Transaction) -> bytes:
        transaction.execute("CREATE TABLE IF NOT EXISTS notes (note BLOB)")
        transaction.execute("INSERT INTO notes VALUES (?)", (self.noted,))
        return self.noted


class SameEntropy(SqliteHarness):
    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        super().__init__(directory, "thread")
        self._clock = clock

    async def open(self) -> SqliteStore:
        """The first writes on its thread, the second on the loop, and so on."""
        on: WritesOn = get_args(WritesOn)[len(self._open) % 2]
        store = await SqliteStore.open(
            self._path, clock=self._clock, entropy=entropy, synchronous="NORMAL", writes_on=on
        )
        self._open.append(store)
        return store


class SqliteAgainstMemory(RuleBasedStateMachine):
    specification: type[MemoryStore] = MemoryStore

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = TurnedClock()
        self.memory = self.specification(clock=self.clock, entropy=entropy)
        self.harness = SameEntropy(Path(self.directory.name), self.clock)
        self.sqlite = [self.run(self.harness.open()) for _ in range(2)]
        self.pairs: list[Pair] = []
        self.dead: list[Pair] = []  # crashed: their holders can do nothing any more
        self.steps: list[Step] = []
        self.gone: list[bytes] = []  # notes of own SQL whose payloads were taken away
        self.heads: dict[str, StreamHead] = {}
        self.commit_ids = 0
        for stream in STREAMS[:2]:
            begun = Commit(id="begun", stream=stream, expected_version=NEW, events=(NewEvent(b"{}", b"1"),))
            self.both(lambda store, _, begun=begun: store.commit(begun), 0)
        self.begin()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            for pair in self.pairs + self.dead:
                for leave in pair.leave:
                    self.run(leave())
            self.run(self.harness.aclose())
            self.run(self.memory.aclose())
            self.run(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
            self.directory.cleanup()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(30):
                return await awaitable

        return self.loop.run_until_complete(bounded())

    def both(
        self, call: Callable[[EventStore, str], Awaitable[Any]], handle: int, shown: Callable[[Any], Any] = lambda x: x
    ) -> Any:
        """Do it on both; the outcomes, or the refusals, must be the same."""
        expected = self.run(outcome_of(call(self.memory, "memory")))
        actual = self.run(outcome_of(call(self.sqlite[handle], "sqlite")))
        assert shown(actual) == shown(expected)
        return expected

    # What changes something.

    def begin(self) -> None:
        """What there is beside these streams."""

    def draw_step(self, data: st.DataObject) -> Step:
        stream = data.draw(streams)
        head = self.heads.get(stream)
        actual = NEW if head is None else head.version
        owners = [pair for pair in self.pairs if head is not None and pair.memory.token == head.owner]
        fitting = owners or ([None, *self.pairs] if head is None else [None])
        waiting = () if head is None else tuple(message.id for message in head.messages)
        likely = data.draw(st.integers(0, 9))
        consumes = data.draw(st.lists(st.sampled_from(waiting), unique=True, max_size=3)) if waiting else []
        self.commit_ids += 1
        step = Step(
            Commit(
                id=f"c{self.commit_ids}",
                stream=stream,
                expected_version=data.draw(st.sampled_from((NEW, 0, 1, actual + 1))) if likely == 0 else actual,
                events=data.draw(new_events),
                consumes=(*consumes, "never sent") if likely == 1 else tuple(consumes),
                sends=data.draw(st.lists(messages, max_size=2).map(tuple)),
                alarm=data.draw(st.sampled_from((UNSET, UNSET, None, 0, 1, 60))),
                held=data.draw(st.sampled_from((UNSET, UNSET, True, False))),
                closed=data.draw(st.sampled_from((UNSET, UNSET, UNSET, True, False))),
                drained=data.draw(st.sampled_from((False, False, True))),
                attributes=data.draw(st.one_of(st.just(UNSET), attributes)),
                release=data.draw(st.sampled_from((False, False, True))),
                progress=data.draw(st.booleans()),
                permits=self.draw_permits(data, stream),
            ),
            data.draw(st.sampled_from([None, *self.pairs] if likely == 2 else fitting)),
        )
        events = step.commit.events
        if events and events[0].payload is None and likely % 2:
            step = replace(step, own=True)
        if isinstance(step.commit.alarm, int):  # drawn as seconds from now
            step = replace(step, commit=replace(step.commit, alarm=self.clock.now() + step.commit.alarm * 1_000_000))
        self.steps.append(step)
        return step

    def draw_permits(self, data: st.DataObject, stream: str) -> tuple[Permit, ...]:
        """None here: histories are found out by what they have most of."""
        return ()

    @rule(data=st.data(), handle=st.integers(0, 1))
    def commit(self, data: st.DataObject, handle: int) -> None:
        step = self.draw_step(data)
        self.both(lambda store, name: store.commit(step.on(name)), handle)

    @rule(data=st.data(), handle=st.integers(0, 1), count=st.integers(2, 6))
    def commits_and_sends_together(self, data: st.DataObject, handle: int, count: int) -> None:
        """A group: each sees what the ones before it did, whatever was refused between."""
        calls: list[Step | Message] = []
        for _ in range(count):
            calls.append(data.draw(messages) if data.draw(st.integers(0, 3)) == 0 else self.draw_step(data))

        async def all_at_once(store: EventStore, name: str) -> list[Any]:
            return await asyncio.gather(
                *(
                    outcome_of(store.send(call) if isinstance(call, Message) else store.commit(call.on(name)))
                    for call in calls
                )
            )

        self.both(all_at_once, handle)

    @precondition(lambda self: self.steps)
    @rule(data=st.data(), handle=st.integers(0, 1))
    def commit_again(self, data: st.DataObject, handle: int) -> None:
        step = data.draw(st.sampled_from(self.steps[-8:]))
        self.both(lambda store, name: store.commit(step.on(name)), handle)

    @rule(message=messages, handle=st.integers(0, 1))
    def send(self, message: Message, handle: int) -> None:
        self.both(lambda store, _: store.send(message), handle)

    @rule(seconds=st.sampled_from((0.000_001, 0.5, 1, 30, 61, -2)))
    def turn(self, seconds: float) -> None:
        self.clock.turn(seconds)

    # Leases.

    def a_lease(self, data: st.DataObject) -> Pair:
        """One of those that live or have lapsed; a new one as long as there are few."""
        pair = data.draw(st.sampled_from([*self.pairs, None] if len(self.pairs) < LEASES_MAX else self.pairs))
        if pair is not None:
            return pair
        handle = data.draw(st.integers(0, 1))
        contexts = [store.lease("worker") for store in (self.memory, self.sqlite[handle])]
        memory, sqlite = (self.run(context.__aenter__()) for context in contexts)
        assert memory.token == sqlite.token
        leave = tuple((lambda context=context: context.__aexit__(None, None, None)) for context in contexts)
        self.pairs.append(Pair(memory, sqlite, leave, handle))
        return self.pairs[-1]

    @rule(data=st.data(), busy=st.lists(streams, max_size=1))
    def claim(self, data: st.DataObject, busy: list[str]) -> None:
        self.claim_by(data, StreamQuery(), busy)

    @rule(data=st.data(), query=queries, busy=st.lists(streams, max_size=1))
    def claim_by(self, data: st.DataObject, query: StreamQuery, busy: list[str]) -> None:
        pair = self.a_lease(data)
        self.both(
            lambda store, name: store.claim(getattr(pair, name), query=query, limit=100, busy=busy),
            pair.handle,
            lambda heads: heads if isinstance(heads, tuple) else sorted(heads, key=lambda head: head.stream),
        )

    @rule(data=st.data(), how=st.sampled_from(("leave", "crash", "stall", "reopen")))
    def lose_a_lease(self, data: st.DataObject, how: str) -> None:
        self.lose(self.a_lease(data), how)

    def lose(self, pair: Pair, how: str) -> None:
        match how:
            case "leave":
                self.pairs.remove(pair)
                for leave in pair.leave:
                    self.run(leave())
            case "crash":
                self.pairs.remove(pair)
                self.dead.append(pair)
                self.steps = [step for step in self.steps if step.pair is not pair]
                self.memory.end(pair.memory)
                self.run(self.harness.crash_lease(pair.sqlite))
            case "stall":
                assert isinstance(pair.memory, MemoryLease)
                pair.memory.stall()
                pair.memory._lapsed = True  # without turning the clock that the other leases live by
                self.run(self.harness.stall_lease(pair.sqlite))
            case "reopen":
                self.reopen(pair.handle)

    def reopen(self, handle: int) -> None:
        """Close a handle and open it anew: its leases end with it."""
        self.run(self.sqlite[handle].aclose())
        for pair in self.pairs:
            if pair.handle == handle:
                for leave in pair.leave:
                    self.run(leave())
        self.pairs = [pair for pair in self.pairs if pair.handle != handle]
        self.sqlite[handle] = self.run(self.harness.open())

    # What only looks.

    @rule(query=queries, handle=st.integers(0, 1), window=st.tuples(st.integers(-100, 100), st.integers(-100, 100)))
    def find(self, query: StreamQuery, handle: int, window: tuple[int, int]) -> None:
        if window[0] < 0:
            query = replace(query, created_from=self.clock.now() + window[0] * 1_000_000)
        if window[1] > 50:
            query = replace(query, created_until=self.clock.now() - window[1] * 100_000)

        async def pages(store: EventStore, _: str) -> list[tuple[StreamHead, ...]]:
            found = []
            cursor = None
            while True:
                page = await store.find(replace(query, cursor=cursor))
                found.append(page.items)
                cursor = page.next
                if cursor is None:
                    return found

        self.both(pages, handle)

    @rule(
        stream=streams, after=st.integers(0, 5), until=st.one_of(st.none(), st.integers(0, 8)), handle=st.integers(0, 1)
    )
    def read(self, stream: str, after: int, until: int | None, handle: int) -> None:
        async def events(store: EventStore, _: str) -> list[dict[str, Any]]:
            return [without_position(event) async for event in store.read(stream, after=after, until=until)]

        self.both(events, handle)

    async def noted(self) -> list[bytes]:
        payloads = [event.payload async for event in self.memory.read_all()]
        return [one for one in payloads if one is not None and one.startswith(b"noted")]

    @rule(category=st.sampled_from((None, "run", "asset", "other")), handle=st.integers(0, 1))
    def read_all(self, category: str | None, handle: int) -> None:
        async def events(store: EventStore, _: str) -> list[dict[str, Any]]:
            recorded = [event async for event in store.read_all(category=category)]
            assert [event.position for event in recorded] == sorted({event.position for event in recorded})
            return [without_position(event) for event in recorded]

        self.both(events, handle)

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def all_heads(store: EventStore, _: str) -> list[Any]:
            return [await outcome_of(store.head(stream)) for stream in STREAMS]

        heads = self.both(all_heads, self.commit_ids % 2)
        self.heads = {head.stream: head for head in heads if isinstance(head, StreamHead)}
        self.run(self.what_was_noted_was_committed())
        assert permits_of_sqlite(self.sqlite[0].path) == permits_of_memory(self.memory)
        for pair in self.pairs:
            assert pair.memory.fresh() == pair.sqlite.fresh()

    async def what_was_noted_was_committed(self) -> None:
        connection = sqlite3.connect(f"file:{self.sqlite[0].path}?mode=ro", uri=True)
        try:
            notes = connection.execute("SELECT note FROM notes").fetchall()
        except sqlite3.OperationalError:  # none yet
            notes = []
        finally:
            connection.close()
        assert sorted(note for (note,) in notes) == sorted([*await self.noted(), *self.gone])


class KeepingAgainstMemory(SqliteAgainstMemory):
    """What need not stay, too. A machine of its own: what is pruned leaves less for the others to find."""

    @rule(stream=streams, until=st.integers(0, 6), handle=st.integers(0, 1))
    def prune(self, stream: str, until: int, handle: int) -> None:
        with self.taking_away():
            self.both(lambda store, _: store.prune(stream, until=until), handle)  # type: ignore[attr-defined]

    @rule(
        stream=streams,
        versions=st.one_of(st.none(), st.lists(st.integers(1, 6), max_size=3)),
        handle=st.integers(0, 1),
    )
    def forget(self, stream: str, versions: list[int] | None, handle: int) -> None:
        with self.taking_away():
            self.both(lambda store, _: store.forget(stream, versions=versions), handle)  # type: ignore[attr-defined]

    @contextmanager
    def taking_away(self) -> Iterator[None]:
        """Remember which notes of the caller's own SQL are in the log no more."""
        before = self.run(self.noted())
        yield
        left = self.run(self.noted())
        self.gone += [each for each in before if each not in left]

    @rule(handle=st.integers(0, 1))
    def leaves(self, handle: int) -> None:
        async def all_leaves(store: Any, _: str) -> list[Any]:
            found = [leaf async for leaf in store.leaves()]
            assert [leaf.position for leaf in found] == sorted({leaf.position for leaf in found})
            return [(type(leaf).__name__, leaf.stream, leaf.version, leaf.digest) for leaf in found]

        self.both(all_leaves, handle)


class PermitsAgainstMemory(SqliteAgainstMemory):
    """The same of permits above all: they need a history of their own before anything about them can go wrong."""

    commits_and_sends_together = send = find = read = read_all = None  # type: ignore[assignment]

    def begin(self) -> None:
        self.limits = 0
        for pool, window in zip(POOLS, (None, WINDOW)):
            self.set_limit(pool, {"limit": 1, "window": window}, 0)

    def set_limit(self, pool: str, attributes: dict[str, Any], handle: int) -> None:
        version = self.run(outcome_of(self.memory.head(f"pool:{pool}")))
        commit = Commit(
            id=f"limit {self.limits}",
            stream=f"pool:{pool}",
            expected_version=version.version if isinstance(version, StreamHead) else NEW,
            attributes=attributes,
        )
        self.limits += 1
        self.both(lambda store, _: store.commit(commit), handle)

    def draw_permits(self, data: st.DataObject, stream: str) -> tuple[Permit, ...]:
        """Mostly of holders of the stream's own."""
        drawn = data.draw(st.lists(permits, min_size=1, max_size=2))
        whose = stream if data.draw(st.integers(0, 4)) else "any"
        return tuple(replace(one, holder=f"{whose} {one.holder}") for one in drawn)

    @rule(data=st.data(), handle=st.integers(0, 1))
    def only_permits(self, data: st.DataObject, handle: int) -> None:
        """Nothing that could be refused for another reason."""
        self.permits_of(data, handle, data.draw(streams))

    def permits_of(self, data: st.DataObject, handle: int, stream: str) -> None:
        """By who owns the stream, which rests now and then."""
        head = self.heads.get(stream)
        owner = [pair for pair in self.pairs if head is not None and pair.memory.token == head.owner]
        self.commit_ids += 1
        commit = Commit(
            id=f"c{self.commit_ids}",
            stream=stream,
            expected_version=NEW if head is None else head.version,
            permits=self.draw_permits(data, stream),
            release=data.draw(st.integers(0, 4)) == 0,
            closed=data.draw(st.integers(0, 5)) == 0,
        )
        step = Step(commit, (owner or [None])[0])
        self.steps.append(step)
        self.both(lambda store, name: store.commit(step.on(name)), handle)

    @rule(
        pool=st.sampled_from(POOLS[:2]),
        limit=st.sampled_from((0, 1, 2, 4, -1)),
        handle=st.integers(0, 1),
    )
    def change_limit(self, pool: str, limit: int, handle: int) -> None:
        self.set_limit(pool, {"limit": limit}, handle)


class TenureAgainstMemory(PermitsAgainstMemory):
    """How long permits are held: two streams that are taken over all the time share a pool of slots, and no more."""

    commit = commit_again = claim = claim_by = change_limit = lose_a_lease = None  # type: ignore[assignment]

    def begin(self) -> None:
        super().begin()
        self.set_limit("slots", {"limit": 2}, 0)

    def draw_permits(self, data: st.DataObject, stream: str) -> tuple[Permit, ...]:
        """Of one holder more than there are slots: a stream can stand in its own way."""
        drawn = data.draw(st.lists(permits, min_size=1, max_size=2))
        holders = (f"{stream} h{data.draw(st.integers(0, 2))}" for _ in drawn)
        return tuple(replace(one, pool="slots", holder=holder) for one, holder in zip(drawn, holders, strict=True))

    @rule(data=st.data(), handle=st.integers(0, 1))
    def only_permits(self, data: st.DataObject, handle: int) -> None:
        """By a stream that is claimed first if nobody owns it, mostly, or by another worker, now and then."""
        stream = data.draw(st.sampled_from(STREAMS[:2]))
        change = data.draw(st.integers(0, 5))
        if change < 2 or (change < 5 and self.heads[stream].owner is None):
            self.adopt(data, stream)
        self.permits_of(data, handle, stream)

    def adopt(self, data: st.DataObject, stream: str) -> None:
        """Have it claimed, from whoever has just died with it."""
        for pair in [pair for pair in self.pairs if pair.memory.token == self.heads[stream].owner]:
            self.lose(pair, data.draw(st.sampled_from(("crash", "leave"))))
        heir = self.a_lease(data)
        self.commit_ids += 1
        message = Message(id=f"wake {self.commit_ids}", stream=stream, header=b"{}", control=True)
        self.both(lambda store, _: store.send(message), heir.handle)
        query = StreamQuery(streams=(stream,))
        (head,) = self.both(lambda store, name: store.claim(getattr(heir, name), query=query, limit=1), heir.handle)
        self.heads[stream] = head


def permits_of_memory(store: MemoryStore) -> dict[str, Any]:
    return {
        name: (
            {holder: astuple(permit) for holder, permit in pool._permits.items()},
            {holder: astuple(waiter) for holder, waiter in pool._waiters.items()},
            pool.arrivals,
            dict(pool.turns),
        )
        for name, pool in store._streams._pools._pools.items()
        if pool._permits or pool._waiters or pool.arrivals
    }


def permits_of_sqlite(path: str) -> dict[str, Any]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        pools = {
            pool: ({}, {}, arrivals, {int(priority): tag for priority, tag in json.loads(turns).items()})
            for pool, arrivals, turns in connection.execute("SELECT pool, arrivals, turns FROM permit_pools")
        }
        for table, index in (("permits", 0), ("permit_waiters", 1)):
            for pool, holder, *rest in connection.execute(f"SELECT * FROM {table}"):
                pools[pool][index][holder] = tuple(rest)
        for pool, held, waiting in connection.execute("SELECT pool, held, waiting FROM permit_pools"):
            assert (held, waiting) == (len(pools[pool][0]), len(pools[pool][1])), pool
    finally:
        connection.close()
    return {name: pool for name, pool in pools.items() if pool[0] or pool[1] or pool[2]}


async def outcome_of(call: Awaitable[Any]) -> Any:
    """What the call returns, or what of its refusal a caller can act on."""
    try:
        return await call
    except VersionConflict as error:
        return VersionConflict, error.stream, error.expected, error.actual
    except UnknownMessage as error:
        return UnknownMessage, error.stream, error.message_id
    except MailWaiting as error:
        return MailWaiting, error.stream, error.waiting
    except LimitReached as error:
        return LimitReached, error.pool, error.holder, error.retry_at, error.held_by
    except UnknownPool as error:
        return UnknownPool, error.pool
    except EventStoreError as error:
        return type(error), getattr(error, "stream", None), getattr(error, "token", None)


def without_position(event: RecordedEvent) -> dict[str, Any]:
    """Positions may skip, and need not be the same."""
    parts = asdict(event)
    del parts["position"]
    return parts


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes; add it to look into a failure
    database=None,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


QUICK = settings(SETTINGS, max_examples=len(some(range(60))))
"""Planted bugs are looked for in all of the examples; without one, a third of them is the default."""


def test_sqlite_does_what_memory_does() -> None:
    run_state_machine_as_test(SqliteAgainstMemory, settings=QUICK)


def test_sqlite_keeps_what_memory_keeps() -> None:
    run_state_machine_as_test(KeepingAgainstMemory, settings=QUICK)


def with_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (eventstore.mailbox, eventstore.sqlite.mailboxes):
        monkeypatch.setattr(module, "MAILBOX_PAGE", 2)
        monkeypatch.setattr(module, "MAILBOX_BYTES", 12)
        monkeypatch.setattr(module, "CONTROL_PAGE", 2)
        monkeypatch.setattr(module, "CONTROL_BYTES", 9)


def test_sqlite_does_what_memory_does_with_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two messages, or of a few bytes: mailboxes are longer than what a head shows or SQLite loads."""
    with_small_pages(monkeypatch)
    run_state_machine_as_test(SqliteAgainstMemory, settings=settings(SETTINGS, max_examples=len(some(range(30)))))


def test_a_page_without_the_control_mail_behind_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_pages(monkeypatch)
    broken = type("Planted", (SqliteAgainstMemory,), {"specification": canaries.HidesControlMailBehindData})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=SETTINGS)


@pytest.mark.parametrize(
    "broken",
    some(
        [
            canaries.CountsNoClaims,
            canaries.FencesBeforeItLooksWhetherNew,
            canaries.ForgetsTheLastCommit,
            canaries.ForgetsTombstones,
            canaries.ClosesOverMail,
            canaries.KeepsTheStreamsOfTheDead,
            canaries.NoFencing,
            canaries.ReplacesAttributes,
            canaries.TakesAnyEventForProgress,
            canaries.TakesMailWhenClosed,
            canaries.WakesHeldStreams,
            canaries.WritesBeforeItRefuses,
        ],
        of=6,
    ),
)
def test_a_difference_is_found(broken: type[MemoryStore]) -> None:
    """Canaries: with a bug planted in one of the two, the same machine must fail."""
    machine = type("Planted", (SqliteAgainstMemory,), {"specification": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SETTINGS)


def test_sqlite_gives_the_permits_that_memory_gives() -> None:
    run_state_machine_as_test(PermitsAgainstMemory, settings=QUICK)


@pytest.mark.parametrize("broken", some(permit_canaries.SEEN_BY_THE_MACHINE, of=16))
def test_a_difference_in_permits_is_found(broken: type[MemoryStore]) -> None:
    machine = type("Planted", (PermitsAgainstMemory,), {"specification": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SETTINGS)


def test_sqlite_ends_permits_when_memory_does() -> None:
    run_state_machine_as_test(TenureAgainstMemory, settings=QUICK)


@pytest.mark.parametrize("broken", some(permit_canaries.SEEN_BY_THE_MACHINE_OF_TENURE, of=6))
def test_a_difference_in_when_permits_end_is_found(broken: type[MemoryStore]) -> None:
    machine = type("Planted", (TenureAgainstMemory,), {"specification": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SETTINGS)
