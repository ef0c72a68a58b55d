"""What an author's function is given: upstream values read from storage, the context, configuration, resources.

A parameter that several partitions of an upstream asset go into is given them by partition (``dict[str, Table]``), or,
for tables, one behind the other in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from engine.assets.nodes import Node, Wiring
from engine.assets.plans import Begun, Pinned, PinnedVersion, titled
from engine.assets.values import AssetContext
from engine.assets.workshop import Workshop
from engine.errors import AssetError
from engine.storage import BlockingStorage, concatenated, is_table

__all__ = ["arguments_for", "context_for"]


def context_for(shop: Workshop, node: Node, begun: Begun, run_id: str) -> AssetContext:
    """Where the function is."""
    partition = begun.step.partition
    window = None if node.partitions is None or not partition else node.partitions.window(partition)
    return AssetContext(
        key=node.name,
        environment=begun.step.environment,
        run_id=run_id,
        partition=partition,
        window=window,
    )


def arguments_for(shop: Workshop, node: Node, wiring: Wiring, begun: Begun, context: AssetContext) -> dict[str, Any]:
    """The function's arguments. Blocks while it reads. Raises `AssetError`, and what the storage raises."""
    arguments: dict[str, Any] = dict(wiring.resources)
    arguments |= dict.fromkeys(wiring.context, context)
    if wiring.config is not None:
        arguments[wiring.config[0]] = shop.config_of(node, begun.step.config)
    pinned = {each.parameter: each for each in begun.inputs if each.parameter}
    for each in wiring.inputs:
        if each.parameter is not None:
            arguments[each.parameter] = _value(shop.storage.blocking, pinned[each.parameter], each.annotation, node)
    return arguments


def _value(storage: BlockingStorage, pinned: Pinned, annotation: Any, node: Node) -> Any:
    if get_origin(annotation) in (dict, Mapping):
        kind, inner = get_args(annotation)
        if kind is str and _is_by_partition(pinned):
            return {each.partition: _one(storage, pinned, each, inner) for each in pinned.versions}
    if len(pinned.versions) == 1:
        return _one(storage, pinned, pinned.versions[0], annotation)
    if not is_table(annotation):
        raise AssetError(
            f"{node.asset.where}: {node.name} reads {pinned.count} partitions of {pinned.key} into one parameter:"
            f" annotate {pinned.parameter!r} with dict[str, ...], by partition, or with a type of table"
        )
    return concatenated([storage.read(_stored(pinned, each)) for each in pinned.versions], annotation)


def _is_by_partition(pinned: Pinned) -> bool:
    return any(each.partition for each in pinned.versions) or not pinned.versions


def _one(storage: BlockingStorage, pinned: Pinned, version: PinnedVersion, annotation: Any) -> Any:
    return storage.read(_stored(pinned, version), annotation, format=_format(version))


def _stored(pinned: Pinned, version: PinnedVersion) -> Any:
    if version.stored is None:
        raise AssetError(f"{titled(pinned.key, version.partition)} has no value to read")
    return version.stored


def _format(version: PinnedVersion) -> Any:
    """joblib must be asked for by name: its author did, where the asset was defined."""
    return "joblib" if version.stored is not None and version.stored.format == "joblib" else None
