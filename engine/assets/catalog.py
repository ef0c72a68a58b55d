"""The catalog: what there is of each asset, folded from its stream. A projection: it can be thrown away at any time.

A `Catalog` looks at one environment. What a branch has not made itself is what the one that it branches off has.
Streams are read from where the last reading ended, so that asking again costs what has happened since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final

from msgspec import Struct

from engine.assets.events import (
    AssetEvent,
    AssetFailed,
    AssetObserved,
    AssetPublished,
    AssetReset,
    AssetRestored,
    AssetSkipped,
    AssetStarted,
    AssetUnchanged,
    Details,
    details_of,
    read_event,
)
from engine.assets.keys import PRODUCTION, asset_stream, check_environment
from engine.errors import AssetNotFound
from eventstore import EventStore, RecordedEvent, StreamNotFound

__all__ = ["AssetState", "Catalog", "PartitionState", "Version", "fold"]

_NOTHING: Final[Mapping[str, int]] = {}


class Version(Struct, frozen=True, kw_only=True):
    """A version of a partition that was published, or of an external asset that was observed."""

    version: int  # of its stream
    environment: str
    partition: str = ""
    at: int  # microseconds since the epoch
    data_version: str
    provenance: str = ""
    code_version: str = ""
    config: str = ""
    inputs: Mapping[str, str] = {}
    run: str = ""
    started_at: int = 0
    rows: int | None = None
    size: int | None = None
    warnings: int = 0


class PartitionState(Struct, kw_only=True):
    """How a partition stands."""

    current: Version | None = None
    made: Version | None = None  # what was published last: another than the current one if that was restored
    started: AssetStarted | None = None  # by a run that has said nothing of it since
    failed: AssetFailed | None = None  # if that is the last that was heard
    skipped: AssetSkipped | None = None  # likewise
    unchanged: AssetUnchanged | None = None  # the last time that it was looked at and not made, since it was published


class AssetState(Struct, kw_only=True):
    """How an asset stands, as of a version of its stream."""

    key: str
    environment: str
    as_of: int = 0
    partitions: dict[str, PartitionState] = {}
    published: dict[int, Version] = {}  # what may be restored

    def of(self, partition: str) -> PartitionState:
        """How one partition stands; empty for one that nothing was heard of."""
        return self.partitions.get(partition) or PartitionState()


def fold(state: AssetState, event: AssetEvent, version: int) -> None:
    """Take the next event of the stream."""
    state.as_of = version
    part = state.partitions.get(event.partition)
    if part is None:
        part = state.partitions[event.partition] = PartitionState()
    if not isinstance(event, AssetStarted) and part.started is not None and part.started.run == event.run:
        part.started = None  # what another run says of it ends nothing
    match event:
        case AssetStarted():
            part.started = event
        case AssetUnchanged():
            part.unchanged, part.failed, part.skipped = event, None, None
        case AssetFailed():
            part.failed, part.skipped = event, None
        case AssetSkipped():
            part.skipped = event
        case AssetRestored():
            restored = state.published.get(event.version, part.current)
            part.current, part.made = restored, part.made or restored
            part.failed = part.skipped = None
        case AssetPublished() | AssetObserved() | AssetReset():  # and AssetPromoted
            part.current = part.made = _version_of(event, version, state)
            part.failed = part.skipped = part.unchanged = None
        case _:
            pass  # of another kind of stream


def _version_of(event: AssetPublished | AssetObserved | AssetReset, version: int, state: AssetState) -> Version | None:
    """What is read from now on."""
    match event:
        case AssetPublished():
            found = state.published[version] = _version(event, version, state.environment)
            return found
        case AssetObserved():
            return Version(
                version=version,
                environment=state.environment,
                partition=event.partition,
                at=event.at,
                data_version=event.data_version,
                provenance=event.provenance,
                run=event.run,
            )
        case AssetReset():
            return None


class _Looks:
    """Looks at one stream. Whoever asks while others look shares the first look that begins after that."""

    __slots__ = ("begun", "done", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.begun = 0
        self.done = 0  # the last that came to its end


class Catalog:
    """What there is in an environment. `base`: what it branches off."""

    def __init__(self, store: EventStore, environment: str = PRODUCTION, *, base: Catalog | None = None) -> None:
        self.store = store
        self.environment = check_environment(environment)
        self.base = base
        self._known: dict[str, AssetState] = {}
        self._looks: dict[str, _Looks] = {}

    def known(self, key: str) -> AssetState:
        """What `state` returns, as far as it was read: always the same object, which is brought up to now in place."""
        state = self._known.get(key)
        if state is None:
            state = self._known[key] = AssetState(key=key, environment=self.environment, partitions={}, published={})
            self._looks[key] = _Looks()
        return state

    async def state(self, key: str) -> AssetState:
        """The asset as it stands in this environment alone, brought up to now."""
        state, looks = self.known(key), self._looks[key]
        asked = looks.begun
        async with looks.lock:
            if looks.done > asked:
                return state
            looks.begun = look = looks.begun + 1
            try:
                async for recorded in self.store.read(asset_stream(self.environment, key), after=state.as_of):
                    fold(state, read_event(recorded), recorded.version)
            except StreamNotFound:
                pass
            looks.done = look
        return state

    async def view(self, keys: Iterable[str]) -> dict[str, AssetView]:
        """Assets as they stand here, with what this environment shares, brought up to now."""
        return {key: AssetView(await self._layers(key)) for key in keys}

    async def _layers(self, key: str) -> tuple[AssetState, ...]:
        own = await self.state(key)
        return (own,) if self.base is None else (own, *await self.base._layers(key))

    async def details(self, key: str, version: Version) -> Details:
        """What people read of a version."""
        return details_of(await self.recorded(key, version.version, environment=version.environment))

    async def recorded(self, key: str, version: int, *, environment: str | None = None) -> RecordedEvent:
        """An event of an asset's stream. Raises `AssetNotFound`."""
        stream = asset_stream(environment or self.environment, key)
        try:
            async for recorded in self.store.read(stream, after=version - 1, until=version):
                return recorded
        except StreamNotFound:
            pass
        raise AssetNotFound(f"{key}@{version}: there is no such version in {environment or self.environment}")


