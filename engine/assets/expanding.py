"""A plan as single steps: one for each partition of each function, with the steps that it waits for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from msgspec import Struct

from engine.assets.definitions import Definitions
from engine.assets.key_sets import KeySet
from engine.assets.nodes import Node
from engine.assets.pairing import upstream_of_each
from engine.assets.partitions import DynamicKeys
from engine.assets.planner import moment
from engine.assets.plans import Plan, PlanStep, StepRef
from engine.assets.provenance import keys_digest
from engine.assets.references import reference_text
from engine.errors import AssetError, AssetNotFound, PartitionError

__all__ = ["Steps", "expand", "keys_in"]

Steps: TypeAlias = dict[str, tuple[StepRef, tuple[str, ...]]]
"""By title: the step, and the titles of those that it waits for, which stand before it."""


def expand(definitions: Definitions, plan: Plan) -> Steps:
    """All steps of a plan, upstream first. Raises `AssetError` for a plan of other definitions: what it names is to be
    what was named when it was made.
    """
    dynamic = DynamicKeys()
    for name, added in plan.dynamic.items():
        dynamic.add(name, added)
    planned: dict[str, set[str]] = {}
    keys_of: list[tuple[PlanStep, Node, KeySet]] = []
    for each in plan.steps:
        try:
            node = definitions.node_of(each.node)
        except AssetNotFound as error:
            raise AssetError(
                f"the plan is of other definitions than this engine's: {error} Bring back what it was, or plan again;"
                " of several projects on one store each engine has the assets of all"
            ) from None
        keys = keys_in(node, each, plan, dynamic)
        planned.setdefault(node.name, set()).update(keys)
        keys_of.append((each, node, keys))
    known = _Known(definitions=definitions, planned=planned, dynamic=dynamic, at=plan.at)
    steps: Steps = {}
    for each, node, keys in keys_of:
        waits = _waits(node, keys, known)
        config = plan.request.config.get(node.name, {})
        for partition in keys:
            step = StepRef(
                node=node.name,
                partition=partition,
                at=plan.at,
                dynamic_as_of=plan.dynamic_as_of,
                environment=plan.request.environment,
                force=plan.request.force,
                config=config,
                reasons=each.reasons,
            )
            steps[step.title] = step, tuple(waits.get(partition, ()))
    return steps


def keys_in(node: Node, step: PlanStep, plan: Plan, dynamic: DynamicKeys) -> KeySet:
    """The partitions that a step of a plan names. Raises `AssetError` when they are others than those that it named."""
    there = node.partitions.keys(dynamic, now=moment(plan.at))
    why = ""
    keys = there
    if step.partitions:
        try:
            keys = there.parse(step.partitions)
        except PartitionError as error:
            why = f": {error}"
    if why or (step.digest and keys_digest(keys) != step.digest):
        raise AssetError(
            f"{node.asset.where}: the partitions {step.partitions or '*'} of {node.name} are no longer those that were"
            f" planned{why}: its definition was changed since. Bring back what it was, or plan again"
        )
    return keys


class _Known(Struct, frozen=True, kw_only=True, eq=False):
    """What a plan is read with. `planned`: by node, the partitions that are made."""

    definitions: Definitions
    planned: Mapping[str, Collection[str]]
    dynamic: DynamicKeys
    at: int


def _waits(node: Node, keys: KeySet, known: _Known) -> dict[str, dict[str, None]]:
    """By partition, the titles of the steps that it waits for."""
    waits: dict[str, dict[str, None]] = {}
    for each in (*node.inputs, *node.checked_against):
        upstream = known.definitions.node_of(each.key).name
        planned = known.planned.get(upstream)
        if planned is None:
            continue
        there = each.upstream.keys(known.dynamic, now=moment(known.at))
        for partition, partitions in upstream_of_each(each.mapping, keys, there):
            titles = (reference_text(upstream, key) for key in partitions if key in planned)
            waits.setdefault(partition, {}).update(dict.fromkeys(titles))
    return waits
