"""What the tasks of a materializing run do: pin what is read, hand it to the asset's function, check, publish.

Everything here may be done again after a crash. What is written lies under the digest of its content; what is said is
said into the asset's stream once, because whoever is about to say it looks first whether it was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec import structs

from engine.assets.appending import Appender
from engine.assets.bench import Bench
from engine.assets.catalog import Catalog, Version
from engine.assets.checks import HISTORY_VERSIONS_MAX, EarlierVersion
from engine.assets.definitions import Definitions
from engine.assets.dynamic import dynamic_names, read_dynamic
from engine.assets.environments import catalog_of
from engine.assets.events import AssetStarted, new_event
from engine.assets.keys import ASSET, ENVIRONMENT, asset_stream
from engine.assets.nodes import Node
from engine.assets.partitions import DynamicKeys
from engine.assets.pinning import Pins
from engine.assets.plans import Begun, Earlier, StepRef
from engine.assets.provenance import config_digest, provenance_of
from engine.errors import AssetError
from engine.storage import Column, Storage
from eventstore import Clock, EventStore, NewEvent, StreamNotFound

__all__ = ["Workshop"]

_LOOK_SECONDS: Final = 0.5
"""Between two looks whether another run is still making the same."""
_LOOKS_MAX: Final = 120
"""Looks of one attempt, which has a minute for them: it holds a slot meanwhile, and tells nobody that it lives."""
_ENDED: Final = "ended"
_GOING_ON: Final = {"paused": "`holdfast unpause`"}
"""What lets a held run go on; of a suspended one it depends on why."""


class Workshop(Bench):
    """Definitions on a store: one for all runs of an engine. What is said at the end of a step: see `publishing`."""

    def __init__(self, definitions: Definitions, store: EventStore, storage: Storage, clock: Clock) -> None:
        super().__init__(definitions, storage, clock)
        self.store = store
        self.dynamic_names = dynamic_names(node.partitions for node in definitions.nodes.values())
        self._dynamic: tuple[Mapping[str, int], DynamicKeys] = ({}, DynamicKeys())
        self._catalogs: dict[str, Catalog] = {}
        self._appenders: dict[str, Appender] = {}

    # -- what is known ------------------------------------------------------------------------------------------------

    async def catalog(self, environment: str) -> Catalog:
        """The catalog of an environment. Raises `AssetError` when there is none of that name."""
        found = self._catalogs.get(environment)
        if found is None:
            found = self._catalogs[environment] = await catalog_of(self.store, environment)
        return found

    async def dynamic(self, as_of: Mapping[str, int]) -> DynamicKeys:
        """The keys of dynamic partitions as they were. The last are kept: most steps are of one plan."""
        known, keys = self._dynamic
        if known != as_of:
            keys, _ = await read_dynamic(self.store, as_of)
            self._dynamic = as_of, keys
        return keys

    # -- beginning ----------------------------------------------------------------------------------------------------

    async def begin(self, step: StepRef, run_id: str) -> Begun:
        """Pin what the step reads; say that it has begun, unless it need not be made, or cannot be."""
        node = self.definitions.node_of(step.node)
        catalog = await self.catalog(step.environment)
        ended: set[str] = set()
        while True:
            begun = await self._pinned(node, step, catalog)
            if begun.unchanged or begun.missing:
                return begun
            other = await self._start(node, begun, catalog, run_id=run_id, ended=ended)
            if other is None:
                return begun
            if not other:
                continue
            standing = await self._standing(other)
            if not standing:
                return structs.replace(begun, busy=other, inputs=(), beside=(), earlier={})
            if standing != _ENDED:
                raise AssetError(
                    f"{step.title} is being made by run {other}, which is {standing}: let it go on"
                    f" ({_GOING_ON.get(standing, '`holdfast show`')}), or end it (`holdfast cancel`), and"
                    " materialize again"
                )
            ended.add(other)

    async def watch(self, other: str, steps: Sequence[StepRef]) -> tuple[str, ...]:
        """Wait until that run makes some of these no more, and say which, by title; none of them, if it takes long."""
        for look in range(_LOOKS_MAX):
            if look:
                await asyncio.sleep(_LOOK_SECONDS)  # it may be another process's: there is nothing to wait on here
            if await self._standing(other):
                return tuple(step.title for step in steps)
            free: list[str] = []
            places = dict.fromkeys((step.environment, step.node) for step in steps)
            states = {place: await (await self.catalog(place[0])).state(place[1]) for place in places}
            for step in steps:
                started = states[step.environment, step.node].of(step.partition).started
                if started is None or started.run != other:
                    free.append(step.title)
            if free:
                return tuple(free)
        return ()

    async def _pinned(self, node: Node, step: StepRef, catalog: Catalog) -> Begun:
        dynamic = await self.dynamic(step.dynamic_as_of)
        views = await catalog.view([*node.keys, *(each.key for each in (*node.inputs, *node.checked_against))])
        # From here on nothing is awaited until all is looked up: views are live, and other steps publish (see `Pins`).
        pins = Pins(self.definitions, step, views, dynamic)
        inputs = [pins.pin(each) for each in node.inputs]
        beside = [pins.pin(each) for each in node.checked_against]
        config = config_digest(self.config_of(node, step.config), node.asset.where)
        code = self.code_version(node)
        digests = {each.slot: each.digest for each in inputs}
        provenance = provenance_of(node.name, step.partition, code_version=code, config=config, inputs=digests)
        made = [views[key].made(step.partition) for key in node.keys]
        same = all(each is not None and each.provenance == provenance for each in made)
        before = {
            key: (views[key].current(step.partition), views[key].latest(HISTORY_VERSIONS_MAX)) for key in _curious(node)
        }
        begun = Begun(
            step=step,
            provenance=provenance,
            code_version=code,
            config=config,
            inputs=tuple(inputs),
            beside=tuple(beside),
            started_at=self.clock.now(),
            as_of=views[node.name].own.as_of,
            unchanged=same and not step.force and not node.asset.external,
            missing=tuple(pins.missing),
        )
        if begun.unchanged or begun.missing:
            return begun
        return structs.replace(
            begun,
            inputs=tuple([await pins.located(each, catalog) for each in inputs]),
            beside=tuple([await pins.located(each, catalog) for each in beside]),
            earlier={key: await _earlier(key, *found, catalog) for key, found in before.items()},
        )

    async def _start(
        self, node: Node, begun: Begun, catalog: Catalog, *, run_id: str, ended: Collection[str]
    ) -> str | None:
        """Say that the step has begun. Else the run that is making the same partition; "" when it was made since what
        is read was pinned.
        """
        state = catalog.known(node.name)  # the appender brings it up to now before it asks
        partition = begun.step.partition
        other: list[str] = []

        def decide() -> NewEvent | None:
            other.clear()
            part = state.of(partition)
            started = part.started
            if part.made is not None and part.made.version > begun.as_of and part.made.provenance == begun.provenance:
                other.append("")
                return None
            if started is not None and started.run == run_id and started.provenance == begun.provenance:
                return None
            if started is not None and started.run != run_id and started.run not in ended:
                other.append(started.run)
                return None
            event = AssetStarted(
                at=begun.started_at,
                partition=partition,
                run=run_id,
                provenance=begun.provenance,
                reasons=begun.step.reasons,
            )
            return new_event(event)

        await self.appender(node.name, catalog).append(partition, decide)
        return other[0] if other else None

    async def _standing(self, run_id: str) -> str:
        """Of a run that goes on by itself nothing, else that it has ended, or what holds it.

        It is asked each time: a person may reopen what has ended.
        """
        try:
            head = await self.store.head(f"run:{run_id}")
        except StreamNotFound:
            return _ENDED
        if head.closed:
            return _ENDED
        return str(head.attributes.get("status", "held")) if head.held else ""

    # -- saying -------------------------------------------------------------------------------------------------------

    def appender(self, key: str, catalog: Catalog) -> Appender:
        """What appends to the asset's stream in that environment."""
        stream = asset_stream(catalog.environment, key)
        found = self._appenders.get(stream)
        if found is None:

            async def refresh() -> int:
                return (await catalog.state(key)).as_of

            attributes = {ASSET: key, ENVIRONMENT: catalog.environment}
            found = self._appenders[stream] = Appender(self.store, stream, refresh, attributes=attributes)
        return found


async def _earlier(key: str, current: Version | None, latest: Sequence[Version], catalog: Catalog) -> Earlier:
    previous: EarlierVersion | None = None
    if current is not None:
        stored = (await catalog.details(key, current)).stored
        previous = _as_earlier(current, None if stored is None else stored.schema)
    return Earlier(previous=previous, history=tuple(_as_earlier(each, None) for each in latest))


def _curious(node: Node) -> list[str]:
    """Its assets some check of which asks for what was before."""
    return [key for key, checks in node.checks.items() if any(each.wiring.check_context for each in checks)]


def _as_earlier(version: Version, schema: tuple[Column, ...] | None) -> EarlierVersion:
    return EarlierVersion(
        version=version.version,
        partition=version.partition,
        at=version.at,
        data_version=version.data_version,
        rows=version.rows,
        schema=schema,
    )
