"""Environments: branches of the catalog. What a branch has not made itself is what its base has, without a copy.

`promote` makes versions of a branch the current ones of its base without computing them again, and `restore` an earlier
version the current one; both are a person's, and say who and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict

from engine.assets.catalog import Catalog, Version
from engine.assets.events import (
    AssetPromoted,
    AssetPublished,
    AssetRestored,
    EnvironmentCreated,
    details_of,
    new_event,
    read_event,
)
from engine.assets.keys import (
    ENVIRONMENT_CATEGORY,
    PRODUCTION,
    asset_stream,
    check_environment,
    environment_stream,
)
from engine.errors import AssetError, AssetNotFound
from eventstore import (
    NEW,
    Clock,
    Commit,
    EventStore,
    NewEvent,
    StreamNotFound,
    StreamQuery,
    VersionConflict,
    find_all,
)

__all__ = ["Environment", "Promotion", "catalog_of", "create_environment", "list_environments", "promote", "restore"]

DEPTH_MAX: Final = 8
"""Branches of branches."""


class Environment(Struct, frozen=True, kw_only=True):
    """A branch, and what it branches off."""

    name: str
    base: str  # "" of production
    at: int = 0
    by: str = ""
    reason: str = ""


class Promotion(Struct, frozen=True, kw_only=True):
    """What was promoted, or would be: of a key, a partition and a version of the branch."""

    key: str
    partition: str
    version: int
    data_version: str


async def create_environment(
    store: EventStore, name: str, *, clock: Clock, base: str = PRODUCTION, by: str = "", reason: str = ""
) -> Environment:
    """Make a branch. One that is there, with the same base, is left as it is.

    Raises `AssetError` when it is there with another base, or there is no such base.
    """
    check_environment(name)
    if name == PRODUCTION:
        raise AssetError(f"{PRODUCTION!r} is what others branch off; it is always there")
    depth = len(await _bases(store, base))
    if depth >= DEPTH_MAX:
        raise AssetError(f"{base!r} is {depth} branches deep; at most {DEPTH_MAX}")
    event = EnvironmentCreated(at=clock.now(), base=base, by=by, reason=reason)
    stream = environment_stream(name)
    commit = Commit(id=f"create:{stream}:{event.at}", stream=stream, expected_version=NEW, events=(new_event(event),))
    try:
        await store.commit(commit)
    except VersionConflict:
        found = await _environment(store, name)
        if found.base != base:
            raise AssetError(f"the environment {name!r} is there, and branches off {found.base!r}") from None
        return found
    return Environment(name=name, base=base, at=event.at, by=by, reason=reason)


async def list_environments(store: EventStore) -> list[Environment]:
    """All environments, production first."""
    every = find_all(store, StreamQuery(category=ENVIRONMENT_CATEGORY, newest_first=False))
    branches = [await _environment(store, head.stream.partition(":")[2]) async for head in every]
    return [Environment(name=PRODUCTION, base=""), *branches]


async def catalog_of(store: EventStore, environment: str) -> Catalog:
    """The catalog of an environment. Raises `AssetError` when there is none of that name."""
    chain = await _bases(store, check_environment(environment))
    catalog: Catalog | None = None
    for name in reversed(chain):
        catalog = Catalog(store, name, base=catalog)
    return catalog if catalog is not None else Catalog(store)


async def promote(
    store: EventStore, environment: str, keys: Iterable[str], *, clock: Clock, by: str = "", reason: str = ""
) -> list[Promotion]:
    """Make what a branch has made of these assets current in its base, upstream first. What it shares stays.

    Raises `AssetError` for production, and for what was made from versions of the branch that are not current in the
    base and are not promoted with it: name these, too.
    """
    catalog = await catalog_of(store, environment)
    if catalog.base is None:
        raise AssetError(f"{environment!r} branches off nothing that it could be promoted to")
    promoted: list[Promotion] = []
    for key in keys:
        promoted += await _promote(catalog, catalog.base, key, clock=clock, by=by, reason=reason)
    return promoted


async def restore(
    store: EventStore,
    environment: str,
    key: str,
    version: int,
    *,
    clock: Clock,
    by: str = "",
    reason: str = "",
) -> Version:
    """Make an earlier version of a partition the current one again. Raises `AssetNotFound`, if it is none."""
    catalog = await catalog_of(store, environment)
    while True:
        state = await catalog.state(key)
        found = state.published.get(version)
        if found is None:
            raise AssetNotFound(f"{key}@{version} is no version of it that was published in {environment}")
        event = AssetRestored(at=clock.now(), partition=found.partition, version=version, by=by, reason=reason)
        try:
            await _append(store, catalog.environment, key, state.as_of, [new_event(event)], event.at)
        except VersionConflict:
            continue
        return found


# ------------------------------------------------------------------------------------------------ how


async def _promote(branch: Catalog, base: Catalog, key: str, *, clock: Clock, by: str, reason: str) -> list[Promotion]:
    while True:
        ours, theirs = await branch.state(key), await base.state(key)
        events: list[NewEvent] = []
        found: list[Promotion] = []
        at = clock.now()
        for partition, part in ours.partitions.items():
            version = part.current
            there = theirs.of(partition).current
            if version is None or (there is not None and there.provenance == version.provenance):
                continue
            recorded = await branch.recorded(key, version.version)
            published = read_event(recorded)
            if not isinstance(published, AssetPublished):
                continue
            said = {name: value for name, value in asdict(published).items() if name in _KEPT}
            event = AssetPromoted(
                **said, at=at, environment=branch.environment, version=version.version, by=by, reason=reason
            )
            events.append(new_event(event, details_of(recorded)))
            found.append(
                Promotion(key=key, partition=partition, version=version.version, data_version=version.data_version)
            )
        if not events:
            return []
        try:
            await _append(branch.store, base.environment, key, theirs.as_of, events, at)
        except VersionConflict:
            continue
        return found


_KEPT: Final = frozenset(
    [
        "partition",
        "run",
        "code_version",
        "data_version",
        "provenance",
        "inputs",
        "config",
        "started_at",
        "rows",
        "size",
        "warnings",
    ]
)


async def _append(store: EventStore, environment: str, key: str, as_of: int, events: list[NewEvent], at: int) -> None:
    stream = asset_stream(environment, key)
    await store.commit(
        Commit(
            id=f"{stream}:{as_of}:{at}",
            stream=stream,
            expected_version=as_of or NEW,
            events=tuple(events),
            attributes={"asset": key, "environment": environment},
        )
    )


async def _bases(store: EventStore, name: str) -> list[str]:
    chain = [name]
    while chain[-1] != PRODUCTION:
        chain.append((await _environment(store, chain[-1])).base)
    return chain


async def _environment(store: EventStore, name: str) -> Environment:
    try:
        async for recorded in store.read(environment_stream(name), until=1):
            event = read_event(recorded)
            if isinstance(event, EnvironmentCreated):
                return Environment(name=name, base=event.base, at=event.at, by=event.by, reason=event.reason)
    except StreamNotFound:
        pass
    raise AssetError(f"there is no environment {name!r}: make it with `holdfast environment create {name}`")
