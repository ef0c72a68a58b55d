"""`Assets`: definitions on a store, as a program uses them: plan, materialize, look.

It has no engine of its own. Its workflow is given to one, beside others::

    store = await open_store("sqlite:///shop.db")
    assets = Assets(definitions, store)
    async with Engine(store, workflows=assets.workflows, storage=assets.storage) as engine:
        plan = await assets.plan("orders+")
        run = await engine.start(assets.materialize(plan))
        report = await run.result()
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec.structs import replace
from tenacity import retry_if_not_exception_type, stop_after_attempt, wait_random_exponential

from engine import Task, TaskOptions, Workflow, attempt
from engine.assets import dynamic
from engine.assets import environments as branches
from engine.assets.catalog import Catalog, Version
from engine.assets.comparing import VersionDetails, VersionDiff, compare, version_details
from engine.assets.definitions import Definitions
from engine.assets.events import CheckOutcome
from engine.assets.key_sets import KeySet
from engine.assets.keys import PRODUCTION
from engine.assets.lineage import Direction, Lineage, Tracing
from engine.assets.making import check_task, make_task
from engine.assets.materializing import Hands, materialize_workflow
from engine.assets.overview import AssetSummary, summaries
from engine.assets.planner import Facts, make_plan, moment
from engine.assets.plans import Begun, Made, Plan, Report, Request, StepRef
from engine.assets.provenance import config_digest
from engine.assets.publishing import fail, leave, publish, skip
from engine.assets.references import reference_text
from engine.assets.selection import World, select
from engine.assets.why import Why, why_of
from engine.assets.workshop import Workshop
from engine.errors import AssetError, AssetNotFound, HoldfastError
from engine.storage import Storage
from eventstore import Clock, EventStore, SystemClock

__all__ = ["Assets"]

_TRIES = TaskOptions(
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.1, max=5),
    retry=retry_if_not_exception_type(HoldfastError),
)
"""For tasks that only ask and tell the store: it may be away for a moment. What cannot be so is not tried again."""


class Assets:
    """Definitions on a store. `storage`: where values lie; what the definitions say if not given.

    `workflows` is what an engine needs to make them, `materialize` the one that does.
    """

    def __init__(
        self,
        definitions: Definitions,
        store: EventStore,
        *,
        storage: Storage | None = None,
        clock: Clock | None = None,
    ) -> None:
        given = definitions.storage
        self.definitions = definitions
        self.store = store
        self.clock = SystemClock() if clock is None else clock
        self.storage = storage or (given if isinstance(given, Storage) else Storage(given))
        self._shop = Workshop(definitions, store, self.storage, self.clock)
        self.materialize: Workflow[[Plan], Report] = materialize_workflow(_hands(self._shop), definitions)

    @property
    def workflows(self) -> tuple[Workflow[..., Any], ...]:
        """For `Engine(workflows=...)`."""
        return (self.materialize,)

    # -- planning -----------------------------------------------------------------------------------------------------

    async def plan(
        self,
        *select: str,
        partitions: str = "",
        environment: str = PRODUCTION,
        force: bool = False,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        by: str = "",
        reason: str = "",
    ) -> Plan:
        """What is to be made of what is selected, and why. Writes nothing.

        `select`: see `selection`; nothing is everything. `partitions`: as a `KeySet` is written, "" is all.
        `force`: also what is not stale. `config`: by key of an asset. Raises `AssetError` for what means nothing.
        """
        request = Request(
            select=select,
            partitions=partitions,
            environment=environment,
            force=force,
            config=config or {},
            by=by,
            reason=reason,
        )
        facts = await self._facts(request)
        return make_plan(self.definitions, request, self._chosen(request, facts), facts)

    async def stale(self, environment: str = PRODUCTION) -> tuple[str, ...]:
        """The names of what is not up to date, upstream first."""
        facts = await self._facts(Request(environment=environment))
        return tuple(self._stale(environment, facts))

    def selected(self, *select: str) -> tuple[str, ...]:
        """The names that a selection without ``stale`` means, upstream first. Raises `AssetError`."""
        chosen = self._selected(select, tuple)
        return tuple(name for name in self.definitions.order if name in chosen)

    def _chosen(self, request: Request, facts: Facts) -> frozenset[str]:
        return self._selected(request.select, lambda: self._stale(request.environment, facts))

    def _selected(self, texts: Iterable[str], stale: Any) -> frozenset[str]:
        definitions = self.definitions
        world = World(definitions.specs, lambda key: definitions.node_of(key).name, definitions.graph, stale)
        return select(texts, world)

    def _stale(self, environment: str, facts: Facts) -> Collection[str]:
        plan = make_plan(self.definitions, Request(environment=environment), self._own, facts)
        return dict.fromkeys(step.node for step in plan.steps)

    @property
    def _own(self) -> list[str]:
        """What is made here: an external asset that could be observed makes nothing stale until it was, and changed."""
        return [name for name, node in self.definitions.nodes.items() if not node.asset.external]

    async def _facts(self, request: Request) -> Facts:
        shop, nodes = self._shop, self.definitions.nodes
        for key in request.config:
            name = self.definitions.node_of(key).name
            if name != key:
                raise AssetError(f"there is configuration for {key!r}, which {name!r} makes: configure that")
        catalog = await shop.catalog(request.environment)
        keys, as_of = await dynamic.read_dynamic(self.store, dict.fromkeys(shop.dynamic_names))
        return Facts(
            at=self.clock.now(),
            views=await catalog.view(self.definitions.specs),
            code={name: shop.code_version(node) for name, node in nodes.items()},
            config={
                name: config_digest(shop.config_of(node, request.config.get(name, {})), node.asset.where)
                for name, node in nodes.items()
            },
            dynamic=keys,
            dynamic_as_of=as_of,
        )

    # -- looking and changing -----------------------------------------------------------------------------------------

    async def catalog(self, environment: str = PRODUCTION) -> Catalog:
        """What there is in an environment. Raises `AssetError` when there is none of that name."""
        return await self._shop.catalog(environment)

    async def overview(self, *select: str, environment: str = PRODUCTION) -> list[AssetSummary]:
        """How each asset stands of those that are selected, upstream first. Raises `AssetError`."""
        request = Request(environment=environment)
        facts = await self._facts(request)
        plan = make_plan(self.definitions, request, self._own, facts)
        chosen = self._selected(select, lambda: dict.fromkeys(step.node for step in plan.steps))
        return summaries(self.definitions, facts, plan, (name for name in self.definitions.order if name in chosen))

    async def why(self, key: str, partition: str = "", *, environment: str = PRODUCTION) -> Why:
        """Why a partition was made the last time, or was not, and how it stands now. See `why_lines`.

        Raises `AssetNotFound` and `PartitionError` for what is none.
        """
        node = self.definitions.node_of(key)
        facts = await self._facts(Request(environment=environment))
        there = node.partitions.keys(facts.dynamic, now=moment(facts.at))
        view = facts.views[key]
        if partition not in view.known():  # what was made once may be asked for, also when it is no partition any more
            there.pick([partition])
        found = await why_of(await self.catalog(environment), key, partition)
        stale: tuple[str, ...] = ()
        blocked = ""
        if partition in there and not node.asset.external:
            above = self.definitions.graph.above([node.name]) & set(self._own)
            plan = make_plan(self.definitions, Request(environment=environment), above, facts)
            steps = [step for step in plan.steps if step.node == node.name]
            stale = next((step.reasons for step in steps if partition in _keys(there, step.partitions)), ())
            blocked = "" if stale or view.current(partition) else plan.blocked.get(node.name, "")
        external = node.asset.external
        return replace(found, current=view.current(partition), stale=stale, blocked=blocked, external=external)

    async def lineage(
        self,
        key: str,
        version: int | None = None,
        *,
        partition: str = "",
        environment: str = PRODUCTION,
        direction: Direction = "up",
        depth: int | None = None,
    ) -> Lineage:
        """All that made a version ("up"), or all that was made from it ("down"), across runs; the current version if
        none is named. `depth`: so many steps. Raises `AssetNotFound`.
        """
        found = await self.version(key, version, partition=partition, environment=environment)
        catalog = await self.catalog(environment)
        keys, _ = await dynamic.read_dynamic(self.store, dict.fromkeys(self._shop.dynamic_names))
        tracing = Tracing(catalog, self.definitions, keys)
        return await tracing.trace(key, found.version, direction, within=found.environment, depth=depth)

    async def version(
        self, key: str, version: int | None = None, *, partition: str = "", environment: str = PRODUCTION
    ) -> VersionDetails:
        """All that is recorded of a version, the current one if none is named. Raises `AssetNotFound`."""
        self.definitions.node_of(key)
        catalog = await self.catalog(environment)
        if version is not None:
            found = await version_details(catalog, key, version)
            if partition and found.partition != partition:
                raise AssetNotFound(f"{key}@{version} is of partition {found.partition!r}, not {partition!r}")
            return found
        current = (await catalog.view([key]))[key].current(partition)
        if current is None:
            named = reference_text(key, partition)
            raise AssetNotFound(f"{named} has no version in {environment}: nothing was published, or observed")
        return await version_details(catalog, key, current.version, within=current.environment)

    async def diff(self, old: VersionDetails, new: VersionDetails) -> VersionDiff:
        """What tells two versions apart. Raises what the storage raises."""
        return await compare(old, new, self.storage)

    async def add_partitions(self, name: str, *keys: str, by: str = "", reason: str = "") -> tuple[str, ...]:
        """Add keys to dynamic partitions; those that were not there. Raises `PartitionError`."""
        return await dynamic.add_partitions(self.store, name, keys, clock=self.clock, by=by, reason=reason)

    async def remove_partitions(self, name: str, *keys: str, by: str = "", reason: str = "") -> tuple[str, ...]:
        """Remove keys of dynamic partitions; those that were there. What was made of them stays in the log."""
        return await dynamic.remove_partitions(self.store, name, keys, clock=self.clock, by=by, reason=reason)

    async def create_environment(
        self, name: str, *, base: str = PRODUCTION, by: str = "", reason: str = ""
    ) -> branches.Environment:
        """Make a branch of the catalog. Raises `AssetError`."""
        return await branches.create_environment(self.store, name, clock=self.clock, base=base, by=by, reason=reason)

    async def promote(self, environment: str, *select: str, by: str = "", reason: str = "") -> list[branches.Promotion]:
        """Make what a branch has made current in its base, upstream first, without computing it again."""
        keys = [key for name in self.selected(*select) for key in self.definitions.nodes[name].keys]
        return await branches.promote(self.store, environment, keys, clock=self.clock, by=by, reason=reason)

    async def reset(self, environment: str, *select: str, by: str = "", reason: str = "") -> list[branches.Promotion]:
        """Let what a branch has made no longer count there: what its base has is read again."""
        keys = [key for name in self.selected(*select) for key in self.definitions.nodes[name].keys]
        return await branches.reset(self.store, environment, keys, clock=self.clock, by=by, reason=reason)

    async def restore(
        self, key: str, version: int, *, environment: str = PRODUCTION, by: str = "", reason: str = ""
    ) -> Version:
        """Make an earlier version the current one again. Raises `AssetNotFound`."""
        self.definitions.node_of(key)
        return await branches.restore(self.store, environment, key, version, clock=self.clock, by=by, reason=reason)

    async def read(
        self,
        key: str,
        kind: Any = Any,
        *,
        partition: str = "",
        version: int | None = None,
        environment: str = PRODUCTION,
    ) -> Any:
        """The value of a version as that type (see `Storage.read`); the current version if none is named.

        Raises `AssetNotFound`, and what the storage raises.
        """
        found = await self.version(key, version, partition=partition, environment=environment)
        stored = found.details.stored
        if stored is None:
            raise AssetNotFound(f"version {found.version} of {key} has no value that is stored here")
        # joblib is read only where it is asked for by name: its author did, where the asset is defined.
        return await self.storage.read(stored, kind, format="joblib" if stored.format == "joblib" else None)


def _keys(there: KeySet, text: str) -> KeySet:
    """What a step of a plan names."""
    return there.parse(text) if text else there


def _hands(shop: Workshop) -> Hands:
    """The tasks of a materializing run."""

    async def begin(step: StepRef) -> Begun:
        return await shop.begin(step, attempt().run_id)

    async def watch(run: str, steps: tuple[StepRef, ...]) -> tuple[str, ...]:
        return await shop.watch(run, steps)

    async def publish_versions(begun: Begun, made: Made, checks: tuple[CheckOutcome, ...]) -> int:
        return await publish(shop, begun, made, checks, attempt().run_id)

    async def record_failure(begun: Begun, checks: tuple[CheckOutcome, ...], why: str) -> int:
        return await fail(shop, begun, checks, why, attempt().run_id)

    async def record_unchanged(begun: Begun) -> int:
        return await leave(shop, begun, attempt().run_id)

    async def record_skip(step: StepRef, because: tuple[str, ...]) -> int:
        return await skip(shop, step, because, attempt().run_id)

    nodes = shop.definitions.nodes
    return Hands(
        begin=Task(begin, name="begin", options=_TRIES),
        watch=Task(watch, name="watch", options=_TRIES),
        make={name: make_task(shop, node) for name, node in nodes.items()},
        check={
            name: tuple(check_task(shop, node, key, each) for key, checks in node.checks.items() for each in checks)
            for name, node in nodes.items()
        },
        publish=Task(publish_versions, name="publish", options=_TRIES),
        fail=Task(record_failure, name="fail", options=_TRIES),
        leave=Task(record_unchanged, name="leave", options=_TRIES),
        skip=Task(record_skip, name="skip", options=_TRIES),
    )
