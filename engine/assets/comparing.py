"""What tells two versions of an asset apart: columns, rows, metadata, what they were made from, and their values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, to_builtins

from engine.assets.catalog import Catalog
from engine.assets.events import AssetObserved, AssetPublished, Details, details_of, read_event
from engine.assets.references import reference_text
from engine.errors import AssetError, AssetNotFound
from engine.storage import Column, Storage, Stored
from eventstore import RecordedEvent

__all__ = ["Change", "RowChanges", "VersionDetails", "VersionDiff", "compare", "version_details"]

_VERSIONS: Final = (AssetPublished, AssetObserved)
CHANGES_MAX: Final = 200
"""Places in plain values that are named."""


class VersionDetails(Struct, frozen=True, kw_only=True):
    """A version of an asset with all that is recorded of it."""

    key: str
    partition: str
    environment: str
    version: int
    event: AssetPublished | AssetObserved
    details: Details

    @property
    def title(self) -> str:
        """As messages call it."""
        return reference_text(self.key, self.partition, self.version)


class Change(Struct, frozen=True, kw_only=True):
    """One place where two versions differ: what it was, and what it is; None where there is nothing."""

    place: str
    old: Any = None
    new: Any = None


class RowChanges(Struct, frozen=True, kw_only=True):
    """Rows that one table has more than another, and a sample of each."""

    added: int
    removed: int
    added_rows: tuple[Mapping[str, Any], ...] = ()
    removed_rows: tuple[Mapping[str, Any], ...] = ()


class VersionDiff(Struct, frozen=True, kw_only=True):
    """What tells `new` from `old`."""

    old: VersionDetails
    new: VersionDetails
    same_data: bool
    code_changed: bool
    columns: tuple[Change, ...] = ()
    metadata: tuple[Change, ...] = ()
    config: tuple[Change, ...] = ()
    inputs: tuple[Change, ...] = ()  # by upstream key, the versions, or when they stood
    rows: RowChanges | None = None  # of tables that differ
    values: tuple[Change, ...] = ()  # of plain values that differ
    not_compared: str = ""  # why the values were not


async def version_details(catalog: Catalog, key: str, version: int, *, within: str = "") -> VersionDetails:
    """A version in the environment, or in what it branches off; of `within` alone, if that is said. Raises
    `AssetNotFound`.
    """
    layer: Catalog | None = catalog
    while layer is not None:
        found = await _in_layer(layer, key, version) if within in {"", layer.environment} else None
        if found is not None:
            return found
        layer = layer.base
    raise AssetNotFound(f"{key}@{version} is no version of it in {catalog.environment}")


async def _in_layer(layer: Catalog, key: str, version: int) -> VersionDetails | None:
    try:
        recorded = await layer.recorded(key, version)
    except AssetNotFound:
        return None
    event = read_event(recorded)
    return _details(key, layer.environment, recorded, event) if isinstance(event, _VERSIONS) else None


def _details(
    key: str, environment: str, recorded: RecordedEvent, event: AssetPublished | AssetObserved
) -> VersionDetails:
    return VersionDetails(
        key=key,
        partition=event.partition,
        environment=environment,
        version=recorded.version,
        event=event,
        details=details_of(recorded),
    )


async def compare(old: VersionDetails, new: VersionDetails, storage: Storage) -> VersionDiff:
    """What tells them apart; their values are read only if they differ. Blocking work is done in a thread."""
    first, second = old.details, new.details
    same = old.event.data_version == new.event.data_version
    rows, values, why = (None, (), "") if same else await _values(first.stored, second.stored, storage)
    return VersionDiff(
        old=old,
        new=new,
        same_data=same,
        code_changed=_code(old) != _code(new),
        columns=_changes(_columns(first.stored), _columns(second.stored)),
        metadata=_changes(to_builtins(first.metadata), to_builtins(second.metadata)),
        config=_changes(first.config, second.config),
        inputs=_changes(_inputs(first), _inputs(second)),
        rows=rows,
        values=values,
        not_compared=why,
    )


def _code(version: VersionDetails) -> str:
    return version.event.code_version if isinstance(version.event, AssetPublished) else ""


def _columns(stored: Stored | None) -> dict[str, str]:
    schema: Sequence[Column] = () if stored is None or stored.schema is None else stored.schema
    return {each.name: each.type + ("" if each.nullable else ", not null") for each in schema}


def _inputs(details: Details) -> dict[str, str]:
    """By upstream asset and partition, the version; of many partitions at once, when they stood."""
    found = {}
    for up in details.upstream:
        for each in up.versions:
            found[reference_text(up.key, each.partition)] = f"@{each.version}"
        if not up.versions:
            found[up.key] = f"{up.count:,} partitions as of @{up.as_of} ({up.digest[:8]})"
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    return tuple(
        Change(place=name, old=old.get(name), new=new.get(name))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )


async def _values(
    old: Stored | None, new: Stored | None, storage: Storage
) -> tuple[RowChanges | None, tuple[Change, ...], str]:
    """Rows or values that differ, or why that is not known."""
    if old is None or new is None:
        return None, (), "there is no stored value of one of them"
    if old.format != new.format:
        return None, (), f"one is {old.format}, the other {new.format}"
    match new.format:
        case "parquet":
            return await _tables(old, new, storage)
        case "json" | "text":
            first, second = await storage.read(old), await storage.read(new)
            return None, tuple(_differences(first, second)), ""
        case _:
            return None, (), f"what is stored as {new.format} is not looked into"


async def _tables(old: Stored, new: Stored, storage: Storage) -> tuple[RowChanges | None, tuple[Change, ...], str]:
    from engine.assets.row_diff import compare_rows  # noqa: PLC0415 - only who has pyarrow

    common = [name for name, type_ in _columns(old).items() if _columns(new).get(name) == type_]
    if not common:
        return None, (), "they have no column in common"
    try:
        return await asyncio.to_thread(compare_rows, storage.blocking, old, new, common), (), ""
    except AssetError as error:
        return None, (), str(error)


def _differences(old: Any, new: Any) -> Iterator[Change]:
    """Places where two plain values differ, the first CHANGES_MAX of them."""
    waiting: list[tuple[str, Any, Any]] = [("", old, new)]
    told = 0
    while waiting and told < CHANGES_MAX:
        place, first, second = waiting.pop()
        if first == second and type(first) is type(second):
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            names = list(dict.fromkeys([*first, *second]))
            parts = [(f"{place}.{name}" if place else str(name), first.get(name), second.get(name)) for name in names]
            waiting += reversed(parts)
        elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
            waiting += reversed([(f"{place}[{at}]", *pair) for at, pair in enumerate(zip(first, second, strict=True))])
        else:
            told += 1
            yield Change(place=place or "(value)", old=first, new=second)
