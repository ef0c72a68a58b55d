"""The store of a simulation: one memory store, and a handle on it for each actor, whose calls fail, dawdle and kill.

The handle judges every commit that was accepted with a model of its own (`Ledger`), which knows nothing of how the
store decides: one writer per stream, versions without a gap, nothing acknowledged is lost.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Literal

from engine.core.events import (
    AttemptHeartbeat,
    ContinuedAsNew,
    RunReopened,
    RunStarted,
    RunSuspended,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    decode_header,
)
from engine.core.lineage import idempotency_key
from eventstore import NEW, Clock, Commit, EventStore, Lease, Message, StreamHead
from eventstore.memory import MemoryStore
from eventstore.rules import Streams
from tests.runtime.faulty import Fault, FaultyStore
from tests.simulation.books import Answers, Keys, Wishes
from tests.simulation.bursts import Bursts
from tests.simulation.footprints import Footprints
from tests.simulation.kept import Kept
from tests.simulation.limits import Limits
from tests.simulation.loops import Actor
from tests.simulation.outside import OUTSIDE
from tests.simulation.repaired import Repaired
from tests.simulation.seen import Seen
from tests.simulation.sends import Sends
from tests.simulation.taken import Taken

__all__ = ["DELAYS", "Handle", "Ledger", "watched_store"]

DELAYS: dict[str, list[float]] = {
    "none": [0],
    "short": [0, 0, 0, 0.001, 0.01, 0.05],
    "long": [0, 0, 0, 0, 0, 0.001, 0.01, 0.1, 1, 3],
}
"""How long a call takes to arrive, and its reply to come back, in seconds: one of these."""


class Ledger:
    """What was accepted, as whoever watches the wire would write it down."""

    def __init__(self, time: Callable[[], float], limits: dict[str, tuple[str, ...]]) -> None:
        self.time = time  # simulated seconds, whatever any clock says
        self.owners: dict[str, int] = {}  # of streams: the token that made or claimed it, until it gives it up
        self.versions: dict[str, int] = {}
        self.headers: dict[str, list[bytes]] = {}
        self.epochs: dict[str, int] = {}
        self.parked: set[str] = set()
        self.handed: set[tuple[str, str]] = set()  # tasks that somebody else ends, by run and key
        self.commits = 0
        self.kinds: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.wishes = Wishes(self.checks)
        self.answers = Answers(self.checks, self.wishes.ever)
        self.seen = Seen(self.checks)
        self.keys = Keys(self.checks, self.wishes.ended)
        self.keys.time = time
        self.limits = Limits(self.checks, limits)
        self.repaired = Repaired(self.checks)
        self.bursts = Bursts(self.checks)
        self.kept = Kept(self.checks)
        self.footprints = Footprints(self.checks)
        self.taken = Taken(self.checks, self.wishes)
        self.repaired.forked = self.taken.forked.add
        self.sends = Sends(self.checks, self.wishes.ever)

    def claimed(self, stream: str, token: int) -> None:
        self.owners[stream] = token

    def accepted(
        self, commit: Any, head: StreamHead, *, existed: bool, mail: list[bytes], alive: Callable[[int], bool]
    ) -> None:
        """A commit was accepted for the first time: it is held against all that was accepted before."""
        stream, version, before = commit.stream, head.version, self.versions.get(commit.stream, 0)
        owner = self.owners.get(stream)
        self.commits += 1
        self.footprints.written(stream, [new.header for new in commit.events], existed=existed)
        self.checks["one writer per stream"] += 1
        if commit.lease is not None:
            token = commit.lease.token
            if existed and owner != token:
                OUTSIDE.broke("two writers", f"{stream} is owned by {owner}, and took a commit of {token}: {commit}")
            self.owners[stream] = token
        elif owner is not None and alive(owner):
            OUTSIDE.broke("two writers", f"{stream} is owned by {owner}, and took a commit of nobody: {commit}")
        if commit.release:
            self.owners.pop(stream, None)
        self.checks["versions without gaps"] += 1
        if commit.expected_version not in (before, NEW) or version != before + len(commit.events):
            text = f"{stream} was at {before}, took {len(commit.events)} events and is at {version}"
            OUTSIDE.broke("versions", text)
        self.versions[stream] = version
        if commit.events:
            self.headers.setdefault(stream, []).extend(event.header for event in commit.events)
        if stream.startswith("run:"):
            events = [decode_header(new.header) for new in commit.events]
            run_id = stream.partition(":")[2]
            payloads = [new.payload for new in commit.events]
            copied = self.repaired.count_copied(run_id, events)
            self._noted(run_id, commit, events, payloads, mail, copied)
            # What a fork has copied is its origin's, but for the tasks that it goes on with.
            known = [event for event in events[:copied] if isinstance(event, TaskScheduled | ContinuedAsNew)]
            self.limits.noted(
                run_id,
                commit,
                [*known, *events[copied:]],
                head.updated_at,
                lambda run_id, token: self.owners.get(f"run:{run_id}") == token and alive(token),
            )
        elif stream.startswith("memo:"):
            for new in commit.events:
                self.kept.memoised(decode_header(new.header))
        elif stream.startswith("debounce:"):
            for new in commit.events:
                doing = self.footprints.now()
                event: Any = decode_header(new.header)
                self.bursts.called(event, -1 if doing is None else doing.n, self.time())
        elif stream.startswith("pool:") and commit.attributes:
            self.limits.set_to(stream.partition(":")[2], commit.attributes)

    def _noted(
        self, run_id: str, commit: Any, events: list[Any], payloads: list[bytes | None], mail: list[bytes], copied: int
    ) -> None:
        own = events[copied:]
        self.wishes.noted(run_id, own, mail, self.time())
        self.keys.noted(run_id, own)
        self.sends.noted(run_id, own)
        self.repaired.noted(run_id, events, copied)
        self.kept.noted(run_id, own)
        self.bursts.noted(run_id, events, payloads, self.time())
        self.answers.noted(run_id, events, payloads)
        self.seen.noted(run_id, events, payloads)
        for number, (event, payload) in enumerate(zip(events, payloads, strict=True)):
            self.kinds[type(event).__name__] += 1
            match event:
                case RunStarted(epoch=epoch):
                    self.epochs[run_id] = epoch
                case TaskScheduled(id=id_, task="handed"):
                    self.handed.add((run_id, self._key(run_id, id_)))
                case TaskCompleted(id=id_):
                    OUTSIDE.completed[run_id, self._key(run_id, id_)] = 1
            if number >= copied:
                self._happened(run_id, event, payload)

    def _happened(self, run_id: str, event: Any, payload: bytes | None) -> None:
        match event:
            case RunSuspended():
                self.parked.add(f"run:{run_id}")
            case RunReopened():
                OUTSIDE.reopened(run_id)
            case TaskStarted(id=id_, attempt=number):
                OUTSIDE.started[run_id, self._key(run_id, id_)] = number
            case AttemptHeartbeat(id=id_) if payload is not None:
                OUTSIDE.beats[run_id, self._key(run_id, id_)] = json.loads(payload)
            case TaskFailed(id=id_) if (one := (run_id, self._key(run_id, id_))) in self.handed and event.by:
                OUTSIDE.check_answer(one, event.by, None)
            case TaskCompleted(id=id_) if (one := (run_id, self._key(run_id, id_))) in self.handed:
                OUTSIDE.check_answer(one, event.by, json.loads(payload or b""))

    def _key(self, run_id: str, task_id: str) -> str:
        return idempotency_key(run_id, self.epochs.get(run_id, 0), task_id)

    async def compare(self, store: EventStore) -> None:
        """Everything that was acknowledged is there, as it was."""
        for stream, headers in self.headers.items():
            if stream.removeprefix("run:") in self.taken.pruned:
                continue
            there = [item.header async for item in store.read(stream)]
            self.checks["no acknowledged event lost"] += len(headers)
            if there != headers:
                OUTSIDE.broke("lost", f"{stream} acknowledged {len(headers)} events, and has {len(there)} or others")


TAKING = (b'{"type":"RunPruned"', b'{"type":"PayloadsDestroyed"')


class Watched(Streams):
    """The rules of the memory store; what they accept is told to the ledger, at that very moment."""

    ledger: Ledger

    def apply(self, commit: Commit) -> StreamHead:
        stream = self._streams.get(commit.stream)
        again = stream is not None and stream.last_commit == commit.id
        box = {} if stream is None or not commit.consumes else dict(stream.mailbox)
        takes = stream is not None and any(event.header.startswith(TAKING) for event in commit.events)
        before = (stream.head(), [*stream.events]) if takes else None
        head = super().apply(commit)
        if not again:
            if before is not None:
                self.ledger.taken.noted(commit.stream.partition(":")[2], commit.events[0].header, *before)
            self.ledger.accepted(
                commit,
                head,
                existed=stream is not None,
                mail=[box[id_].header for id_ in commit.consumes],
                alive=self._is_alive,
            )
        return head

    def deliver(self, message: Message, now: int) -> Literal["not_found", "closed"] | None:
        self.ledger.footprints.told(message.stream, message.sender)
        return super().deliver(message, now)

    def take(self, stream: Any, token: int) -> StreamHead:
        head = super().take(stream, token)
        self.ledger.claimed(stream.name, token)
        return head

    def _is_alive(self, token: int) -> bool:
        lease = self._leases.get(token)
        return lease is not None and lease.fresh()


def watched_store(clock: Clock, entropy: Callable[[int], bytes], *, lease_ttl: float, ledger: Ledger) -> MemoryStore:
    """A memory store whose rules tell the ledger."""
    store = MemoryStore(clock=clock, entropy=entropy, lease_ttl=lease_ttl)
    rules = Watched(clock=clock, entropy=entropy, leases=store._leases, on_need=store._tell)
    rules.ledger = ledger
    store._streams = rules
    return store


class Handle(FaultyStore):
    """One actor's. `plan` says what befalls its calls by their number; a death kills the actor, and never returns."""

    def __init__(
        self,
        inner: MemoryStore,
        actor: Actor,
        *,
        plan: Callable[[str], str | None],
        kill: Callable[[Actor], None],
        chance: Random,
        delays: list[float],
    ) -> None:
        super().__init__(inner)
        self.inner: MemoryStore = inner
        self._actor = actor
        self._next_fault = plan
        self._kill = kill
        if any(delays):

            async def dawdle(_name: str, _argument: Any) -> None:
                if seconds := chance.choice(delays):
                    await asyncio.sleep(seconds)

            self.before = self.after = dawdle

    def _begin(self, name: str) -> Fault | None:
        fault = self._next_fault(name)
        if fault == "die before":
            self._kill(self._actor)
        return fault  # type: ignore[return-value]

    async def _call(self, name: str, argument: Any, call: Any) -> Any:
        fault = self._begin(name)
        if fault == "die before":
            await asyncio.get_running_loop().create_future()  # nothing of it runs any more
        if self.before is not None:
            await self.before(name, argument)
        if fault == "refuse":
            raise self._error(name)
        result = await call()
        if fault == "die after":
            self._kill(self._actor)
            await asyncio.get_running_loop().create_future()
        if self.after is not None:
            await self.after(name, argument)
        if fault is not None:
            raise self._error(name)
        return result

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[Any]:
        fault = self._begin("read")
        if self.before is not None:
            await self.before("read", stream)
        if fault in ("refuse", "lose reply"):
            raise self._error("read")
        async for event in self.inner.read(stream, after=after, until=until, proof=proof):
            yield event

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        forgotten: int = await self._call("forget", stream, lambda: self.inner.forget(stream, versions=versions))
        return forgotten

    async def prune(self, stream: str, *, until: int) -> int:
        pruned: int = await self._call("prune", stream, lambda: self.inner.prune(stream, until=until))
        return pruned

    def leaves(self, *, after: int = 0) -> AsyncIterator[Any]:
        return self.inner.leaves(after=after)

    def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[Any]:
        return self.inner.kept(stream, after=after)

    @asynccontextmanager
    async def lease(self, worker: str) -> AsyncIterator[Lease]:
        async with self.inner.lease(worker) as lease:
            self._actor.leases.append(lease)
            yield lease
