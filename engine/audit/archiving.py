"""An archive of a store: its events and its runs as Parquet files, for DuckDB and whatever else reads those.

::

    archive/
        events/000000000000.parquet    the first EVENTS_OF_PART events of the log, in commit order
        events/000000100000.parquet    the next ones; the number is that of the events before
        runs/runs.parquet              a row for each run, as it stands now
        archive.json                   which log it is of, and up to where

In bounded memory, and idempotent: a full part is never written again, the last one is, while it is not full, and `runs`
is written anew each time. A file is there whole, or as it was. What was destroyed in the store before it was archived
is null here; what is destroyed later stays in parts that are full: whoever must forget removes them, and archives
again. An event that was pruned before it was archived is a row without header and payload; one that is pruned later
stays as it was archived, also in the last part, whose rows are taken over.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import Struct, structs

from engine import Engine, RunSummary
from engine.audit.pruned import Leaf, leaves
from engine.errors import AuditError, StorageUnavailable
from engine.storage import Column, each_parquet_row, make_folder, parquet_file, whole_file
from eventstore import EventStore, KeptDigest

__all__ = ["EVENTS_OF_PART", "EVENT_COLUMNS", "RUN_COLUMNS", "Archived", "archive"]

EVENTS_OF_PART: Final = 100_000
"""Events of one file."""
_BATCH: Final = 2_000
"""Rows that are held at once."""
_BATCH_BYTES: Final = 32 << 20
"""Bytes of headers and payloads that end a batch before it has that many rows."""
_STATE: Final = "archive.json"

EVENT_COLUMNS: Final = (
    Column("position", "int64", nullable=False),  # in the whole log; rises, and may skip
    Column("stream", "string", nullable=False),  # "run:nightly-1"
    Column("run", "string"),  # the run's id, of a run's stream
    Column("version", "int64", nullable=False),  # in its stream, from 1
    Column("type", "string"),  # "TaskCompleted"
    Column("stamped_at", "timestamp[us, UTC]"),  # as the engine stamped it
    Column("id", "string"),  # of the task, timer, child ... that it is about
    Column("header", "string"),  # JSON, as stored; null of an event that was pruned before it was archived
    Column("payload", "string"),  # JSON, as stored; null without one, or when it was destroyed, or is no text
    Column("salt", "binary"),  # with header, payload and digests all that it takes to verify
    Column("payload_digest", "binary"),  # null likewise
    Column("digest", "binary", nullable=False),
)
RUN_COLUMNS: Final = (
    Column("id", "string", nullable=False),
    Column("workflow", "string", nullable=False),
    Column("workflow_version", "string"),
    Column("status", "string", nullable=False),
    Column("version", "int64", nullable=False),  # events in its history
    Column("created_at", "timestamp[us, UTC]", nullable=False),
    Column("updated_at", "timestamp[us, UTC]", nullable=False),
    Column("parent", "string"),  # ids of other runs
    Column("origin", "string"),
    Column("suspended_for", "string"),
    Column("singleton", "string"),
)


class Archived(Struct, frozen=True):
    """What an archive holds now."""

    events: int
    new_events: int  # that were not in it before
    parts: int  # files of events
    written: int  # of these, files that were written now
    runs: int


class _Header(Struct):
    type: str | None = None
    at: int | None = None
    id: str | None = None


async def archive(
    store: EventStore, folder: Path, *, progress: Callable[[int], None] = lambda _events: None
) -> Archived:
    """Bring an archive up to date; the folder is made if it is not there. `progress` is told how many events it holds.

    Others may write meanwhile: what is archived is the log as it was when the reading began. Raises `AuditError` for a
    folder that holds another log's archive, or one with a part missing; what the store raises; `StorageRefused` without
    the extra ``assets``, `StorageUnavailable` when files cannot be written.
    """
    with _alone(folder):
        known = await asyncio.to_thread(_prepared, folder)
        parts = _Parts(folder / "events", known)
        try:
            async with aclosing(_batches(store, after=max(0, known.position - 1))) as batches:
                async for batch in batches:
                    await asyncio.to_thread(parts.add, _checked(batch, parts, known, folder))
                    progress(parts.total)
            parts.check_end(known, folder)
            await asyncio.to_thread(parts.close)
        except BaseException as error:
            parts.give_up(error)
            raise
        await asyncio.to_thread(_write_state, folder, parts.state())
        return Archived(
            events=parts.total,
            new_events=parts.total - known.total,
            parts=-(-parts.total // EVENTS_OF_PART),
            written=parts.written,
            runs=await _write_runs(store, folder / "runs" / "runs.parquet"),
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder, and holds it: two that archive into it at once would take away each other's files."""
    try:
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _no_archive(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AuditError(f"another process archives into {folder} just now: try again when it has ended") from error
    finally:
        os.close(descriptor)


def _no_archive(folder: Path, error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"{folder} cannot be an archive: {error}")


class _State(Struct, omit_defaults=True):
    """What `archive.json` says: which log, and the last event of the last full part, from where reading goes on."""

    first: str = ""  # digest of the log's first event
    events: int = 0  # in full parts
    position: int = 0  # of the last of them
    digest: str = ""
    total: int = 0  # in all parts


def _prepared(folder: Path) -> _State:
    """What is there. Raises `AuditError`, `StorageUnavailable`."""
    try:
        for each in ("events", "runs"):
            make_folder(folder / each)
        patterns = ("events/.*.parquet.*", "runs/.*.parquet.*", f".{_STATE}*")
        for left in [path for pattern in patterns for path in folder.glob(pattern)]:  # by a crash
            left.unlink()
    except OSError as error:
        raise _no_archive(folder, error) from error
    try:
        state = msgspec.json.decode((folder / _STATE).read_bytes(), type=_State)
    except FileNotFoundError:
        return _State()
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{folder / _STATE} cannot be read ({error}): remove it, and all is archived anew") from error
    for number in range(0, state.total, EVENTS_OF_PART):
        path = _part(folder / "events", number)
        if not path.is_file():
            raise AuditError(f"{path} is not there any more: remove {folder / _STATE}, and all is archived anew")
    return state


def _write_state(folder: Path, state: _State) -> None:
    """Last, and at once: until then the parts that were written are written again."""
    with whole_file(folder / _STATE) as file:
        file.write(msgspec.json.encode(state) + b"\n")


def _checked(batch: list[Leaf], parts: _Parts, known: _State, folder: Path) -> list[Leaf]:
    """What is new of the first events that are read. Raises `AuditError` when they are not what was archived."""
    if parts.checked:
        return batch
    parts.checked = True
    first = batch[0]
    if not known.events:
        if known.first not in {"", first.digest.hex()}:
            raise _of_another_log(folder)
        parts.first = first.digest.hex()
        return batch
    if (first.position, first.digest.hex()) != (known.position, known.digest):
        raise _of_another_log(folder)
    return batch[1:]


def _of_another_log(folder: Path) -> AuditError:
    return AuditError(
        f"{folder} is the archive of another log, or this log is not what was archived (holdfast verify says more):"
        " archive to another folder"
    )


def _part(folder: Path, events_before: int) -> Path:
    return folder / f"{events_before:012}.parquet"


class _Parts:
    """Writes events from the first that is in no full part."""

    def __init__(self, folder: Path, known: _State) -> None:
        self.checked = False  # that it is the same log
        self.first = known.first
        self.total = known.events
        self.written = 0
        self._full = known
        self._folder = folder
        self._part: ExitStack | None = None
        self._rows: Any = None
        self._before = _Before(_part(folder, known.events) if known.total > known.events else None)

    def add(self, batch: list[Leaf]) -> None:
        """The next events. Blocks."""
        try:
            while batch:
                if self._part is None:
                    self._part = ExitStack()
                    self._rows = self._part.enter_context(parquet_file(_part(self._folder, self.total), EVENT_COLUMNS))
                    self.written += 1
                room = EVENTS_OF_PART - self.total % EVENTS_OF_PART
                taken, batch = batch[:room], batch[room:]
                self._rows.write(_columns_of(map(self._before.row_of, taken)))
                self.total += len(taken)
                if self.total % EVENTS_OF_PART == 0:
                    self.close()
                    last = taken[-1]
                    self._full = _State(events=self.total, position=last.position, digest=last.digest.hex())
        except BaseException as error:
            self.give_up(error)
            raise

    def give_up(self, error: BaseException) -> None:
        """The part that was begun is not to be."""
        part, self._part = self._part, None
        if part is not None:
            with suppress(Exception):  # the error that it gives way to is on its way already
                part.__exit__(type(error), error, error.__traceback__)

    def close(self) -> None:
        """The part is whole, full or not. Blocks."""
        part, self._part = self._part, None
        if part is not None:
            part.close()

    def check_end(self, known: _State, folder: Path) -> None:
        """Raise `AuditError` when the log is shorter than what was archived of it."""
        if self.total < known.total or (known.events and not self.checked):
            raise _of_another_log(folder)

    def state(self) -> _State:
        """What is to be known the next time."""
        return structs.replace(self._full, first=self.first, total=self.total)


class _Before:
    """The rows of the last part, as it was: it is written anew, and what was pruned since is taken over."""

    def __init__(self, path: Path | None) -> None:
        self._rows = iter(()) if path is None else each_parquet_row(path)
        self._row: dict[str, Any] | None = None

    def row_of(self, leaf: Leaf) -> dict[str, Any]:
        """What is to be archived of it; asked for in the order of positions. Blocks."""
        return (self._archived(leaf) if isinstance(leaf, KeptDigest) else None) or _row_of(leaf)

    def _archived(self, kept: KeptDigest) -> dict[str, Any] | None:
        while self._row is None or self._row["position"] < kept.position:
            self._row = next(self._rows, None)
            if self._row is None:
                return None
        return self._row if (self._row["position"], self._row["digest"]) == (kept.position, kept.digest) else None


async def _batches(store: EventStore, *, after: int) -> AsyncGenerator[list[Leaf], None]:
    batch: list[Leaf] = []
    size = 0
    log = cast("AsyncGenerator[Leaf, None]", leaves(store, after=after))
    async with aclosing(log):
        async for leaf in log:
            batch.append(leaf)
            size += 0 if isinstance(leaf, KeptDigest) else len(leaf.header) + len(leaf.payload or b"")
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _columns_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {column.name: [] for column in EVENT_COLUMNS}
    for row in rows:
        for column, values in columns.items():
            values.append(row.get(column))
    return columns


def _row_of(leaf: Leaf) -> dict[str, Any]:
    category, _, name = leaf.stream.partition(":")
    row: dict[str, Any] = {
        "position": leaf.position,
        "stream": leaf.stream,
        "run": name if category == "run" else None,
        "version": leaf.version,
        "digest": leaf.digest,
    }
    if isinstance(leaf, KeptDigest):
        return row
    header = _header_of(leaf.header)
    return row | {
        "type": header.type,
        "stamped_at": header.at,
        "id": header.id,
        "header": leaf.header.decode("utf-8", "replace"),
        "payload": _text(leaf.payload),
        "salt": leaf.salt,
        "payload_digest": leaf.payload_digest,
    }


def _header_of(header: bytes) -> _Header:
    try:
        return msgspec.json.decode(header, type=_Header)
    except (ValueError, RecursionError):  # another's event, in a stream of theirs
        return _Header()


def _text(payload: bytes | None) -> str | None:
    try:
        return None if payload is None else payload.decode()
    except UnicodeDecodeError:
        return None


async def _write_runs(store: EventStore, path: Path) -> int:
    count = 0
    with parquet_file(path, RUN_COLUMNS) as rows:
        async with Engine(store) as client:
            cursor: str | None = None
            while True:
                page = await client.runs(limit=1_000, cursor=cursor, newest_first=False)
                if page.items:
                    await asyncio.to_thread(rows.write, _columns_of_runs(page.items))
                count += len(page.items)
                cursor = page.next
                if cursor is None:
                    return count


def _columns_of_runs(runs: Iterable[RunSummary]) -> dict[str, list[Any]]:
    def said(value: Any) -> Any:
        return None if value == "" else value

    listed = list(runs)
    return {column.name: [said(getattr(run, column.name)) for run in listed] for column in RUN_COLUMNS}
