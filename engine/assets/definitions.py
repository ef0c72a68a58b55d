"""`Definitions`: the one registry of assets, checks and resources, checked as a whole when it is made."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, Final

from engine.assets.checks import Check
from engine.assets.definition import Asset, AssetSpec
from engine.assets.graph import Graph
from engine.assets.nodes import Known, Node, bind, nearest
from engine.errors import AssetDefinitionError, AssetNotFound

__all__ = ["DEFAULT_STORAGE", "Definitions"]

DEFAULT_STORAGE: Final = "holdfast-assets"
"""A folder beside the caller: where values lie unless `Definitions(storage=...)` says otherwise."""
_SHOWN: Final = 20
"""Assets of a cycle that are named."""


class Definitions:
    """Assets, checks and resources that belong together.

    `assets`: assets, or modules whose assets (and checks) are meant. `checks`: those that do not stand with their
    asset. `resources`: objects that functions ask for by type. `storage`: a folder, a URL, or a `Storage` of
    `engine.storage`.

    Raises `AssetDefinitionError`, with file and line, for two assets of one key, an upstream asset that is not there, a
    cycle, partitions that do not fit, a parameter that is nothing, a check of an asset that is not there.
    """

    def __init__(
        self,
        assets: Iterable[Asset[..., Any] | ModuleType] = (),
        *,
        checks: Iterable[Check[..., Any]] = (),
        resources: Sequence[Any] = (),
        storage: Any = DEFAULT_STORAGE,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.storage = storage
        self.secrets: Mapping[str, str] = {} if secrets is None else secrets
        self.resources = tuple(resources)
        given, found = _collected(assets)
        self.assets = tuple(given)
        self.checks = tuple(dict.fromkeys([*checks, *found]))
        known = _by_key(self.assets)
        among = Known(assets=known, resources=self.resources, checks=_by_asset(self.checks, known))
        self.nodes: Mapping[str, Node] = {each.key: bind(each, among) for each in self.assets}

        self.specs: Mapping[str, AssetSpec] = {out.key: out for each in self.assets for out in each.outs}
        self._node_of = {key: node for node in self.nodes.values() for key in node.keys}
        self.graph = Graph(
            {
                node.name: [self._node_of[each.key].name for each in (*node.inputs, *node.checked_against)]
                for node in self.nodes.values()
            }
        )
        if cycle := self.graph.cycle:
            shown = [f"{name} ({self.nodes[name].asset.where})" for name in cycle]
            if len(shown) > _SHOWN:
                shown[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
            raise AssetDefinitionError(f"assets are upstream of themselves: {' -> '.join(shown)}")

    @staticmethod
    def merge(*definitions: Definitions, storage: Any = None) -> Definitions:
        """All of several. Raises what `Definitions` raises of the whole, and when they disagree about the storage."""
        if storage is None:
            there = {str(each.storage): each.storage for each in definitions} or {"": DEFAULT_STORAGE}
            if len(there) > 1:
                raise AssetDefinitionError(f"definitions with other storages, {', '.join(there)}: say storage=...")
            storage = next(iter(there.values()))
        return Definitions(
            [asset for each in definitions for asset in each.assets],
            checks=[check for each in definitions for check in each.checks],
            resources=[resource for each in definitions for resource in each.resources],
            storage=storage,
            secrets=ChainMap(*(dict(each.secrets) for each in definitions)),
        )

    def node_of(self, key: str) -> Node:
        """What makes this asset. Raises `AssetNotFound`."""
        node = self._node_of.get(key)
        if node is None:
            raise AssetNotFound(f"there is no asset {key!r}.{nearest(key, self._node_of)}")
        return node

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The names of all nodes, upstream first, as they were given otherwise."""
        return self.graph.order


def _collected(given: Iterable[Asset[..., Any] | ModuleType]) -> tuple[list[Asset[..., Any]], list[Check[..., Any]]]:
    assets: dict[int, Asset[..., Any]] = {}
    checks: list[Check[..., Any]] = []
    for each in given:
        members = vars(each).values() if isinstance(each, ModuleType) else [each]
        for member in members:
            if isinstance(member, Asset):
                assets[id(member)] = member
            elif isinstance(member, Check) and member.asset:
                checks.append(member)
            elif not isinstance(each, ModuleType):
                raise AssetDefinitionError(
                    f"Definitions takes assets and modules, not {each!r}: decorate it with @asset"
                )
    return list(assets.values()), checks


def _by_key(assets: Iterable[Asset[..., Any]]) -> dict[str, Asset[..., Any]]:
    known: dict[str, Asset[..., Any]] = {}
    for each in assets:
        for out in each.outs:
            if out.key in known:
                raise AssetDefinitionError(
                    f"two assets are called {out.key!r}: {known[out.key].where} and {each.where}"
                )
            known[out.key] = each
    return known


def _by_asset(
    checks: Iterable[Check[..., Any]], known: Mapping[str, Asset[..., Any]]
) -> dict[str, list[Check[..., Any]]]:
    found: dict[str, list[Check[..., Any]]] = {}
    for each in checks:
        what = f"{each.where}: check {each.name}"
        if not each.asset:
            raise AssetDefinitionError(f"{what} says of no asset what it is of: put it into that asset's checks=")
        if each.asset not in known:
            near = nearest(each.asset, known)
            raise AssetDefinitionError(f"{what} is of {each.asset!r}, which is no asset here.{near}")
        found.setdefault(each.asset, []).append(each)
    return found
