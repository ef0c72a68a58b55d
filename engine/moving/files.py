"""The file itself: written durably and whole or not at all, read by the line in bounded memory.

What is read is believed by nobody before the end was reached: only the last line tells that nothing is missing. What is
wrong is a `DamagedExport` that names the line; a file that never was one of these is an `ExportError`.
"""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct

from engine.errors import DamagedExport, ExportError
from engine.moving.form import FORM, End, Heading, decode_line, encode, item_of, line_of
from engine.moving.limits import LINE_BYTES_MAX
from engine.moving.objects import ObjectBytes, ObjectHead, ObjectPart
from engine.storage import sync_folder
from eventstore import RecordedEvent
from eventstore.moving import Item, StoredStream

__all__ = ["ExportReader", "ExportWriter", "refuse_existing"]

_COMPRESSION: Final = 6
_LOOK_LINES: Final = 1_000  # between two looks whether reading is to stop
_MAGIC: Final = b"\x1f\x8b"


class ExportWriter:
    """Writes one file: `finish` puts it where it belongs, `abandon` leaves nothing. Blocks; for a thread."""

    def __init__(self, path: Path, heading: Heading) -> None:
        """Raises `ExportError` when there is such a file already, `OSError`."""
        refuse_existing(path)
        self._path: Final = path
        self._beside: Final = path.with_name(f".{path.name}.{uuid4().hex}")
        descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file: Final = os.fdopen(descriptor, "wb")
        self._gzip: Final = gzip.GzipFile("", "wb", _COMPRESSION, self._file, mtime=0)
        self._digest: Final = sha256()
        self.streams = 0
        self._put(encode(heading) + b"\n")

    def write(self, items: Iterable[Item | ObjectPart]) -> None:
        """The next items, at once; objects come last, one by one."""
        lines: list[bytes] = []
        for item in items:
            self.streams += isinstance(item, StoredStream)
            lines.append(encode(line_of(item)) + b"\n")
        self._put(b"".join(lines))

    def write_object(self, parts: Iterable[ObjectPart]) -> None:
        """An object, by the part."""
        for part in parts:
            self.write((part,))

    def finish(self, *, events: int) -> str:
        """The last line; then the file is there, durably. Its digest. Raises `ExportError`, `OSError`."""
        digest = self._digest.hexdigest()
        self._gzip.write(encode(End(streams=self.streams, events=events, sha256=digest)) + b"\n")
        self._gzip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            os.link(self._beside, self._path)  # unlike a rename it never takes another's place
        except FileExistsError:
            refuse_existing(self._path)
            raise
        self._beside.unlink()
        sync_folder(self._path.parent)
        return digest

    def abandon(self) -> None:
        """Leave nothing of what is not finished."""
        with suppress(OSError):  # what cannot be written is not wanted
            self._gzip.close()  # else it writes its end when it is collected
        with suppress(OSError):
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._gzip.write(data)


def refuse_existing(path: Path) -> None:
    """Raise `ExportError` when there is such a file. Blocks."""
    if path.exists():
        raise ExportError(f"{path} is there already, and is left as it is: name another file")


class _Counts(Struct):
    streams: int = 0
    events: int = 0
    objects: int = 0  # lines of objects


class ExportReader:
    """Reads one file from its beginning to its end, once. `stop` breaks it off, from whatever thread."""

    def __init__(self, path: Path, *, stop: threading.Event) -> None:
        self._path: Final = path
        self._stop: Final = stop
        self._digest: Final = sha256()
        self.line = 0
        self.heading: Heading | None = None
        self.end: End | None = None

    def __iter__(self) -> Iterator[Item | ObjectPart]:
        """Its items, and then the parts of objects. Raises `ExportError`, `DamagedExport`, `OSError`."""
        counts = _Counts()
        for data in self._lines():
            if self.end is not None:
                raise self.damaged("something stands behind the last line")
            if self.heading is None:
                self.heading = self._read_heading(data)
                continue
            item = self._read(data)
            if isinstance(item, End):
                self._check_end(item, counts)
                continue
            self._digest.update(data)
            if isinstance(item, ObjectHead | ObjectBytes):
                counts.objects += 1
            elif counts.objects:
                raise self.damaged("it stands behind large values, where none of its kind can be")
            counts.streams += isinstance(item, StoredStream)
            counts.events += isinstance(item, RecordedEvent)
            yield item
        if self.heading is None:
            raise ExportError(f"{self._path} is empty: it is no file that holdfast export has written")
        if self.end is None:
            raise self.damaged("the last line is missing: the file was cut off")

    def damaged(self, what: str) -> DamagedExport:
        """The error that says so."""
        return DamagedExport(f"{self._path}, line {self.line}: {what}")

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as raw:
            if raw.read(2) != _MAGIC:
                raise ExportError(f"{self._path} is no gzip file, and so none that holdfast export has written")
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as file:
                while data := self._read_line(file):
                    self.line += 1
                    if len(data) > LINE_BYTES_MAX:
                        raise self.damaged(f"it is longer than {LINE_BYTES_MAX:,} bytes")
                    if self.line % _LOOK_LINES == 0 and self._stop.is_set():
                        raise ExportError(f"{self._path}: reading was broken off at line {self.line:,}")
                    yield data

    def _read_line(self, file: gzip.GzipFile) -> bytes:
        try:
            return file.readline(LINE_BYTES_MAX + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.line += 1
            raise self.damaged(f"the file was cut off or changed ({error})") from None

    def _read_heading(self, data: bytes) -> Heading:
        self._digest.update(data)
        said: _Kind = self._decoded(data, lambda: msgspec.json.decode(data, type=_Kind))
        if said.holdfast != "export":
            raise ExportError(
                f"{self._path} is no file that holdfast export --out has written (it says {said.holdfast!r})"
            )
        if said.form != FORM:
            raise ExportError(
                f"{self._path} has form {said.form}, this version knows form {FORM}: it was written by another version"
                " of holdfast; use that, or a newer one"
            )
        heading: Heading = self._decoded(data, lambda: msgspec.json.decode(data, type=Heading))
        return heading

    def _read(self, data: bytes) -> Item | ObjectPart | End:
        item: Item | ObjectPart | End = self._decoded(data, lambda: item_of(decode_line(data)))
        return item

    def _decoded(self, data: bytes, decode: Any) -> Any:
        if not data.endswith(b"\n"):
            raise self.damaged("it was cut off")
        try:
            return decode()
        except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
            raise self.damaged(f"it is none of these files' ({error})") from None

    def _check_end(self, end: End, counts: _Counts) -> None:
        if end.sha256 != self._digest.hexdigest():
            raise self.damaged("the lines before it are not those that were written: the file was changed")
        if (end.streams, end.events) != (counts.streams, counts.events):
            raise self.damaged(
                f"it counts {end.streams:,} streams and {end.events:,} events, and others stand before it"
            )
        self.end = end


class _Kind(Struct):
    """What a file says it is, whatever its form."""

    holdfast: str
    form: int
