"""Singletons: of a workflow's runs with one key, at most one has begun and not ended, on the whole store.

The key is a pool of one slot, and the slot is a lasting permit of the run's stream: taken by the commit that records
the run, given up by the store when the stream is closed, whoever dies in between. So no key is held by nobody, and none
by two. Who waits for it stands in the store's queue, in the commit that records it, and is told by control mail.

What is to become of whoever has the key is the business of the one who comes: see `OnConflict`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal, TypeAlias, get_args

from msgspec import Struct

from engine.core.events import RunQueued
from engine.errors import HoldfastError, RunEnded, SingletonHeld
from engine.runtime.keys import check_key, key_permit, pool_of
from engine.runtime.launching import AtTheDoor
from engine.runtime.limits import declare_key
from engine.runtime.mail import CancelMail, control_message, signal_message
from engine.runtime.sending import send_data
from engine.runtime.starting import Start
from engine.runtime.streams import QUEUED, RUN_CATEGORY, run_id_of, stream_of
from eventstore import Commit, LimitReached, Message, Permit, StreamClosed, StreamQuery, find_all
from eventstore.errors import UnknownPool, VersionConflict
from eventstore.port import pool_stream

__all__ = ["OnConflict", "Singleton", "singleton_of", "start_single"]

OnConflict: TypeAlias = Literal["reject", "attach", "replace", "queue"]
"""What is done when another run has the key: refuse to start; return that run; ask it to end, and be the next; or wait
until it has ended.
"""
SENT_WITH_START_MAX: Final = 1_000
"""How many of those in the queue are asked to end by the very commit that puts their replacement there."""


class Singleton(Struct, frozen=True):
    """What whoever starts a run says of others with the same key."""

    key: str
    on_conflict: OnConflict


def singleton_of(key: str | None, on_conflict: str | None) -> Singleton | None:
    """What `Engine.start` was told. Raises `HoldfastError` for what it cannot mean."""
    if key is None:
        if on_conflict is not None:
            raise HoldfastError(f"start(on_conflict={on_conflict!r}) says nothing without singleton=, the key")
        return None
    policy: Any = on_conflict or "reject"
    if policy not in get_args(OnConflict):
        raise HoldfastError(f"start(on_conflict={on_conflict!r}): one of {', '.join(get_args(OnConflict))}")
    return Singleton(check_key(key, what="singleton"), policy)


async def start_single(start: Start, wish: Singleton, *, next_id: Callable[[], str]) -> str:
    """Make the run, or join it if it is there; or what is wished when another has the key. The id of the run to have.

    Raises `SingletonHeld`, what `Start.made_or_joined` raises, and `HoldfastError` when the store has no shared limits.
    """
    store = start.worker.store
    if "permits" not in store.capabilities:
        raise HoldfastError(
            f"{type(store).__name__} has no limits that engines share, and so no singletons (its capabilities:"
            f" {sorted(store.capabilities)}): leave singleton= out, or use a store that has"
        )
    turnstile = _Turnstile(start, wish, next_id)
    while True:
        try:
            await turnstile.taking()
        except UnknownPool:
            await declare_key(store, turnstile.pool, clock=start.worker.clock, commit_id=next_id())
        except LimitReached as error:
            if (run_id := await turnstile.refused(error.held_by)) is not None:
                return run_id
        else:
            return start.run_id


class _Turnstile:
    """One start of a singleton, before its key."""

    def __init__(self, start: Start, wish: Singleton, next_id: Callable[[], str]) -> None:
        self.pool = pool_of(start.definition.name, wish.key)
        self._start = start
        self._store = start.worker.store
        self._run_id = start.run_id
        self._wish = wish
        self._next_id = next_id

    async def refused(self, holder: str | None) -> str | None:
        """Another has the key: do what is wished. The id of the run to have; None: it was given up since."""
        wish = self._wish
        if holder is None:
            raise HoldfastError(f"the singleton key {wish.key!r} is shut: its pool {self.pool!r} was set to no slot")
        match wish.on_conflict:
            case "reject":
                raise SingletonHeld(holder, workflow=self._start.definition.name, key=wish.key) from None
            case "attach":
                return holder if await self._attached(holder) else None
            case "queue" | "replace":
                await self._queueing(holder)
                return self._run_id

    async def taking(self) -> None:
        """Record it with the key. Raises `LimitReached` when another has that, `UnknownPool` when nobody ever had."""
        await self._record(AtTheDoor(permits=(key_permit(self.pool, self._run_id, "take"),)))

    async def _record(self, door: AtTheDoor) -> bool:
        return await self._start.made_or_joined(lambda: self._start.enqueue(door))

    async def _attached(self, holder: str) -> bool:
        """Send the run that has the key what ours was to be told. False: it has ended since."""
        try:
            for id_, signal in self._start.signals.items():
                await send_data(self._store, signal_message(holder, id_, signal), holder)
        except RunEnded:
            return False
        return True

    async def _queueing(self, holder: str) -> None:
        """Record it in the queue for the key, behind the run that has it; if that is the wish, ask to end who is ahead.

        Whoever is ahead of it is so from this commit on: it is looked for once more behind it, for what has changed
        since we learnt who had the key.
        """
        replaces = self._wish.on_conflict == "replace"
        ahead = [holder, *[run async for run in self._queued()]] if replaces else []
        door = AtTheDoor(
            permits=(key_permit(self.pool, self._run_id, "wait"),),
            notes=(RunQueued(at=self._start.fact.at, key=self._wish.key, behind=holder, replaces=replaces),),
            sends=tuple(self._replacing(run) for run in ahead[:SENT_WITH_START_MAX]),
            attributes={QUEUED: self.pool},
            held=True,
        )
        if await self._record(door) and replaces:
            await self._replace_the_rest()

    async def _replace_the_rest(self) -> None:
        mine = await self._position(self._run_id)
        others = [run async for run in self._queued()]
        if (holder := await self._holder()) is not None:
            others.append(holder)
        for run in others:  # those who were told already are not told twice: it is the same message
            if run != self._run_id and await self._position(run) < mine:
                try:
                    await self._store.send(self._replacing(run))
                except StreamClosed:
                    continue  # it has ended

    def _replacing(self, run: str) -> Message:
        reason = f"replaced by run {self._run_id!r}"
        mail = CancelMail(by=self._start.fact.by, reason=reason)
        return control_message(stream_of(run), f"replace:{self._run_id}", mail, open_only=True)

    async def _queued(self) -> AsyncIterator[str]:
        """The runs in the queue for the key."""
        query = StreamQuery(category=RUN_CATEGORY, attributes={QUEUED: self.pool}, closed=False, newest_first=False)
        async for head in find_all(self._store, query):
            yield run_id_of(head.stream)

    async def _holder(self) -> str | None:
        """Who has the key, if anybody: asked by a commit that takes it and gives it back, or is refused."""
        prober = f"probe:{self._next_id()}"
        probe = tuple(Permit(pool=self.pool, holder=prober, action=action) for action in _PROBE)
        store, stream = self._store, pool_stream(self.pool)
        while True:
            head = await store.head(stream)
            try:
                await store.commit(
                    Commit(id=self._next_id(), stream=stream, expected_version=head.version, permits=probe)
                )
            except LimitReached as error:
                return error.held_by
            except VersionConflict:
                continue
            return None

    async def _position(self, run: str) -> int:
        """Where in the whole log the run was recorded: the order of the queue, whatever the clocks said."""
        async for recorded in self._store.read(stream_of(run), until=1):
            return recorded.position
        return 0


_PROBE: Final[tuple[Literal["take", "return"], ...]] = ("take", "return")
