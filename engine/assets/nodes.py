"""What the parameters of an asset's function, or a check's, are: upstream assets, context, configuration, resources.

Decided where all assets are known, so that a parameter that is nothing of these is refused before anything runs.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, get_args, get_origin

from msgspec import Struct, structs

from engine.assets.checks import Check, CheckContext
from engine.assets.definition import Asset, In
from engine.assets.dimensions import default_mapping
from engine.assets.functions import hints_of, is_instance, plain, value_of
from engine.assets.key_sets import KeySet
from engine.assets.mappings import Mapping as PartitionMapping
from engine.assets.partitions import DynamicKeys, Partitions, Unpartitioned
from engine.assets.values import AssetContext, Config
from engine.errors import AssetDefinitionError, HoldfastError

__all__ = ["BoundCheck", "Input", "Known", "Node", "Wiring", "asset_in", "bind", "nearest"]

_EXTERNAL: Final = "external"
_STARS: Final = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class Input(Struct, frozen=True, kw_only=True):
    """An upstream asset. `parameter` is None for one that is not read.

    `slot` is what it is called in what a version was made from: its key, and for further parameters that are other
    partitions of the same asset with the parameter's name.
    """

    key: str
    slot: str = ""
    mapping: PartitionMapping
    upstream: Partitions  # its own
    downstream: Partitions  # of what reads it
    parameter: str | None = None
    annotation: Any = Any

    @property
    def by_partition(self) -> Any:
        """Of a parameter that is given a dict, by partition, the type of its values; None of another."""
        if get_origin(self.annotation) not in (dict, Mapping) or isinstance(self.upstream, Unpartitioned):
            return None
        kind, inner = get_args(self.annotation)
        return inner if kind is str else None

    @property
    def takes_none(self) -> bool:
        """Whether there may be no partition of it: it is given by partition, or may be None."""
        return self.by_partition is not None or type(None) in get_args(self.annotation)

    def upstream_of(self, partition: str, known: DynamicKeys | None = None, *, now: datetime) -> KeySet:
        """The partitions of it that one downstream is made from, of those that there are at `now`.

        `known`: the keys of dynamic partitions. Raises `PartitionError` for a partition that is none.
        """
        there = self.upstream.keys(known, now=now)
        return self.mapping.upstream(self.downstream.pick([partition], known), there)


class Wiring(Struct, frozen=True, kw_only=True):
    """What the parameters of a function are, each in one of these; one with a default may be in none."""

    inputs: tuple[Input, ...] = ()
    context: tuple[str, ...] = ()
    check_context: tuple[str, ...] = ()  # of a check alone
    config: tuple[str, type[Config]] | None = None
    resources: Mapping[str, Any] = {}


class BoundCheck(Struct, frozen=True, kw_only=True, eq=False):
    """A check, and what its parameters are. `value`: the one that is given the asset's value, and its annotation; None
    for a check that does not read it.
    """

    check: Check[..., Any]
    value: str | None
    annotation: Any
    wiring: Wiring


class Node(Struct, frozen=True, kw_only=True, eq=False):
    """One function with the assets that it makes: what is planned and run as one."""

    name: str  # the key of the first
    keys: tuple[str, ...]
    asset: Asset[..., Any]
    wiring: Wiring
    checks: Mapping[str, tuple[BoundCheck, ...]] = {}  # by key
    returns: Mapping[str, Any] = {}  # by key the type of its value

    @property
    def partitions(self) -> Partitions:
        """Of which its assets have a value each."""
        return self.asset.partitions

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its upstream assets, also those that it does not read."""
        return self.wiring.inputs

    @property
    def checked_against(self) -> tuple[Input, ...]:
        """Assets that only its checks read. They are made before it, and are no part of what it is made from."""
        read = {each.slot for each in self.inputs}
        others = (each for checks in self.checks.values() for check in checks for each in check.wiring.inputs)
        return tuple({each.slot: each for each in others if each.slot not in read}.values())

    def returns_of(self, key: str) -> Any:
        """The type of that asset's value, as its function is annotated; Any if it is not."""
        return self.returns.get(key, Any)


