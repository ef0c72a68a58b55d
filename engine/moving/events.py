"""What moving leaves in a log: who took what out, who brought what in, when and why. Additive change only.

Each export and each import has a stream of its own, ``export:<id>`` and ``import:<digest of the file>``.
`tests/moving/wire.json` has the bytes of the events.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from eventstore import NewEvent

__all__ = ["ExportBegun", "ExportWritten", "FileImported", "MovingEvent", "export_stream", "import_stream", "new_event"]


class _Event(Struct, frozen=True, tag_field="type", kw_only=True, omit_defaults=True):
    at: int  # microseconds since the epoch


class ExportBegun(_Event, frozen=True, tag="ExportBegun", kw_only=True):
    """Runs, or the whole store, are to be written into a file, with what their payloads say."""

    file: str  # its name, without the path
    runs: tuple[str, ...] = ()  # empty: the whole store
    by: str = ""
    reason: str = ""


class ExportWritten(_Event, frozen=True, tag="ExportWritten", kw_only=True):
    """The file is written. `sha256` is the digest in its last line."""

    sha256: str
    streams: int
    events: int


class FileImported(_Event, frozen=True, tag="FileImported", kw_only=True):
    """A file was taken in: this event and everything in the file, together."""

    file: str  # its name, without the path
    sha256: str  # the digest in its last line
    streams: int  # how many it holds, with those that were here already
    events: int
    exported_at: int  # microseconds since the epoch
    runs: tuple[str, ...] = ()  # empty: a whole store
    by: str = ""
    reason: str = ""


MovingEvent: TypeAlias = ExportBegun | ExportWritten | FileImported
_encoder: Final = msgspec.json.Encoder()


def export_stream(id_: str) -> str:
    """The stream of one export."""
    return f"export:{id_}"


def import_stream(sha256: str) -> str:
    """The stream of the import of that file."""
    return f"import:{sha256}"


def new_event(event: MovingEvent) -> NewEvent:
    """The event as the store takes it."""
    return NewEvent(_encoder.encode(event))
