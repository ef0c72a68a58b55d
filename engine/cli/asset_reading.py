"""`assets`, and what `asset` shows: how assets stand, their versions, and what tells two versions apart."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from engine.assets import AssetPublished, AssetRef, VersionDetails, parse_reference, reference_text
from engine.cli.asset_desk import Desk
from engine.cli.asset_tables import assets_table, summary_document, version_document, versions_table
from engine.cli.problems import Exit, Problem
from engine.cli.readable import instant
from engine.cli.tracing import with_partition
from engine.cli.version_views import diff_view, version_view

__all__ = ["list_assets", "list_versions", "show_diff", "show_version"]


async def list_assets(desk: Desk, select: tuple[str, ...], environment: str) -> Exit:
    """A row for each asset."""
    found = await desk.assets.overview(*select, environment=environment)
    if desk.output.json:
        desk.output.document({"environment": environment, "assets": [summary_document(each) for each in found]})
    else:
        desk.output.show(assets_table(found, now=desk.clock.now()))
    return Exit.COMPLETED


async def show_version(desk: Desk, text: str, partition: str, environment: str) -> Exit:
    """All that is recorded of a version."""
    found = await _version(desk, with_partition(text, partition), environment)
    if desk.output.json:
        desk.output.document(_document(found))
    else:
        desk.output.show(version_view(found))
    return Exit.COMPLETED


async def list_versions(desk: Desk, text: str, partition: str, environment: str, limit: int) -> Exit:
    """The versions of an asset, or of a partition."""
    ref = with_partition(text, partition)
    desk.assets.definitions.node_of(ref.key)
    view = (await (await desk.assets.catalog(environment)).view([ref.key]))[ref.key]
    every = [
        version
        for layer in view.layers
        for version in layer.published.values()
        if not ref.partition or version.partition == ref.partition
    ]
    if not every:  # one that is observed has the last one alone
        every = [version for name in view.known() if (version := view.current(name)) is not None]
    found = sorted(every, key=lambda version: (version.at, version.version), reverse=True)
    current = {id(version) for version in found if _is_current(version, view.current(version.partition))}
    if desk.output.json:
        rows = [{**version_document(each), "current": id(each) in current} for each in found[:limit]]
        desk.output.document({"asset": ref.key, "environment": environment, "count": len(found), "versions": rows})
    elif not found:
        named = reference_text(ref.key, ref.partition)
        desk.output.line(f"{named} has no version in {environment}: nothing was published, or observed")
    else:
        desk.output.show(versions_table(found[:limit], current, more=len(found) - limit))
    return Exit.COMPLETED


def _is_current(version: Any, current: Any) -> bool:
    return current is not None and (version.environment, version.version) == (current.environment, current.version)


async def show_diff(desk: Desk, text: str, other: str | None, environment: str) -> Exit:
    """What tells two versions apart."""
    old = await _version(desk, parse_reference(text), environment)
    if other is not None:
        new = await _version(desk, parse_reference(other), environment)
    else:
        old, new = await _beside(desk, old, environment)
    if old.key != new.key:
        raise Problem(f"{old.title} and {new.title} are of two assets")
    found = await desk.assets.diff(old, new)
    if desk.output.json:
        document = to_builtins(found)
        document["old"], document["new"] = _document(found.old), _document(found.new)
        desk.output.document(document)
    else:
        desk.output.show(diff_view(found))
    return Exit.COMPLETED


async def _beside(desk: Desk, named: VersionDetails, environment: str) -> tuple[VersionDetails, VersionDetails]:
    """The version that is named and the current one; of the current one, that before it and itself."""
    current = await _version(desk, AssetRef(key=named.key, partition=named.partition), environment)
    if (current.environment, current.version) != (named.environment, named.version):
        return named, current
    view = (await (await desk.assets.catalog(environment)).view([named.key]))[named.key]
    earlier = [
        version
        for layer in view.layers
        for version in layer.published.values()
        if version.partition == named.partition and version.at < named.event.at
    ]
    if not earlier:
        raise Problem(f"{named.title} is the only version there is; there is nothing to hold it against")
    before = max(earlier, key=lambda version: version.at)
    return await desk.assets.version(named.key, before.version, environment=before.environment), named


async def _version(desk: Desk, ref: AssetRef, environment: str) -> VersionDetails:
    return await desk.assets.version(ref.key, ref.version, partition=ref.partition, environment=environment)


def _document(found: VersionDetails) -> dict[str, Any]:
    event: dict[str, Any] = to_builtins(found.event)
    started = found.event.started_at if isinstance(found.event, AssetPublished) else 0
    return {
        "asset": found.key,
        "partition": found.partition,
        "environment": found.environment,
        "version": found.version,
        **{name: value for name, value in event.items() if name not in {"at", "started_at", "partition"}},
        "at": instant(found.event.at),
        "started_at": instant(started or None),
        **to_builtins(found.details),
    }