class Known(Struct, frozen=True, kw_only=True):
    """What there is to be asked for."""

    assets: Mapping[str, Asset[..., Any]]
    resources: Sequence[Any] = ()
    checks: Mapping[str, Sequence[Check[..., Any]]] = {}  # by key, those that do not stand with their asset


def bind(asset: Asset[..., Any], known: Known) -> Node:
    """An asset among all others. Raises `AssetDefinitionError` for what does not fit together."""
    where = f"{asset.where}: asset {asset.key}"
    hints = {} if asset.fn is None else hints_of(asset.fn, where)
    parameters = _parameters(asset.fn, where)
    wiring = _Wiring(asset, where, hints, known).of_asset(parameters)
    return Node(
        name=asset.key,
        keys=tuple(each.key for each in asset.outs),
        asset=asset,
        wiring=wiring,
        checks={
            out.key: _checks(asset, out.key, [*out.checks, *known.checks.get(out.key, ())], known, wiring.inputs)
            for out in asset.outs
        },
        returns=_returns(asset, hints.get("return", Any)),
    )


def asset_in(slot: str) -> str:
    """The key of the asset that stands in a slot of an `Input`."""
    return slot.partition("#")[0]


def nearest(name: str, known: Collection[str]) -> str:
    """`` Did you mean ...?``, or what there is, for the end of a message."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    few = sorted(known)[:5]
    return f" There are {', '.join(few)}{', ...' if len(known) > len(few) else ''}." if few else " There is none."


# ------------------------------------------------------------------------------------------------ of an asset


def _returns(asset: Asset[..., Any], hint: Any) -> dict[str, Any]:
    """By key the type of each value: of a tuple's places, of a mapping's values, or all of it."""
    hint = plain(hint)
    keys = [each.key for each in asset.outs]
    if not asset.several:
        return {keys[0]: value_of(hint)}
    inner = get_args(hint)
    if get_origin(hint) is tuple and len(inner) == len(keys) and Ellipsis not in inner:
        return {key: value_of(each) for key, each in zip(keys, inner, strict=True)}
    if hasattr(hint, "__required_keys__"):  # a TypedDict
        fields = hints_of(hint, f"{asset.where}: what asset {asset.key} returns")
        return {key: value_of(fields.get(name, Any)) for name, key in zip(asset.names, keys, strict=True)}
    is_mapping = isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping)
    return dict.fromkeys(keys, value_of(inner[1]) if is_mapping and len(inner) == 2 else Any)


def _checks(
    asset: Asset[..., Any], key: str, checks: Sequence[Check[..., Any]], known: Known, inputs: Sequence[Input]
) -> tuple[BoundCheck, ...]:
    names = [each.name for each in checks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AssetDefinitionError(f"{asset.where}: asset {key} has two checks {twice!r}: give one a name=")
    if checks and asset.external:
        raise AssetDefinitionError(f"{asset.where}: asset {key} is external: what is not made is not checked")
    return tuple(_bound(each, asset, key, known, inputs) for each in checks)


def _bound(
    check: Check[..., Any], asset: Asset[..., Any], key: str, known: Known, inputs: Sequence[Input]
) -> BoundCheck:
    where = f"{check.where or asset.where}: check {check.name} of {key}"
    hints = hints_of(check.fn, where)
    parameters = _parameters(check.fn, where)
    if not parameters:
        raise AssetDefinitionError(f"{where} takes nothing: its first parameter is the asset's value")
    first, *others = parameters
    kind = plain(hints.get(first.name, Any))
    if kind is AssetContext or (isinstance(kind, type) and issubclass(kind, Config)):
        raise AssetDefinitionError(
            f"{where}: its first parameter {first.name!r} is the asset's value, and not {kind.__name__}: put it behind,"
            " or let the first be a CheckContext, and the value is not read"
        )
    reads = kind is not CheckContext
    spec = next(each for each in asset.outs if each.key == key)
    if reads and spec.format == _EXTERNAL:
        raise AssetDefinitionError(
            f"{where}: asset {key} has io='external', so there is no stored value to check: let the check's first"
            " parameter be a CheckContext, and ask a resource where the value is"
        )
    wiring = _Wiring(asset, where, hints, known).of_check(others if reads else parameters, asset)
    wiring = structs.replace(wiring, inputs=tuple(_beside(each, check.name, inputs) for each in wiring.inputs))
    return BoundCheck(
        check=check,
        value=first.name if reads else None,
        annotation=kind if reads else Any,
        wiring=wiring,
    )


def _beside(each: Input, check: str, inputs: Sequence[Input]) -> Input:
    """What a check reads: the same as its asset does, where that reads the same partitions, or else its own."""
    for read in inputs:
        if (read.key, read.mapping) == (each.key, each.mapping) and read.parameter is not None:
            return structs.replace(each, slot=read.slot)
    return structs.replace(each, slot=f"{each.key}#{check}:{each.parameter}")


# ------------------------------------------------------------------------------------------------ of a function


def _parameters(fn: Callable[..., Any] | None, where: str) -> list[inspect.Parameter]:
    if fn is None:
        return []
    parameters = list(inspect.signature(fn).parameters.values())
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise AssetDefinitionError(
                f"{where}: nothing tells what goes into {_STARS[each.kind]}{each.name}: name each parameter, or list"
                " assets in deps=; a decorator says what it wraps with functools.wraps"
            )
        if each.kind is each.POSITIONAL_ONLY:
            raise AssetDefinitionError(f"{where}: its parameter {each.name!r} is given by name: take out the '/'")
    return parameters


class _Wiring:
    """Sorts the parameters of one function."""

    def __init__(self, asset: Asset[..., Any], where: str, hints: Mapping[str, Any], known: Known) -> None:
        self.asset = asset
        self.where = where
        self.hints = hints
        self.known = known
        self.inputs: list[Input] = []
        self.context: list[str] = []
        self.check_context: list[str] = []
        self.config: list[tuple[str, type[Config]]] = []
        self.resources: dict[str, Any] = {}

    def of_asset(self, parameters: Iterable[inspect.Parameter]) -> Wiring:
        for each in parameters:
            self._take(each)
        read = {each.key for each in self.inputs}
        self.inputs += [self._input(None, In(key), Any) for key in dict.fromkeys(self.asset.deps) if key not in read]
        if unknown := sorted(self.asset.mappings.keys() - {each.key for each in self.inputs}):
            raise AssetDefinitionError(f"{self.where}: mappings names {unknown[0]!r}, which is not upstream of it")
        return self._wiring()

    def of_check(self, parameters: Iterable[inspect.Parameter], asset: Asset[..., Any]) -> Wiring:
        for each in parameters:
            self._take(each)
        keys = {out.key for out in asset.outs}
        for own in (each.key for each in self.inputs if each.key in keys):
            raise AssetDefinitionError(
                f"{self.where}: it reads {own} itself, which is not published before it is checked: its first parameter"
                " is the value, and a CheckContext knows of earlier versions"
            )
        return self._wiring()

    def _wiring(self) -> Wiring:
        inputs: dict[str, list[Input]] = {}
        for each in self.inputs:
            before = inputs.setdefault(each.key, [])
            for other in before:
                if other.mapping == each.mapping:
                    raise AssetDefinitionError(
                        f"{self.where}: {other.parameter!r} and {each.parameter!r} are both asset {each.key}: read it"
                        " once, or let In(..., mapping=...) say which other partitions one of them is"
                    )
            before.append(structs.replace(each, slot=f"{each.key}#{each.parameter}" if before else each.key))
        if len(self.config) > 1:
            names = " and ".join(repr(name) for name, _ in self.config)
            raise AssetDefinitionError(f"{self.where}: {names} are both configuration: put all of it into one Config")
        return Wiring(
            inputs=tuple(each for some in inputs.values() for each in some),
            context=tuple(self.context),
            check_context=tuple(self.check_context),
            config=self.config[0] if self.config else None,
            resources=self.resources,
        )

    def _take(self, parameter: inspect.Parameter) -> None:
        name = parameter.name
        hint = self.hints.get(name, Any)
        kind = plain(hint)
        marker = (
            next((each for each in get_args(hint)[1:] if isinstance(each, In)), None) if _is_annotated(hint) else None
        )
        if marker is not None:
            self.inputs.append(self._input(name, marker, kind))
        elif kind is AssetContext:
            self.context.append(name)
        elif kind is CheckContext:
            self.check_context.append(name)
        elif isinstance(kind, type) and issubclass(kind, Config):
            self.config.append((name, kind))
        elif name in self.known.assets:
            self._refuse_two_meanings(name, kind)
            self.inputs.append(self._input(name, In(name), kind))
        elif (found := self._fitting(name, kind)) is not None:
            self.resources[name] = found
        elif parameter.default is parameter.empty:
            if name == "self":
                raise AssetDefinitionError(f"{self.where}: it is a method: put it below @staticmethod")
            resource = "" if kind is Any else f", and no resource is a {getattr(kind, '__name__', kind)}"
            near = nearest(name, self.known.assets)
            raise AssetDefinitionError(f"{self.where}: its parameter {name!r} is no asset{resource}.{near}")

    def _refuse_two_meanings(self, name: str, kind: Any) -> None:
        found = self._fitting(name, kind)
        if found is not None:
            raise AssetDefinitionError(
                f"{self.where}: its parameter {name!r} is an asset by its name, and a resource by its type"
                f" {kind.__name__}: call it otherwise, or say Annotated[{kind.__name__}, In({name!r})]"
            )

    def _fitting(self, name: str, kind: Any) -> Any:
        """The resource of that type; None if there is none."""
        if not isinstance(kind, type) or kind is object or kind is Any:
            return None
        fitting = [each for each in self.known.resources if is_instance(each, kind)]
        if len(fitting) > 1:
            raise AssetDefinitionError(
                f"{self.where}: {len(fitting)} resources are a {kind.__name__}, as {name!r} asks for one"
            )
        return fitting[0] if fitting else None

    def _input(self, parameter: str | None, marker: In, annotation: Any) -> Input:
        upstream = self.known.assets.get(marker.key)
        if upstream is None:
            raise AssetDefinitionError(
                f"{self.where}: there is no asset {marker.key!r}.{nearest(marker.key, self.known.assets)}"
            )
        out = next(each for each in upstream.outs if each.key == marker.key)
        if parameter is not None and out.format == _EXTERNAL:
            raise AssetDefinitionError(
                f"{self.where}: its parameter {parameter!r} is asset {marker.key} ({upstream.where}), which lies"
                f" elsewhere and has no stored value to read: name it in deps=[{marker.key!r}], and read it by yourself"
            )
        mapping = marker.mapping or self.asset.mappings.get(marker.key)
        try:
            if mapping is None:
                mapping = default_mapping(upstream.partitions, self.asset.partitions)
        except HoldfastError as error:
            raise AssetDefinitionError(f"{self.where}: its upstream {marker.key} ({upstream.where}): {error}") from None
        return Input(
            key=marker.key,
            mapping=mapping,
            upstream=upstream.partitions,
            downstream=self.asset.partitions,
            parameter=parameter,
            annotation=annotation,
        )


def _is_annotated(hint: Any) -> bool:
    return get_origin(hint) is Annotated
