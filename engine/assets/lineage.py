"""Lineage: from a version to all that made it, or to all that was made from it, across runs.

It goes by exact versions: a version names those that it was made from, one by one while they are few; of many it says
as of when they stood in the stream, which is read again to that point, and whether that gives what was recorded is told
(`exact`). Bounded: at most `NODES_MAX` versions, of which the nearest come first; a version that was seen is not
followed twice, so that nothing goes in circles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from engine.assets.catalog import AssetState, Catalog, fold
from engine.assets.definitions import Definitions
from engine.assets.events import (
    AssetEvent,
    AssetObserved,
    AssetPromoted,
    AssetPublished,
    Upstream,
    details_of,
    read_event,
)
from engine.assets.keys import ASSET_CATEGORY, asset_stream, key_of
from engine.assets.nodes import asset_in
from engine.assets.partitions import DynamicKeys
from engine.assets.planner import moment
from engine.assets.provenance import inputs_digest
from engine.assets.references import reference_text
from engine.errors import AssetError, AssetNotFound, PartitionError
from eventstore import RecordedEvent, StreamNotFound, StreamQuery, find_all

__all__ = ["Direction", "Lineage", "LineageEdge", "LineageVersion", "Tracing", "mermaid"]

Direction: TypeAlias = Literal["up", "down"]

NODES_MAX: Final = 1_000
"""Versions that one answer holds."""
READ_MAX: Final = 500_000
"""Versions of assets that are looked at for one answer downwards."""
_CACHED: Final = 5_000


class LineageVersion(Struct, frozen=True, kw_only=True):
    """A version in a lineage."""

    id: str  # "prod:orders[2026-01]@17"
    key: str
    partition: str
    environment: str
    version: int
    kind: str  # "published", "promoted", "observed"
    at: int  # microseconds since the epoch
    run: str = ""
    rows: int | None = None
    data_version: str = ""
    code_version: str = ""
    depth: int = 0  # steps from the one that was asked for

    @property
    def title(self) -> str:
        """As messages call it."""
        return reference_text(self.key, self.partition, self.version)


class LineageEdge(Struct, frozen=True, kw_only=True):
    """That one version was made from another; the ids of both. `exact`: what was read again is what was recorded."""

    upstream: str
    downstream: str
    exact: bool = True


class Lineage(Struct, frozen=True, kw_only=True):
    """A version, and all that made it ("up"), or was made from it ("down"). `left_out`: how many did not fit in."""

    root: str
    direction: Direction
    versions: tuple[LineageVersion, ...]
    edges: tuple[LineageEdge, ...]
    left_out: int = 0


class _At(Struct, frozen=True):
    """Where a version stands."""

    environment: str
    key: str
    version: int


class Tracing:
    """Traces lineages in a catalog. `dynamic`: the keys of dynamic partitions, as they are now."""

    def __init__(self, catalog: Catalog, definitions: Definitions, dynamic: DynamicKeys) -> None:
        self._catalog = catalog
        self._definitions = definitions
        self._dynamic = dynamic
        self._layers = _layers(catalog)
        self._events: dict[_At, tuple[AssetEvent, RecordedEvent] | None] = {}
        self._parents: dict[_At, list[tuple[_At, bool]]] = {}

    async def trace(
        self,
        key: str,
        version: int,
        direction: Direction,
        *,
        within: str = "",
        depth: int | None = None,
        versions_max: int = NODES_MAX,
    ) -> Lineage:
        """The lineage of a version of an asset in the environment, or in what it branches off; of `within` alone, if
        that is said. Raises `AssetNotFound`.
        """
        root = await self._at(key, version, (within,) if within else self._layers)
        if root is None:
            raise AssetNotFound(f"{key}@{version} is no version of it in {self._catalog.environment}")
        consumers = await self._consumers(key) if direction == "down" else {}
        found: dict[_At, LineageVersion] = {}
        edges: dict[tuple[_At, _At], bool] = {}
        left_out: set[_At] = set()
        waiting = deque([(root, 0)])
        queued = {root}
        while waiting:
            at, steps = waiting.popleft()
            found[at] = await self._described(at, steps)
            if depth is not None and steps >= depth:
                continue
            near = await (self._made_from(at) if direction == "up" else self._made_of(at, found[at], consumers))
            for other, exact in near:
                if other in queued or len(queued) < versions_max:
                    edges[(other, at) if direction == "up" else (at, other)] = exact
                else:
                    left_out.add(other)
                if other not in queued and len(queued) < versions_max:
                    queued.add(other)
                    waiting.append((other, steps + 1))
        return Lineage(
            root=_id(root, found[root].partition),
            direction=direction,
            versions=tuple(found.values()),
            edges=tuple(
                LineageEdge(upstream=found[up].id, downstream=found[down].id, exact=exact)
                for (up, down), exact in edges.items()
            ),
            left_out=len(left_out),
        )

    # -- one version --------------------------------------------------------------------------------------------------

    async def _event(self, at: _At) -> tuple[AssetEvent, RecordedEvent] | None:
        """A version's event; None if there is no version there."""
        if at not in self._events:
            if len(self._events) > _CACHED:
                self._events.clear()
            self._events[at] = await self._read(at)
        return self._events[at]

    async def _read(self, at: _At) -> tuple[AssetEvent, RecordedEvent] | None:
        try:
            recorded = await self._catalog.recorded(at.key, at.version, environment=at.environment)
        except AssetNotFound:
            return None
        event = read_event(recorded)
        return (event, recorded) if isinstance(event, AssetPublished | AssetObserved) else None

    async def _at(self, key: str, version: int, environments: Iterable[str], data_version: str = "") -> _At | None:
        """The first of these environments that has this version, with that content."""
        for environment in environments:
            at = _At(environment, key, version)
            found = await self._event(at)
            if found is not None and (not data_version or _data_version(found[0]) == data_version):
                return at
        return None

    async def _described(self, at: _At, depth: int) -> LineageVersion:
        found = await self._event(at)
        assert found is not None
        event, _ = found
        published = event if isinstance(event, AssetPublished) else None
        kind = {AssetPromoted: "promoted", AssetObserved: "observed"}.get(type(event), "published")
        return LineageVersion(
            id=_id(at, event.partition),
            key=at.key,
            partition=event.partition,
            environment=at.environment,
            version=at.version,
            kind=kind,
            at=event.at,
            run=event.run,
            rows=None if published is None else published.rows,
            data_version=_data_version(event),
            code_version="" if published is None else published.code_version,
            depth=depth,
        )

    # -- up -----------------------------------------------------------------------------------------------------------

    async def _made_from(self, at: _At) -> list[tuple[_At, bool]]:
        if at not in self._parents:
            if len(self._parents) > _CACHED:
                self._parents.clear()
            self._parents[at] = [each for up in await self._upstream(at) for each in await self._named(up, at)]
        return self._parents[at]

    async def _upstream(self, at: _At) -> tuple[Upstream, ...]:
        found = await self._event(at)
        return () if found is None else details_of(found[1]).upstream

    async def _named(self, up: Upstream, at: _At) -> list[tuple[_At, bool]]:
        layers = self._from(up.environment or at.environment)
        if not up.versions and up.count:
            return await self._stood(up, at, layers)
        named = []
        for each in up.versions:
            other = await self._at(up.key, each.version, layers, each.data_version) if each.version else None
            if other is not None:
                named.append((other, True))
        return named

    async def _stood(self, up: Upstream, at: _At, layers: tuple[str, ...]) -> list[tuple[_At, bool]]:
        """The versions that stood in the stream when the step began, read again to that point."""
        found = await self._event(at)
        began = found[0].started_at if found is not None and isinstance(found[0], AssetPublished) else 0
        states = [
            await self._state(environment, up.key, until=up.as_of if index == 0 else None, before=began)
            for index, environment in enumerate(layers)
        ]
        known = list(dict.fromkeys(name for state in states for name in state.partitions))
        names = self._partitions(up, known, began)
        currents = {
            name: next((now for state in states if (now := state.of(name).current) is not None), None) for name in names
        }
        digest = inputs_digest((name, "" if now is None else now.data_version) for name, now in currents.items())
        exact = digest == up.digest
        return [(_At(now.environment, up.key, now.version), exact) for now in currents.values() if now is not None]

    def _partitions(self, up: Upstream, known: list[str], at: int) -> list[str]:
        """The names that the recorded set means; all that were known, if the definition does not have them any more."""
        try:
            there = self._definitions.node_of(up.key).partitions.keys(self._dynamic, now=moment(at))
            return list(there.parse(up.partitions) if up.partitions else there)
        except (AssetError, PartitionError):
            return known

    async def _state(self, environment: str, key: str, *, until: int | None, before: int) -> AssetState:
        state = AssetState(key=key, environment=environment)
        try:
            async for recorded in self._catalog.store.read(asset_stream(environment, key), until=until):
                event = read_event(recorded)
                if until is None and event.at > before:
                    break
                fold(state, event, recorded.version)
        except StreamNotFound:
            pass
        return state

    def _from(self, environment: str) -> tuple[str, ...]:
        """An environment and what it branches off, as far as that is known here."""
        if environment not in self._layers:
            return (environment, *self._layers)
        return self._layers[self._layers.index(environment) :]

    # -- down ---------------------------------------------------------------------------------------------------------

    async def _consumers(self, key: str) -> dict[str, list[tuple[int, _At]]]:
        """By key, when which versions were made from any of its versions: of what is downstream of an asset."""
        definitions = self._definitions
        known = set(definitions.specs)
        node = definitions.node_of(key).name if key in known else None
        below = set() if node is None else definitions.graph.below([node])
        within = {each for name in below for each in definitions.nodes[name].keys}
        consumers: dict[str, list[tuple[int, _At]]] = {}
        read = 0
        async for head in find_all(self._catalog.store, StreamQuery(category=ASSET_CATEGORY, newest_first=False)):
            environment, own = key_of(head.stream)
            if own in known and own not in within and node is not None:
                continue
            async for recorded in self._catalog.store.read(head.stream):
                event = read_event(recorded)
                if not isinstance(event, AssetPublished):
                    continue
                read += 1
                if read > READ_MAX:
                    raise AssetError(f"more than {READ_MAX:,} versions lie downstream of {key}: ask for a nearer asset")
                for other in dict.fromkeys(map(asset_in, event.inputs)):
                    consumers.setdefault(other, []).append((event.at, _At(environment, own, recorded.version)))
        return consumers

    async def _made_of(
        self, at: _At, described: LineageVersion, consumers: Mapping[str, list[tuple[int, _At]]]
    ) -> list[tuple[_At, bool]]:
        made = []
        for when, consumer in consumers.get(at.key, ()):
            if when < described.at:
                continue
            for other, exact in await self._made_from(consumer):
                if other == at:
                    made.append((consumer, exact))
        return made


