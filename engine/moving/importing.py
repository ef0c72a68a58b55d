"""`import_from_file`: what a file holds, taken into a store at once; `check_export`: whether a file is whole.

A file is read twice: once to its end, which finds whatever is wrong with it before a store is touched, and once to be
installed, in one transaction together with the event that says who did it. So at no moment is half of it there, and
after a crash the same call does it, or finds that it was done.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from msgspec import Struct

from engine.errors import DamagedExport, ExportError
from engine.moving.events import FileImported, import_stream, new_event
from engine.moving.files import ExportReader
from engine.moving.looking import Looked
from engine.moving.objects import Named, ObjectBytes, ObjectHead, ObjectPart, WrongObject, bytes_of, storage_of
from engine.moving.progress import EVERY_EVENTS, MoveProgress, Told
from engine.storage import BlockingStorage
from eventstore import NEW, Clock, Commit, EventStore, NotInstallable, RecordedEvent, SystemClock
from eventstore.moving import Item, moving_store

__all__ = ["CheckedExport", "Imported", "check_export", "import_from_file"]


class CheckedExport(Struct, frozen=True, kw_only=True):
    """A file that is whole, and what it says. Times are microseconds since the epoch."""

    sha256: str
    streams: int
    events: int
    version: str  # of the library that wrote it
    at: int
    store: str  # the kind of store that it comes from
    runs: tuple[str, ...] | None  # ids; None: a whole store
    parents: dict[str, str]  # of runs whose parents are not in it: the ids of these
    unfinished: int  # runs that have not ended
    values: int = 0  # large values that are in it
    values_bytes: int = 0
    values_elsewhere: int = 0  # large values that it names, and that lie in the storage of where it comes from


class Imported(Struct, frozen=True, kw_only=True):
    """What was installed: how many streams and events are new, and how many streams were there already."""

    streams: int
    events: int
    same: int
    export: CheckedExport


async def check_export(file: str | Path, *, progress: Callable[[MoveProgress], None] | None = None) -> CheckedExport:
    """Read a file to its end, and compute every chain in it. In memory in proportion to the number of streams, and of
    large values.

    `progress` is called on another thread. Raises `DamagedExport`, `ExportError`, `OSError`.
    """
    async with _stopping() as stop:
        return await asyncio.to_thread(_check, Path(file), stop, progress)


async def import_from_file(
    store: EventStore,
    file: str | Path,
    *,
    by: str = "",
    reason: str = "",
    checked: CheckedExport | None = None,
    progress: Callable[[MoveProgress], None] | None = None,
    clock: Clock | None = None,
) -> Imported:
    """Take in what a file holds: all of it, or nothing. Streams that are there with the same events stay as they are.

    With what is new goes the event `FileImported`, in a stream of its own. In an empty store the log begins with the
    events of a whole store in their order, so that its seals hold; else they are appended. While it is installed nobody
    else can write to the store. `checked` is what `check_export` has said of the file, if it was asked already.
    `progress` may be called on another thread.

    Large values that are in the file are written to the storage of `store`, a `LargeValues`, before the events that
    name them; who is cut off in between leaves objects that nobody names, which a sweep takes.

    Raises `DamagedExport` and `ExportError` before anything was looked at in the store, also when there are large
    values and no storage for them; `StorageError` when they cannot be written; `StreamDiffers` for a stream
    that is there with other events, with more or with fewer; `LimitReached` when a run holds a singleton key that
    another run has here; `UnsupportedCapability` for a store that takes nothing in.
    """
    moving = moving_store(store)
    clock = SystemClock() if clock is None else clock
    path = Path(file)
    if checked is None:
        checked = await check_export(path, progress=progress)
    imported = FileImported(
        at=clock.now(),
        file=path.name,
        sha256=checked.sha256,
        streams=checked.streams,
        events=checked.events,
        exported_at=checked.at,
        runs=checked.runs or (),
        by=by,
        reason=reason,
    )
    behind = Commit(
        id=uuid4().hex,
        stream=import_stream(checked.sha256),
        expected_version=NEW,
        events=(new_event(imported),),
    )
    async with _stopping() as stop:
        if checked.values:
            if (storage := storage_of(store)) is None:
                raise ExportError(
                    f"{path} holds {checked.values:,} large values, and nothing says where they are to lie: nothing was"
                    " imported. Say it with ?storage=PLACE behind the URL of the store (LargeValues(store, storage) in"
                    " a program)"
                )
            await asyncio.to_thread(_put_values, path, stop, storage)
        items = _items(path, stop, checked, progress)
        installed = await moving.install(items, behind=behind)
    return Imported(streams=installed.streams, events=installed.events, same=installed.same, export=checked)


@asynccontextmanager
async def _stopping() -> AsyncIterator[threading.Event]:
    """What breaks reading off when the block is left: a thread that reads does not hear of a cancellation."""
    stop = threading.Event()
    try:
        yield stop
    finally:
        stop.set()


def _check(path: Path, stop: threading.Event, progress: Told) -> CheckedExport:
    reader, looked, values = ExportReader(path, stop=stop), Looked(), _Values()
    parts = _told(reader, "checking", None, progress)
    try:
        for item in parts:
            if isinstance(item, ObjectHead | ObjectBytes):
                values.check(item, parts, looked.named)
            else:
                looked.take(item)
        looked.finish()
    except (NotInstallable, WrongObject) as error:
        raise reader.damaged(str(error)) from None
    assert reader.heading is not None
    assert reader.end is not None
    heading = reader.heading
    return CheckedExport(
        sha256=reader.end.sha256,
        streams=looked.arrivals.streams,
        events=looked.arrivals.events,
        version=heading.version,
        at=heading.at,
        store=heading.store,
        runs=heading.runs,
        parents=heading.parents,
        unfinished=looked.unfinished,
        values=len(values.keys),
        values_bytes=values.bytes,
        values_elsewhere=len(looked.named.by_key) - len(values.keys),
    )


class _Values:
    """The large values of a file, as they are read."""

    def __init__(self) -> None:
        self.keys: Final[set[str]] = set()
        self.bytes = 0

    def check(self, part: ObjectPart, rest: Iterator[Item | ObjectPart], named: Named) -> None:
        """One of them, with all of its bytes. Raises `WrongObject`."""
        if isinstance(part, ObjectBytes):
            raise WrongObject("bytes of a large value that was not announced, or more of them than it has")
        stored = named.by_key.get(part.key)
        if stored is None or stored.size != part.size:
            raise WrongObject(f"no event names an object {part.key[:100]!r} of {part.size:,} bytes")
        if part.key in self.keys:
            raise WrongObject(f"object {part.key} comes twice")
        self.keys.add(part.key)
        self.bytes += sum(map(len, bytes_of(part, rest)))


def _put_values(path: Path, stop: threading.Event, storage: BlockingStorage) -> None:
    """Write the large values of a file, which was checked, to a storage."""
    parts = iter(ExportReader(path, stop=stop))
    try:
        for part in parts:
            if isinstance(part, ObjectHead):
                storage.put(part.key, bytes_of(part, parts))
    except WrongObject as error:
        raise DamagedExport(f"{path} was replaced while it was imported ({error}): import it again") from error


def _items(path: Path, stop: threading.Event, checked: CheckedExport, progress: Told) -> Iterator[Item]:
    reader = ExportReader(path, stop=stop)
    for item in _told(reader, "installing", checked.events, progress):
        if not isinstance(item, ObjectHead | ObjectBytes):
            yield item
    if reader.end is None or reader.end.sha256 != checked.sha256:
        raise DamagedExport(f"{path} was replaced while it was imported: nothing was installed; try again")


def _told(
    reader: ExportReader, doing: Literal["checking", "installing"], total: int | None, progress: Told
) -> Iterator[Item | ObjectPart]:
    events = 0
    for item in reader:
        yield item
        if progress is not None and isinstance(item, RecordedEvent):
            events += 1
            if events % EVERY_EVENTS == 0:
                progress(MoveProgress(doing=doing, events=events, total=total))
