"""The planner: what is stale, why, in which order. Pure: definitions and what the catalog says in, a `Plan` out.

What is compared is identities: of the code, of the configuration, and of what was read. A partition whose upstream is
in the plan is in the plan, too; whether it is really made is decided when its upstream is there, and may have come out
as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from engine.assets.catalog import AssetView, Version
from engine.assets.definitions import Definitions
from engine.assets.key_sets import KeySet
from engine.assets.nodes import Input, Node, asset_in
from engine.assets.pairing import upstream_of_each
from engine.assets.partitions import DynamicKeys, Unpartitioned
from engine.assets.plans import Plan, PlanStep, Request
from engine.assets.provenance import inputs_digest, keys_digest
from engine.errors import AssetError, PartitionError

__all__ = ["Facts", "make_plan", "moment"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Facts(Struct, frozen=True, kw_only=True, eq=False):
    """What a plan is made of, as it stands at `at`."""

    at: int  # microseconds since the epoch
    views: Mapping[str, AssetView]  # by key
    code: Mapping[str, str]  # by node
    config: Mapping[str, str]  # by node
    dynamic: DynamicKeys
    dynamic_as_of: Mapping[str, int] = {}


def moment(at: int) -> datetime:
    """Microseconds since the epoch as a time."""
    return _EPOCH + timedelta(microseconds=at)


def make_plan(definitions: Definitions, request: Request, chosen: Iterable[str], facts: Facts) -> Plan:
    """What is to be made of the chosen nodes. Raises `AssetError` for partitions that none of them has."""
    return _Planning(definitions, request, frozenset(chosen), facts).plan()


class _Planning:
    """One plan in the making. Nodes are taken upstream first, so what is upstream of one is planned before it."""

    def __init__(self, definitions: Definitions, request: Request, chosen: frozenset[str], facts: Facts) -> None:
        self.definitions = definitions
        self.request = request
        self.chosen = chosen
        self.facts = facts
        self.now = moment(facts.at)
        self.there: dict[str, KeySet] = {}  # by node, the partitions that there are
        self.have: dict[str, KeySet] = {}  # by key, those that have a version
        self.planned: dict[str, KeySet] = {}  # by node

    def plan(self) -> Plan:
        for name in self.definitions.order:
            self._look_at(self.definitions.nodes[name])
        wanted = self._wanted()
        steps: list[PlanStep] = []
        unchanged: dict[str, int] = {}
        blocked: dict[str, str] = {}
        for name in self.definitions.order:
            if name not in wanted:
                continue
            node, asked = self.definitions.nodes[name], wanted[name]
            reasons = self._reasons(node, asked)
            possible, why = self._possible(node, _keys_of(reasons, asked))
            if why:
                blocked[name] = why
            self.planned[name] = possible
            steps += _steps(name, reasons, possible)
            if rest := len(asked) - len(reasons):
                unchanged[name] = rest
        return Plan(
            request=self.request,
            at=self.facts.at,
            steps=tuple(steps),
            unchanged=unchanged,
            blocked=blocked,
            dynamic=self.facts.dynamic.names(),
            dynamic_as_of=self.facts.dynamic_as_of,
        )

    def _look_at(self, node: Node) -> None:
        there = node.partitions.keys(self.facts.dynamic, now=self.now)
        self.there[node.name] = there
        self.planned[node.name] = there[:0]
        for key in node.keys:
            view = self.facts.views[key]
            names = (name for name in view.known() if view.current(name) is not None)
            self.have[key] = there if node.asset.external else there.read(names).keys

    def _wanted(self) -> dict[str, KeySet]:
        """By node, the partitions that are asked for, of all that there are."""
        nodes = [self.definitions.nodes[name] for name in self.definitions.order if name in self.chosen]
        nodes = [node for node in nodes if not node.asset.external or node.asset.fn is not None]
        every = {node.name: self.there[node.name] for node in nodes}
        text = self.request.partitions
        if not text:
            return every
        refused: list[str] = []
        taken: dict[str, KeySet] = {}
        for name, there in every.items():
            if isinstance(there.partitions, Unpartitioned):
                taken[name] = there
                continue
            try:
                taken[name] = there.parse(text)
            except PartitionError as error:
                refused.append(f"{name}: {error}")
        if refused:
            raise AssetError(
                f"the partitions {text!r} are not those of all that is selected; {refused[0]}. Select what has them"
            )
        return taken

    # -- why ----------------------------------------------------------------------------------------------------------

    def _reasons(self, node: Node, asked: KeySet) -> dict[str, tuple[str, ...]]:
        """By partition, why it is to be made; those that are up to date are not in it."""
        found: dict[str, list[str]] = {}

        def say(partitions: Iterable[str], why: str) -> None:
            for partition in partitions:
                found.setdefault(partition, []).append(why)

        if node.asset.external:
            say(asked, "to be observed")
            return _in_order(found, asked)
        have = self.have[node.name]
        for key in node.keys[1:]:
            have &= self.have[key]
        say(asked - have, "missing")
        if self.request.force:
            say(asked & have, "forced")
        code, config = self.facts.code[node.name], self.facts.config[node.name]
        views = [self.facts.views[key] for key in node.keys]
        present = [(name, version) for name in asked & have for view in views if (version := view.made(name))]
        say((name for name, version in present if version.code_version != code), "code changed")
        say((name for name, version in present if version.config != config), "configuration changed")
        for name, slots in _gone(node, present):
            say([name], f"no longer made from {', '.join(dict.fromkeys(map(asset_in, sorted(slots))))}")
        for each in node.inputs:
            say(self._changed(each, asked & have, views), f"{each.key} changed")
            upstream = self.definitions.node_of(each.key).name
            if planned := self.planned[upstream]:
                say(each.mapping.downstream(planned, asked, self.there[upstream]), f"{each.key} is made first")
        for view in views:
            say(asked.read(view.all_failed()).keys, "failed last time")
        return _in_order(found, asked)

    def _changed(self, each: Input, present: KeySet, own: Iterable[AssetView]) -> Iterator[str]:
        """Of the partitions that have versions, those some of which were made from other versions of this input."""
        view = self.facts.views[each.key]
        there = self.there[self.definitions.node_of(each.key).name]
        last: Collection[str] = ()
        digest = inputs_digest(())
        for name, partitions in upstream_of_each(each.mapping, present, there):
            if partitions is not last:  # of many that are made from the same it is asked once
                last, digest = partitions, inputs_digest(view.versions(partitions))
            for versions in own:
                version = versions.made(name)
                if version is not None and version.inputs.get(each.slot) != digest:
                    yield name
                    break

    # -- whether ------------------------------------------------------------------------------------------------------

    def _possible(self, node: Node, asked: KeySet) -> tuple[KeySet, str]:
        """Those whose upstream is there or planned, and what the others lack."""
        lacking: list[str] = []
        without: list[str] = []
        for each in (*node.inputs, *node.checked_against):
            upstream = self.definitions.node_of(each.key)
            there = self.there[upstream.name]
            asked -= each.mapping.waiting(asked, there)  # made when what it is made from has come
            if none := _without(each, asked, there):
                asked -= none
                without.append(f"no partition of {each.key} belongs to {_counted(none, node)}")
            absent = there - self.have[each.key] - self.planned[upstream.name]
            if absent and (stuck := each.mapping.downstream(absent, asked, there)):
                asked -= stuck
                lacking.append(f"{each.key} ({_counted(stuck, node)})")
        if lacking:
            without.append(f"nothing was made yet of {', '.join(lacking)}: select it, too")
        return asked, "; ".join(without)


def _gone(node: Node, present: Iterable[tuple[str, Version]]) -> Iterator[tuple[str, set[str]]]:
    """Of versions what they were made from, and would not be any more."""
    known = {each.slot for each in node.inputs}
    return ((name, gone) for name, version in present if (gone := version.inputs.keys() - known))


def _without(each: Input, asked: KeySet, there: KeySet) -> KeySet:
    """Those that read one, and are made from no partition of it at all."""
    if each.parameter is None or each.takes_none:
        return asked[:0]
    return asked - each.mapping.downstream(there, asked, there)


def _keys_of(reasons: Mapping[str, object], asked: KeySet) -> KeySet:
    return asked if len(reasons) == len(asked) else asked.pick(reasons)


def _in_order(found: Mapping[str, list[str]], asked: KeySet) -> dict[str, tuple[str, ...]]:
    if not found:  # most often: nothing is stale
        return {}
    return {name: tuple(dict.fromkeys(found[name])) for name in asked if name in found}


def _steps(name: str, reasons: Mapping[str, tuple[str, ...]], possible: KeySet) -> Iterator[PlanStep]:
    """One for all partitions that are made for the same reasons."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for partition, why in reasons.items():
        groups.setdefault(why, []).append(partition)
    for why, partitions in groups.items():
        keys = possible.read(partitions).keys
        if keys:
            yield PlanStep(node=name, partitions=str(keys), count=len(keys), reasons=why, digest=keys_digest(keys))


def _counted(keys: KeySet, node: Node) -> str:
    if isinstance(node.partitions, Unpartitioned):
        return "all of it"
    return "1 partition" if len(keys) == 1 else f"{len(keys):,} partitions"
