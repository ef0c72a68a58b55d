"""What a step reads, pinned: of each upstream asset the versions that are current when the step begins.

What is pinned is in the run's history, so that an attempt after a crash reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.assets.catalog import AssetView, Catalog, Version
from engine.assets.definitions import Definitions
from engine.assets.expanding import upstream_keys
from engine.assets.nodes import Input
from engine.assets.partitions import DynamicKeys
from engine.assets.plans import NAMED_VERSIONS, Pinned, PinnedVersion, StepRef, titled
from engine.assets.provenance import inputs_digest
from engine.errors import AssetError
from engine.storage import Stored

__all__ = ["INPUT_VERSIONS_MAX", "Pins"]

INPUT_VERSIONS_MAX: Final = 10_000
"""Partitions of one upstream asset that one step reads."""


class Pins:
    """Pins what one step reads. `missing`: what is upstream of it and not there."""

    def __init__(
        self,
        definitions: Definitions,
        step: StepRef,
        catalog: Catalog,
        views: Mapping[str, AssetView],
        dynamic: DynamicKeys,
    ) -> None:
        self._definitions = definitions
        self._step = step
        self._catalog = catalog
        self._views = views
        self._dynamic = dynamic
        self.missing: list[str] = []

    async def pin(self, each: Input) -> Pinned:
        """The versions of one upstream asset. Raises `AssetError` for more than can be read at once."""
        step, view = self._step, self._views[each.key]
        partitions = upstream_keys(each, step, self._dynamic)
        found = [(name, view.current(name)) for name in partitions]
        if not self._definitions.node_of(each.key).asset.external:
            self.missing += [titled(each.key, name) for name, version in found if version is None]
        reads = each.parameter is not None and not self.missing
        if reads and len(found) > INPUT_VERSIONS_MAX:
            raise AssetError(
                f"{step.title} would read {len(found):,} partitions of {each.key}, at most {INPUT_VERSIONS_MAX:,} are"
                " read at once: map it onto fewer, or name it in deps= and read it by yourself"
            )
        versions = [
            PinnedVersion(
                partition=name,
                version=version.version,
                data_version=version.data_version,
                stored=await self._stored(each.key, version) if reads else None,
            )
            for name, version in found
            if version is not None and (reads or len(found) <= NAMED_VERSIONS)
        ]
        return Pinned(
            key=each.key,
            environment=step.environment,
            as_of=view.own.as_of,
            partitions=str(partitions),
            count=len(found),
            digest=inputs_digest(view.versions(partitions)),
            slot=each.slot,
            versions=tuple(versions),
        )

    async def _stored(self, key: str, version: Version) -> Stored:
        stored = (await self._catalog.details(key, version)).stored
        if stored is None:
            raise AssetError(f"{key}@{version.version} has no value that could be read: its payload was destroyed")
        return msgspec.structs.replace(stored, schema=None)  # whoever reads it finds it in the file
