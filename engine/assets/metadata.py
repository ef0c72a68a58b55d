"""What is said of an asset beside its value: plain scalars, times, and a few kinds that are shown otherwise than as text.

Everything here is JSON in an event, and comes back as what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from engine.errors import AssetError

__all__ = [
    "METADATA_BYTES_MAX",
    "METADATA_ENTRIES_MAX",
    "Json",
    "Link",
    "Markdown",
    "Metadata",
    "MetadataValue",
    "Moment",
    "checked_metadata",
]

METADATA_ENTRIES_MAX: Final = 100
METADATA_BYTES_MAX: Final = 65_536
"""Of all metadata of one version, as JSON."""


class Link(Struct, frozen=True, tag="link"):
    """A URL, or a path."""

    url: str
    text: str = ""


class Markdown(Struct, frozen=True, tag="markdown"):
    """Text that is shown as Markdown where that can be."""

    text: str


class Json(Struct, frozen=True, tag="json"):
    """Any JSON value."""

    value: Any


class Moment(Struct, frozen=True, tag="moment"):
    """A date or a time, in ISO 8601. Made of `date` and `datetime` by itself."""

    iso: str


MetadataValue: TypeAlias = str | int | float | bool | Link | Markdown | Json | Moment | None
Metadata: TypeAlias = Mapping[str, MetadataValue]

_KINDS: Final = (str, int, float, bool, Link, Markdown, Json, Moment)


def checked_metadata(given: Mapping[str, Any], where: str) -> dict[str, MetadataValue]:
    """The metadata as it is recorded. Raises `AssetError`, naming `where` and the entry, for what it cannot be."""
    if len(given) > METADATA_ENTRIES_MAX:
        raise AssetError(f"{where}: {len(given)} entries of metadata; at most {METADATA_ENTRIES_MAX}")
    checked = {_name(name, where): _value(value, f"{where}: metadata {name!r}") for name, value in given.items()}
    size = len(msgspec.json.encode(checked))
    if size > METADATA_BYTES_MAX:
        raise AssetError(
            f"{where}: {size:,} bytes of metadata, at most {METADATA_BYTES_MAX:,}: write what is large as an asset, or"
            " link to it"
        )
    return checked


def _name(name: object, where: str) -> str:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise AssetError(f"{where}: {name!r} cannot name an entry of metadata: printable text, not empty")
    return name


def _value(value: Any, where: str) -> MetadataValue:
    if isinstance(value, date | datetime):
        return Moment(value.isoformat())
    if value is not None and not isinstance(value, _KINDS):
        raise AssetError(
            f"{where} is {type(value).__name__}; give text, a number, a truth value, a date or time, Link, Markdown, or"
            " Json(...) for anything else that is JSON"
        )
    try:
        msgspec.json.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise AssetError(f"{where} cannot be written as JSON: {error}") from None
    return value
