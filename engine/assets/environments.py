"""Environments: branches of the catalog. What a branch has not made itself is what its base has, without a copy.

What it has made itself hides what its base makes later, as a branch of code does, until it is made anew, promoted, or
`reset`. `promote` makes versions of a branch the current ones of its base without computing them again, and `restore`
an earlier version the current one; all three are a person's, and say who and why.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict

from engine.assets.appending import BATCH_EVENTS_MAX
from engine.assets.catalog import Catalog, Version
from engine.assets.events import (
    AssetPromoted,
    AssetPublished,
    AssetReset,
    AssetRestored,
    EnvironmentCreated,
    details_of,
    new_event,
    read_event,
)
from engine.assets.keys import (
    ASSET,
    ENVIRONMENT,
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

__all__ = [
    "Environment",
    "Promotion",
    "catalog_of",
    "create_environment",
    "list_environments",
    "promote",
    "reset",
    "restore",
]

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
    """What was promoted, or reset: of a key, a partition and a version of the branch."""

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
    """Make what a branch has made of these assets current in its base, without computing it again.

    What it shares with the base stays. What was made from versions of the branch that are not promoted, too, is stale
    in the base: promote these with it. Raises `AssetError` for production.
    """
    catalog = await catalog_of(store, environment)
    if catalog.base is None:
        raise AssetError(f"{environment!r} branches off nothing that it could be promoted to")
    promoted: list[Promotion] = []
    for key in keys:
        promoted += await _promote(catalog, catalog.base, key, clock=clock, by=by, reason=reason)
    return promoted


async def reset(
    store: EventStore, environment: str, keys: Iterable[str], *, clock: Clock, by: str = "", reason: str = ""
) -> list[Promotion]:
    """Let what a branch has of these assets no longer count, so that what its base has is read again.

    What it made stays in its log, and can be restored. Raises `AssetError` for production.
    """
    catalog = await catalog_of(store, environment)
    if catalog.base is None:
        raise AssetError(f"{environment!r} branches off nothing that it could be reset to")
    changed: list[Promotion] = []
    for key in keys:
        while True:
            state = await catalog.state(key)
            versions = [part.current for part in state.partitions.values() if part.current][:BATCH_EVENTS_MAX]
            if not versions:
                break
            at = clock.now()
            events = [new_event(AssetReset(at=at, partition=each.partition, by=by, reason=reason)) for each in versions]
            with suppress(VersionConflict):  # somebody was quicker: look again
                await _append(catalog, key, state.as_of, events)
                changed += [_promotion(key, each) for each in versions]
    return changed


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
            await _append(catalog, key, state.as_of, [new_event(event)])
        except VersionConflict:
            continue
        return found


# ------------------------------------------------------------------------------------------------ how


async def _promote(branch: Catalog, base: Catalog, key: str, *, clock: Clock, by: str, reason: str) -> list[Promotion]:
    """One asset, a batch of partitions at a time: what is promoted already is found so, and passed over."""
    promoted: list[Promotion] = []
    while True:
        ours, theirs = await branch.state(key), (await base.view([key]))[key]
        versions = [
            part.current
            for partition, part in ours.partitions.items()
            if part.current is not None
            and part.current.version in ours.published  # and not only observed
            and not _is_there(part.current, theirs.current(partition))
        ][:BATCH_EVENTS_MAX]
        if not versions:
            return promoted
        at = clock.now()
        events = [await _promoted(branch, key, version, at=at, by=by, reason=reason) for version in versions]
        try:
            await _append(base, key, theirs.own.as_of, events)
        except VersionConflict:
            continue
        promoted += [_promotion(key, each) for each in versions]


def _promotion(key: str, version: Version) -> Promotion:
    return Promotion(key=key, partition=version.partition, version=version.version, data_version=version.data_version)


def _is_there(version: Version, other: Version | None) -> bool:
    """Whether the base has it: made from the same, and with the same content."""
    return other is not None and (other.provenance, other.data_version) == (version.provenance, version.data_version)


async def _promoted(branch: Catalog, key: str, version: Version, *, at: int, by: str, reason: str) -> NewEvent:
    recorded = await branch.recorded(key, version.version)
    published = read_event(recorded)
    known = {name: value for name, value in asdict(published).items() if name in _KEPT}
    event = AssetPromoted(
        **known,
        at=at,
        environment=branch.environment,
        version=version.version,
        by=by,
        reason=reason,
    )
    return new_event(event, details_of(recorded))


_KEPT: Final = frozenset(AssetPublished.__struct_fields__) - {"at"}
"""Also what is added to a publication later; when it was promoted is said anew."""


async def _append(catalog: Catalog, key: str, as_of: int, events: Sequence[NewEvent]) -> None:
    """Append to an asset's stream. Raises `VersionConflict` when somebody was quicker."""
    stream = asset_stream(catalog.environment, key)
    await catalog.store.commit(
        Commit(
            id=secrets.token_hex(16),
            stream=stream,
            expected_version=as_of or NEW,
            events=tuple(events),
            attributes={ASSET: key, ENVIRONMENT: catalog.environment},
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
