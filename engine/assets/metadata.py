"""What is said of an asset beside its value: plain scalars, times, and a few kinds that are not shown as text.

Everything here is JSON in an event, and comes back as what it was. What authors have at hand is made one of these:
numbers of numpy are numbers, lists and dicts are `Json`, and what is a text to everybody (paths, decimals, UUIDs) is
text. Nobody loses a value that took an hour because of what was to be said of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any, Final, TypeAlias
from uuid import UUID

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
    value = _plain(value)
    if value is not None and not isinstance(value, _KINDS):
        raise AssetError(
            f"{where} is {type(value).__name__}; give text, a number, a truth value, a date or time, Link, Markdown, or"
            " Json(...) for anything else that is JSON"
        )
    try:
        msgspec.json.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise AssetError(f"{where} cannot be written as JSON: {error}") from None
    return value


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and type(value).__module__.partition(".")[0] == "numpy":
        value = value.item()
    match value:
        case date() | datetime():
            return Moment(value.isoformat())
        case float() if not isfinite(value):
            return str(value)  # JSON has no NaN
        case Enum():
            return _plain(value.value)
        case dict() | list() | tuple():
            return Json(value)
        case Decimal() | PurePath() | UUID() | timedelta():
            return str(value)
        case _:
            return value