def _layers(catalog: Catalog) -> tuple[str, ...]:
    return (catalog.environment,) if catalog.base is None else (catalog.environment, *_layers(catalog.base))


def _id(at: _At, partition: str) -> str:
    return f"{at.environment}:{reference_text(at.key, partition, at.version)}"


def _data_version(event: AssetEvent) -> str:
    return event.data_version if isinstance(event, AssetPublished | AssetObserved) else ""


def mermaid(lineage: Lineage) -> str:
    """The lineage as a flowchart in Mermaid's words, upstream on the left."""
    names = {each.id: f"v{index}" for index, each in enumerate(lineage.versions)}
    lines = ["flowchart LR"]
    for each in lineage.versions:
        label = each.title.replace('"', "#quot;")
        rows = "" if each.rows is None else f"<br/>{each.rows:,} rows"
        shape = f'[("{label}{rows}")]' if each.kind == "observed" else f'["{label}{rows}"]'
        lines.append(f"    {names[each.id]}{shape}")
    for edge in lineage.edges:
        arrow = "-->" if edge.exact else "-.->"
        lines.append(f"    {names[edge.upstream]} {arrow} {names[edge.downstream]}")
    lines.append(f"    style {names[lineage.root]} stroke-width:3px")
    return "\n".join(lines) + "\n"
