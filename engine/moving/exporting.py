"""`export_to_file`: runs, or a whole store, as they stand at one moment, in one file.

A run goes with its child runs. Whoever writes meanwhile is not disturbed; what a store gives out is one moment of it,
and child runs that came into being between the look at the family and that moment are found by looking again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from importlib import metadata
from pathlib import Path
from typing import Final
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ExportError
from engine.moving.events import ExportBegun, ExportWritten, MovingEvent, export_stream, new_event
from engine.moving.families import Family, family_of, pause_all, stream_of
from engine.moving.files import ExportWriter, refuse_existing
from engine.moving.form import FORM, Heading
from engine.moving.limits import EXPORT_TRIES
from engine.moving.looking import Looked
from engine.moving.objects import Named, parts_of, storage_of
from engine.moving.progress import EVERY_EVENTS, MoveProgress, Told
from engine.moving.pruned import Finishing, PrunedMeanwhile
from eventstore import NEW, Clock, Commit, EventStore, NotInstallable, RecordedEvent, SystemClock
from eventstore.moving import Item, StoredStream, moving_store

__all__ = ["Exported", "export_to_file"]

_CHUNK_ITEMS: Final = 500
_CHUNK_BYTES: Final = 4 << 20


class Exported(Struct, frozen=True, kw_only=True):
    """What was written: the file, the digest in its last line, and what is in it."""

    file: Path
    sha256: str
    streams: int
    events: int
    runs: tuple[str, ...] | None  # ids, with child runs; None: a whole store
    parents: dict[str, str]  # of runs whose parents are not among them: the ids of these
    unfinished: int  # runs that have not ended
    not_paused: tuple[str, ...] = ()  # ids of runs that were to be paused, and nobody has done it yet
    values: int = 0  # large values that are in it
    values_bytes: int = 0
    values_elsewhere: int = 0  # large values that it names, and that stay in their storage


async def export_to_file(
    store: EventStore,
    file: str | Path,
    *,
    runs: Sequence[str] | None = None,
    pause: bool = False,
    by: str = "",
    reason: str = "",
    record: bool = True,
    values: bool = True,
    progress: Callable[[MoveProgress], None] | None = None,
    clock: Clock | None = None,
) -> Exported:
    """Write runs with their child runs, or the whole store (`runs` None), into a new file.

    Before it, the event `ExportBegun` says who and why, in a stream of its own; behind it `ExportWritten` has the
    file's digest. `record` False leaves both out, for a store that is open for reading only. `pause`: they are paused
    first, so that they go on nowhere until they are unpaused, here or where they are imported; a request to pause that
    nobody here takes up within seconds goes along with the run. `values`: the large values that they name go into the
    file, for which `store` is a `LargeValues`; False leaves them where they lie, for a store that has the same storage.

    Raises `RunNotFound`; `ExportError` when the file is there already, the runs go on starting child runs, what is
    stored does not verify, or a large value cannot be had; `UnsupportedCapability` for a store that gives nothing out;
    `OSError`. What is not finished leaves no file.
    """
    moving_store(store)
    path = Path(file)
    await asyncio.to_thread(refuse_existing, path)
    if runs is not None:
        await family_of(store, runs)  # that they are there, before anything is written
    log = _Log(store, clock or SystemClock(), record=record)
    await log.add(ExportBegun(at=log.now(), file=path.name, runs=tuple(runs or ()), by=by, reason=reason))
    not_paused: tuple[str, ...] = ()
    if pause and runs is not None:
        not_paused = await pause_all(store, runs, by=by, reason=reason)
    writing = _Writing(store, path, runs, progress, values=values)
    for _ in range(EXPORT_TRIES):
        if (exported := await writing.once(log.now())) is not None:
            break
    else:
        raise ExportError(f"{path} was not written: {writing.why_not}")
    await log.add(ExportWritten(at=log.now(), sha256=exported.sha256, streams=exported.streams, events=exported.events))
    return replace(exported, not_paused=not_paused)


def _version() -> str:
    try:
        return metadata.version("holdfast")
    except metadata.PackageNotFoundError:  # it is run from its source
        return ""


class _Log:
    """The stream of this export, if there is to be one."""

    def __init__(self, store: EventStore, clock: Clock, *, record: bool) -> None:
        self._store: Final = store
        self._record: Final = record
        self._stream: Final = export_stream(uuid4().hex)
        self._version = NEW
        self.now: Final = clock.now

    async def add(self, event: MovingEvent) -> None:
        """Write it down."""
        if self._record:
            commit = Commit(
                id=uuid4().hex, stream=self._stream, expected_version=self._version, events=(new_event(event),)
            )
            self._version = (await self._store.commit(commit)).version


class _Writing:
    """Writes the file, as often as it takes."""

    def __init__(
        self, store: EventStore, path: Path, runs: Sequence[str] | None, progress: Told, *, values: bool
    ) -> None:
        self._store: Final = store
        self._path: Final = path
        self._runs: Final = runs
        self._progress: Final = progress
        self._values: Final = values
        self.why_not = ""  # it was of no use the last time

    async def once(self, now: int) -> Exported | None:
        """Write it; None if that was of no use: the runs have other children by now, or were pruned meanwhile."""
        family = await self._family()
        runs = None if family is None else tuple(family)
        heading = Heading(
            holdfast="export",
            form=FORM,
            version=_version(),
            at=now,
            store=type(self._store).__name__,
            runs=runs,
            parents={run: each for run, each in (family or {}).items() if each and each not in (family or {})},
        )
        looked = Looked()  # what would not be taken in is not written
        writer = await asyncio.to_thread(ExportWriter, self._path, heading)
        try:
            names = None if runs is None else [stream_of(run) for run in runs]
            async with aclosing(moving_store(self._store).dump(names)) as items:
                await self._write(items, writer, looked)
            if (await self._family() or {}).keys() > (family or {}).keys():
                self.why_not = "the runs go on starting child runs; pause them first"
                return None
            await self._write_values(writer, looked.named)
            digest = await asyncio.to_thread(writer.finish, events=looked.arrivals.events)
        except PrunedMeanwhile:
            self.why_not = "runs are pruned all the while; wait until that is done"
            return None
        except NotInstallable as error:
            raise ExportError(f"{self._path} was not written: {error}; look with holdfast verify") from error
        finally:
            await asyncio.shield(asyncio.to_thread(writer.abandon))
        return Exported(
            file=self._path,
            sha256=digest,
            streams=writer.streams,
            events=looked.arrivals.events,
            runs=runs,
            parents=heading.parents,
            unfinished=looked.unfinished,
            values=len(looked.named.by_key) if self._values else 0,
            values_bytes=looked.named.bytes if self._values else 0,
            values_elsewhere=0 if self._values else len(looked.named.by_key),
        )

    async def _write_values(self, writer: ExportWriter, named: Named) -> None:
        """The large values that were named, each once."""
        if not (self._values and named.by_key):
            return
        storage = storage_of(self._store)
        if storage is None:
            raise ExportError(
                f"{self._path} was not written: it would name {len(named.by_key):,} large values, which lie in a"
                " storage: say which, with ?storage=PLACE behind the URL of the store (LargeValues(store, storage) in a"
                " program), or leave them out (--no-values, values=False)"
            )
        for stored in named.by_key.values():
            await asyncio.to_thread(writer.write_object, parts_of(storage, stored))

    async def _family(self) -> Family | None:
        return None if self._runs is None else await family_of(self._store, self._runs)

    async def _write(self, items: AsyncGenerator[Item, None], writer: ExportWriter, looked: Looked) -> None:
        finish = Finishing()
        chunk: list[Item] = []
        size = total = 0
        async for given in items:
            item = finish(given)
            if item is None:
                continue
            looked.take(item)
            if isinstance(item, RecordedEvent):
                self._tell(looked.arrivals.events, total)
            elif isinstance(item, StoredStream):
                total += 1 if item.pruned else item.version
            chunk.append(item)
            size += len(item.payload or b"") if isinstance(item, RecordedEvent) else 0
            if len(chunk) >= _CHUNK_ITEMS or size >= _CHUNK_BYTES:
                await asyncio.to_thread(writer.write, chunk)
                chunk, size = [], 0
        await asyncio.to_thread(writer.write, chunk)
        looked.finish()

    def _tell(self, events: int, total: int) -> None:
        if self._progress is not None and events % EVERY_EVENTS == 0:
            self._progress(MoveProgress(doing="writing", events=events, total=total))