class AssetView:
    """An asset in an environment and what that branches off: the first that has made a partition says how it stands."""

    __slots__ = ("layers",)

    def __init__(self, layers: tuple[AssetState, ...]) -> None:
        self.layers = layers

    @property
    def own(self) -> AssetState:
        """As it stands in the environment itself."""
        return self.layers[0]

    def current(self, partition: str) -> Version | None:
        """The version that is read."""
        for layer in self.layers:
            found = layer.partitions.get(partition)
            if found is not None and found.current is not None:
                return found.current
        return None

    def made(self, partition: str) -> Version | None:
        """The version that was made last, of the layer that is read: what code and inputs of now are compared with.

        An earlier version that was restored stays until what it would be made from changes once more.
        """
        for layer in self.layers:
            found = layer.partitions.get(partition)
            if found is not None and found.current is not None:
                return found.made
        return None

    def latest(self, count: int) -> list[Version]:
        """The versions that were published last, of all partitions, the latest first."""
        each = (islice(reversed(layer.published.values()), count) for layer in self.layers)
        return sorted(chain.from_iterable(each), key=lambda version: version.at, reverse=True)[:count]

    def versions(self, partitions: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Of these partitions the data versions that are read; "" for one that is not there."""
        for name in partitions:
            version = self.current(name)
            yield name, "" if version is None else version.data_version

    def all_failed(self) -> Iterator[str]:
        """The partitions of which the last that was heard, in the environment itself, is that they were not made."""
        return (partition for partition, state in self.own.partitions.items() if state.failed is not None)

    def known(self) -> set[str]:
        """The partitions that anything was heard of."""
        return {partition for layer in self.layers for partition in layer.partitions}


def _version(event: AssetPublished, version: int, environment: str) -> Version:
    return Version(
        version=version,
        environment=environment,
        partition=event.partition,
        at=event.at,
        data_version=event.data_version,
        provenance=event.provenance,
        code_version=event.code_version,
        config=event.config,
        inputs=event.inputs,
        run=event.run,
        started_at=event.started_at,
        rows=event.rows,
        size=event.size,
        warnings=event.warnings,
    )
