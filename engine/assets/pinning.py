"""What a step reads, pinned: of each upstream asset the versions that are current when the step begins.

What is pinned is in the run's history, so that an attempt after a crash reads the same. It is looked up without a wait
in between: other steps publish meanwhile, and a step must not read one version and go down as made from the next.
Where the values are stored is asked for afterwards, of those versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from engine.assets.catalog import AssetView, Catalog, Version
from engine.assets.definitions import Definitions
from engine.assets.nodes import Input
from engine.assets.partitions import DynamicKeys
from engine.assets.planner import moment
from engine.assets.plans import NAMED_VERSIONS, Pinned, PinnedVersion, StepRef
from engine.assets.provenance import inputs_digest
from engine.assets.references import reference_text
from engine.errors import AssetError
from engine.storage import Stored

__all__ = ["INPUT_VERSIONS_MAX", "Pins"]

INPUT_VERSIONS_MAX: Final = 10_000
"""Partitions of one upstream asset that one step reads."""


class Pins:
    """Pins what one step reads. `missing`: what is upstream of it and not there."""

    def __init__(
        self, definitions: Definitions, step: StepRef, views: Mapping[str, AssetView], dynamic: DynamicKeys
    ) -> None:
        self._definitions = definitions
        self._step = step
        self._views = views
        self._dynamic = dynamic
        self._read: dict[tuple[str, str], Version] = {}  # by slot and partition: whose values are to be located
        self.missing: list[str] = []

    def pin(self, each: Input) -> Pinned:
        """The versions of one upstream asset. Raises `AssetError` for more than can be read at once."""
        step, view = self._step, self._views[each.key]
        partitions = each.upstream_of(step.partition, self._dynamic, now=moment(step.at))
        found = [(name, view.current(name)) for name in partitions]
        if not self._definitions.node_of(each.key).asset.external:
            self.missing += [reference_text(each.key, name) for name, version in found if version is None]
        reads = each.parameter is not None and not self.missing
        if reads and len(found) > INPUT_VERSIONS_MAX:
            raise AssetError(
                f"{step.title} would read {len(found):,} partitions of {each.key}, at most {INPUT_VERSIONS_MAX:,} are"
                " read at once: map it onto fewer, or name it in deps= and read it by yourself"
            )
        named = [(name, version) for name, version in found if version is not None]
        if reads:
            self._read.update(((each.slot, name), version) for name, version in named)
        return Pinned(
            key=each.key,
            environment=step.environment,
            as_of=view.own.as_of,
            partitions=str(partitions),
            count=len(found),
            digest=inputs_digest(view.versions(partitions)),
            slot=each.slot,
            versions=tuple(
                PinnedVersion(partition=name, version=version.version, data_version=version.data_version)
                for name, version in named
                if reads or len(found) <= NAMED_VERSIONS
            ),
        )

    async def located(self, pinned: Pinned, catalog: Catalog) -> Pinned:
        """With where the values are that the step reads. Raises `AssetError` for one that was destroyed."""
        versions = [
            replace(each, stored=await _stored(catalog, pinned.key, version))
            if (version := self._read.get((pinned.slot, each.partition))) is not None
            else each
            for each in pinned.versions
        ]
        return replace(pinned, versions=tuple(versions))


async def _stored(catalog: Catalog, key: str, version: Version) -> Stored:
    stored = (await catalog.details(key, version)).stored
    if stored is None:
        raise AssetError(f"{key}@{version.version} has no value that could be read: its payload was destroyed")
    return replace(stored, schema=None)  # whoever reads it finds it in the file
