"""Large values, and tables, in a storage: a store that keeps them there, and in the history only where they lie.

`LargeValues` is an `EventStore` around another one. What is committed or sent with a payload over PAYLOAD_INLINE_BYTES,
or with tables in it, is written to the storage first, and the history, or the message, names it by its digest
(`engine.core.carriage`). So a crash in between leaves an object that nobody names, which a sweep takes, and never a
history that names what is not there. What is read is brought, and checked, before anybody sees it; whoever is behind
this store knows nothing of it all.

What is missing or damaged is shown as it stands in the history, with the reason: the run that needs it is suspended. A
storage that cannot be used is a store that cannot be used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from hashlib import sha256
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET, Raw, structs

from engine.core.carriage import (
    INLINE,
    PAYLOAD_INLINE_BYTES,
    PAYLOAD_LARGE_BYTES,
    Away,
    Carriage,
    away_of,
    is_away,
    is_bundle,
    pack,
    unpack,
)
from engine.errors import NotRecordable, StorageDamaged, StorageError, StorageMissing, StorageRefused
from engine.runtime.other_ports import OtherPorts
from engine.runtime.sweeping import keys_of
from engine.storage import GRACE_SECONDS, Format, ParquetTables, Storage, Stored, Swept
from eventstore import (
    Commit,
    EventStore,
    Lease,
    Message,
    Page,
    RecordedEvent,
    StoreUnavailable,
    StreamHead,
    StreamQuery,
    WaitingMessage,
)
from eventstore.port import MAILBOX_BYTES, Capability

__all__ = ["LARGE", "TABLES", "LargeValues", "carriage_of", "holds_large", "keep_of"]

WRITTEN_MAX: Final = 1_000
"""Objects that are remembered between the end of the attempt that made them and the commit that names them."""


TABLES: Final = ParquetTables()
LARGE: Final = Carriage(PAYLOAD_LARGE_BYTES, TABLES)
"""What travels where there is a storage."""


def holds_large(store: EventStore) -> bool:
    """Whether runs that begin in this store may have large values."""
    return isinstance(store, LargeValues)


def carriage_of(store: EventStore) -> Carriage:
    """What the arguments of a run may be that is to begin in this store."""
    return LARGE if isinstance(store, LargeValues) else INLINE


def keep_of(store: EventStore) -> Callable[[bytes], Awaitable[None]] | None:
    """What writes large results as soon as they are made, if this store has a place for them."""
    return store.keep if isinstance(store, LargeValues) else None


class LargeValues(OtherPorts):
    """See the module. Closing it closes the store inside."""

    carriage: ClassVar[Carriage] = LARGE
    """What travels in runs that begin in such a store."""

    def __init__(self, inner: EventStore, storage: Storage) -> None:
        super().__init__(inner)
        self.storage = storage
        self._written: dict[str, Stored] = {}  # by digest

    # -- writing -------------------------------------------------------------------------------------------------------

    async def keep(self, payload: bytes) -> None:
        """Write what is to be committed soon, if it is large; whoever made it hears of it when that fails.

        Raises `StorageError`.
        """
        if not _is_large(payload):
            return
        data, tables = unpack(payload)
        for table in tables.values():
            await self._remember(table, "parquet")
        if len(data) > PAYLOAD_INLINE_BYTES:
            await self._remember(data, "json")

    async def commit(self, commit: Commit) -> StreamHead:
        """See `EventStore`."""
        payloads = [event.payload for event in commit.events] + [message.payload for message in commit.sends]
        if any(map(_is_large, payloads)):
            commit = structs.replace(
                commit, events=await self._put_all(commit.events), sends=await self._put_all(commit.sends)
            )
        return await self._head(await self.inner.commit(commit))

    async def send(self, message: Message) -> None:
        """See `EventStore`."""
        await self.inner.send((await self._put_all([message]))[0])

    async def _put_all(self, items: Iterable[Any]) -> tuple[Any, ...]:
        return tuple([await self._put(item) if _is_large(item.payload) else item for item in items])

    async def _put(self, item: Any) -> Any:
        payload = item.payload
        if is_away(payload):  # it could not be brought, and is handed on as it is
            return structs.replace(item, payload=structs.replace(away_of(payload), problem=UNSET).encoded())
        data, tables = unpack(payload)
        try:
            away = Away(
                stored=_raw(await self._place(data, "json")) if len(data) > PAYLOAD_INLINE_BYTES else UNSET,
                value=Raw(data) if len(data) <= PAYLOAD_INLINE_BYTES else UNSET,
                tables={version: _raw(await self._place(table, "parquet")) for version, table in tables.items()}
                or UNSET,
            )
        except StorageError as error:
            raise _unavailable(error) from error
        return structs.replace(item, payload=away.encoded())

    async def _remember(self, data: bytes, format_: Format) -> None:
        stored = await self.storage.write_bytes(data, format_)
        if len(self._written) >= WRITTEN_MAX:
            del self._written[next(iter(self._written))]
        self._written[stored.digest] = stored

    async def _place(self, data: bytes, format_: Format) -> Stored:
        """What was written when it was made is not written again; but only once: a sweep may take it after a while."""
        stored = self._written.pop(sha256(data).hexdigest(), None)
        return stored or await self.storage.write_bytes(data, format_)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventStore`."""
        async with _closed_behind(self.inner.read(stream, after=after, until=until, proof=proof)) as events:
            async for recorded in events:
                yield await self._brought(recorded)

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        """See `EventStore`."""
        async with _closed_behind(self.inner.read_all(after=after, category=category)) as events:
            async for recorded in events:
                yield await self._brought(recorded)

    async def head(self, stream: str) -> StreamHead:
        """See `EventStore`."""
        return await self._head(await self.inner.head(stream))

    async def claim(
        self, lease: Lease, *, query: StreamQuery, limit: int, busy: Collection[str] = ()
    ) -> list[StreamHead]:
        """See `EventStore`."""
        heads = await self.inner.claim(lease, query=query, limit=limit, busy=busy)
        return [await self._head(head) for head in heads]

    async def _head(self, head: StreamHead) -> StreamHead:
        """With its messages brought; of data messages no more than MAILBOX_BYTES, which the store has counted small."""
        if not any(is_away(message.payload) for message in head.messages):
            return head
        shown: list[WaitingMessage] = []
        size = 0
        full = False
        for message in head.messages:
            if not message.control:
                size += sum((each.size for each in _named_by(message.payload)), start=len(message.payload or b""))
                full = full or (size > MAILBOX_BYTES and bool(shown))
                if full:  # and so is what stands behind it: messages arrive in order
                    continue
            shown.append(await self._brought(message))
        return structs.replace(head, messages=tuple(shown))

    async def _brought(self, item: Any) -> Any:
        """With its payload, if that is elsewhere; or with why it cannot be had."""
        if item.payload is None or not is_away(item.payload):
            return item
        try:
            away = away_of(item.payload)
        except NotRecordable:
            return item  # whoever reads it says so
        try:
            payload = await self._bring(away)
        except (StorageMissing, StorageDamaged, StorageRefused, ValueError, RecursionError) as error:
            payload = structs.replace(away, problem=str(error)).encoded()
        except StorageError as error:
            raise _unavailable(error) from error
        return structs.replace(item, payload=payload)

    async def _bring(self, away: Away) -> bytes:
        data = b"" if away.value is UNSET else bytes(away.value)
        if away.stored is not UNSET:
            data = await self.storage.read_bytes(_stored(away.stored))
        if away.tables is UNSET:
            return data
        return pack(
            data, {version: await self.storage.read_bytes(_stored(raw)) for version, raw in away.tables.items()}
        )

    # -- what is named -------------------------------------------------------------------------------------------------

    @staticmethod
    def names(payload: bytes | None) -> Iterator[Stored]:
        """What a payload names, as it stands in the store inside."""
        return _named_by(payload)

    async def keys(self) -> set[str]:
        """The keys of all objects that the store may name, wherever it does; see `engine.runtime.sweeping`."""
        return await keys_of(self.inner, self.storage)

    async def sweep(
        self, keep: Iterable[Stored | str] = (), *, grace: float = GRACE_SECONDS, look: bool = False
    ) -> Swept:
        """Take away what lies in the storage and neither the store nor `keep` names, if it is older than `grace`
        seconds.

        Name in `keep` what others have in the same storage: another store (`keys`), files of yours. What is pruned or
        forgotten in the store is not named any more. `look`: only say what would go. Reads the whole log, and the JSON
        in the storage that it names. Raises what both raise.
        """
        everything = {each if isinstance(each, str) else each.key for each in keep}
        return await self.storage.sweep(everything | await self.keys(), grace=grace, look=look)

    # -- the rest of the port ------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `EventStore`."""
        return self.inner.capabilities

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        """See `EventStore`: heads that are found show no messages."""
        return await self.inner.find(query)

    def lease(self, worker: str) -> AbstractAsyncContextManager[Lease]:
        """See `EventStore`."""
        return self.inner.lease(worker)

    async def wait(self, lease: Lease, *, timeout: float) -> None:
        """See `EventStore`."""
        await self.inner.wait(lease, timeout=timeout)

    async def aclose(self) -> None:
        """See `EventStore`."""
        await self.inner.aclose()


@asynccontextmanager
async def _closed_behind(events: AsyncIterator[RecordedEvent]) -> AsyncIterator[AsyncIterator[RecordedEvent]]:
    """What is left early here is left early there: a store may hold a connection for it."""
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _is_large(payload: object) -> bool:
    if not isinstance(payload, bytes):  # what is malformed, the store refuses
        return False
    return len(payload) > PAYLOAD_INLINE_BYTES or is_bundle(payload) or is_away(payload)


def _named_by(payload: bytes | None) -> Iterator[Stored]:
    if payload is None or not is_away(payload):
        return
    try:
        away = away_of(payload)
    except NotRecordable:  # it only begins as if
        return
    raws = [] if away.stored is UNSET else [away.stored]
    raws += () if away.tables is UNSET else away.tables.values()
    for raw in raws:
        with suppress(ValueError, RecursionError):  # likewise
            yield _stored(raw)


def _raw(stored: Stored) -> Raw:
    return Raw(msgspec.json.encode(stored))


def _stored(raw: Raw) -> Stored:
    return msgspec.json.decode(raw, type=Stored)


def _unavailable(error: StorageError) -> StoreUnavailable:
    return StoreUnavailable(f"large values cannot be written or read: {error}")
