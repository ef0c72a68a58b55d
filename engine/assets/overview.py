"""How each asset stands, in one row: what a list of assets shows. Pure: made of definitions, facts and a plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import Struct

from engine.assets.catalog import Version
from engine.assets.definitions import Definitions
from engine.assets.partitions import Unpartitioned
from engine.assets.planner import Facts, moment
from engine.assets.plans import Plan, PlanStep

__all__ = ["AssetSummary", "summaries"]

HISTORY_SHOWN: Final = 24
"""Versions that a summary knows of each asset."""


class AssetSummary(Struct, frozen=True, kw_only=True):
    """How an asset stands in an environment."""

    key: str
    node: str  # the key of the first asset that the same function makes
    group: str = ""
    description: str = ""
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}
    external: bool = False
    partitioned: bool = False
    partitions: int = 1  # that there are
    made: int = 0  # of them have a version
    failed: int = 0  # of them could not be made the last time
    stale: int = 0  # of them would be made by a plan for everything
    reasons: tuple[str, ...] = ()  # why
    blocked: str = ""  # why some of them cannot be made
    checks: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    current: Version | None = None  # the last that was published
    history: tuple[Version, ...] = ()  # that and those before it, the latest first, of all partitions


def summaries(definitions: Definitions, facts: Facts, plan: Plan, names: Iterable[str]) -> list[AssetSummary]:
    """One for each asset of these nodes. `plan`: of everything in the environment."""
    steps: dict[str, list[PlanStep]] = {}
    for step in plan.steps:
        steps.setdefault(step.node, []).append(step)
    return [
        _summary(definitions, facts, plan, key, steps.get(name, ()))
        for name in names
        for key in definitions.nodes[name].keys
    ]


def _summary(definitions: Definitions, facts: Facts, plan: Plan, key: str, steps: Collection[PlanStep]) -> AssetSummary:
    node, spec, view = definitions.node_of(key), definitions.specs[key], facts.views[key]
    there = node.partitions.keys(facts.dynamic, now=moment(facts.at))
    history = view.latest(HISTORY_SHOWN)
    current = history[0] if history else view.current("")
    external = node.asset.external
    return AssetSummary(
        key=key,
        node=node.name,
        group=spec.group,
        description=spec.description,
        owners=spec.owners,
        tags=spec.tags,
        external=external,
        partitioned=not isinstance(node.partitions, Unpartitioned),
        partitions=len(there),
        made=len(there.read(name for name in view.known() if view.current(name) is not None).keys),
        failed=sum(1 for _ in view.all_failed()),
        stale=0 if external else sum(step.count for step in steps),
        reasons=() if external else tuple(dict.fromkeys(why for step in steps for why in step.reasons)),
        blocked=plan.blocked.get(node.name, ""),
        checks=tuple(each.check.name for each in node.checks.get(key, ())),
        upstream=tuple(each.key for each in node.inputs),
        current=current,
        history=tuple(history),
    )
