"""What an author's function is given: upstream values read from storage, the context, configuration, resources.

A parameter that several partitions of an upstream asset go into is given them by partition (``dict[str, Table]``), or,
for tables, one behind the other in one table.
"""

from __future__ import annotations

from typing import Any, get_args

from engine.assets.bench import Bench
from engine.assets.checks import CheckContext
from engine.assets.nodes import BoundCheck, Input, Node, Wiring
from engine.assets.plans import Begun, Earlier, MadeOut, Pinned, PinnedVersion
from engine.assets.references import reference_text
from engine.assets.values import AssetContext
from engine.errors import AssetError
from engine.storage import BlockingStorage, Stored

__all__ = ["arguments_for", "check_arguments_for", "check_context_for", "context_for"]


def context_for(shop: Bench, node: Node, begun: Begun, run_id: str, key: str = "") -> AssetContext:
    """Where the function is, or a check of `key`."""
    partition = begun.step.partition
    window = node.partitions.window(partition) if partition else None
    return AssetContext(
        key=key or node.name,
        environment=begun.step.environment,
        run_id=run_id,
        partition=partition,
        window=window,
        secrets=shop.definitions.secrets,
    )


def arguments_for(shop: Bench, node: Node, begun: Begun, context: AssetContext) -> dict[str, Any]:
    """The arguments of an asset's function. Blocks while it reads. Raises `AssetError`, and what the storage raises."""
    return _arguments(shop, node, node.wiring, begun, context)


def check_context_for(node: Node, key: str, begun: Begun, out: MadeOut, run_id: str) -> CheckContext:
    """Where a check is."""
    partition = begun.step.partition
    earlier = begun.earlier.get(key, Earlier())
    return CheckContext(
        key=key,
        environment=begun.step.environment,
        run_id=run_id,
        partition=partition,
        window=node.partitions.window(partition) if partition else None,
        stored=out.stored,
        previous=earlier.previous,
        history=earlier.history,
    )


def check_arguments_for(
    shop: Bench, node: Node, bound: BoundCheck, begun: Begun, context: CheckContext, *, where: AssetContext
) -> dict[str, Any]:
    """The arguments of a check, likewise; `where`: the context of one that asks for an asset's."""
    arguments = _arguments(shop, node, bound.wiring, begun, where)
    arguments |= dict.fromkeys(bound.wiring.check_context, context)
    if bound.value is not None:
        version = PinnedVersion(partition=context.partition, version=0, data_version="", stored=context.stored)
        arguments[bound.value] = _one(shop.storage.blocking, context.key, version, bound.annotation)
    return arguments


def _arguments(shop: Bench, node: Node, wiring: Wiring, begun: Begun, context: AssetContext) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(wiring.resources)
    arguments |= dict.fromkeys(wiring.context, context)
    if wiring.config is not None:
        arguments[wiring.config[0]] = shop.config_of(node, begun.step.config)
    pinned = {each.slot: each for each in (*begun.inputs, *begun.beside)}
    for each in wiring.inputs:
        if each.parameter is not None:
            arguments[each.parameter] = _value(shop.storage.blocking, pinned[each.slot], each, node)
    return arguments


def _value(storage: BlockingStorage, pinned: Pinned, given: Input, node: Node) -> Any:
    annotation = given.annotation
    if (inner := given.by_partition) is not None:
        return {each.partition: _one(storage, pinned.key, each, inner) for each in pinned.versions}
    if not pinned.versions and given.takes_none:
        return None
    if len(pinned.versions) == 1:
        return _one(storage, pinned.key, pinned.versions[0], annotation)
    if annotation is Any or not all(_stored(pinned.key, each).format == "parquet" for each in pinned.versions):
        raise AssetError(
            f"{node.asset.where}: {node.name} reads {len(pinned.versions)} partitions of {pinned.key} into one"
            f" parameter: annotate {given.parameter!r} with dict[str, ...], by partition, or with a type of table"
        )
    return storage.read_joined([_stored(pinned.key, each) for each in pinned.versions], annotation)


def _one(storage: BlockingStorage, key: str, version: PinnedVersion, annotation: Any) -> Any:
    stored = _stored(key, version)
    if stored.format != "json":
        annotation = _of_a_value(annotation)
    # joblib is read only where it is asked for by name: its author did, where the asset is defined.
    return storage.read(stored, annotation, format="joblib" if stored.format == "joblib" else None)


def _of_a_value(annotation: Any) -> Any:
    """Without the None of ``Table | None``, which is given where there is no value: what is there has the type."""
    others = [each for each in get_args(annotation) if each is not type(None)]
    return others[0] if len(others) == 1 and type(None) in get_args(annotation) else annotation


def _stored(key: str, version: PinnedVersion) -> Stored:
    if version.stored is None:
        raise AssetError(f"{reference_text(key, version.partition)} has no value to read")
    return version.stored
