"""What the parameters of an asset's function, or of a check, are: upstream assets, the context, configuration, resources.

Decided where all assets are known, so that a parameter that is nothing of these is refused before anything runs.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Struct

from engine.assets.checks import Check
from engine.assets.definition import Asset, In
from engine.assets.mappings import Mapping as PartitionMapping
from engine.assets.mappings import default_mapping
from engine.assets.partitions import Partitions
from engine.assets.values import AssetContext, Config
from engine.errors import AssetDefinitionError, AssetError

__all__ = ["BoundCheck", "Input", "Node", "Wiring", "bind", "bind_check", "nearest"]


class Input(Struct, frozen=True, kw_only=True):
    """An upstream asset. `parameter` is None for one that is not read."""

    key: str
    mapping: PartitionMapping
    parameter: str | None = None
    annotation: Any = Any


class Wiring(Struct, frozen=True, kw_only=True):
    """What the parameters of a function are, each in one of these."""

    inputs: tuple[Input, ...] = ()
    context: tuple[str, ...] = ()
    configs: Mapping[str, type[Config]] = {}
    resources: Mapping[str, Any] = {}


class BoundCheck(Struct, frozen=True, kw_only=True, eq=False):
    """A check, and what its parameters are. `value`: the one that is given the asset's value, and its annotation."""

    check: Check
    value: str
    annotation: Any
    wiring: Wiring


class Node(Struct, frozen=True, kw_only=True, eq=False):
    """One function with the assets that it makes: what is planned and run as one."""

    name: str  # the key of the first
    keys: tuple[str, ...]
    asset: Asset[..., Any]
    wiring: Wiring
    checks: Mapping[str, tuple[BoundCheck, ...]] = {}  # by key
    returns: Any = Any  # the annotation

    @property
    def partitions(self) -> Partitions | None:
        """Of which its assets have a value each."""
        return self.asset.partitions

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its upstream assets, also those that it does not read."""
        return self.wiring.inputs


def bind(
    asset: Asset[..., Any], known: Mapping[str, Asset[..., Any]], resources: Sequence[Any], checks: Iterable[Check]
) -> Node:
    """An asset among all others. Raises `AssetDefinitionError` for what does not fit together."""
    where = f"{asset.where}: asset {asset.key}"
    hints = _hints(asset.fn, where) if asset.fn is not None else {}
    wiring = _wired(asset, where, _parameters(asset.fn), hints, known, resources)
    return Node(
        name=asset.key,
        keys=tuple(each.key for each in asset.outs),
        asset=asset,
        wiring=wiring,
        checks=_checks(asset, checks, known, resources),
        returns=hints.get("return", Any),
    )


def bind_check(
    check: Check, asset: Asset[..., Any], known: Mapping[str, Asset[..., Any]], resources: Sequence[Any]
) -> BoundCheck:
    """A check of an asset, likewise."""
    where = f"{check.where or asset.where}: check {check.name}"
    parameters = _parameters(check.fn)
    if not parameters:
        raise AssetDefinitionError(f"{where} takes no value: its first parameter is the asset's value")
    hints = _hints(check.fn, where)
    value, *others = parameters
    wiring = _wired(asset, where, others, hints, known, resources, of_check=True)
    return BoundCheck(check=check, value=value, annotation=hints.get(value, Any), wiring=wiring)


def nearest(name: str, known: Collection[str]) -> str:
    """`` Did you mean ...?``, or what there is, for the end of a message."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    few = sorted(known)[:5]
    return f" There are {', '.join(few)}{', ...' if len(known) > len(few) else ''}." if few else " There is none."


def _checks(
    asset: Asset[..., Any],
    checks: Iterable[Check],
    known: Mapping[str, Asset[..., Any]],
    resources: Sequence[Any],
) -> dict[str, tuple[BoundCheck, ...]]:
    found: dict[str, tuple[BoundCheck, ...]] = {}
    given = list(checks)
    for out in asset.outs:
        own = [*out.checks, *(each for each in given if each.asset == out.key)]
        names = [each.name for each in own]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise AssetDefinitionError(f"{asset.where}: asset {out.key} has two checks {twice!r}: give one a name=")
        if own and asset.external:
            raise AssetDefinitionError(f"{asset.where}: asset {out.key} is external: what is not made is not checked")
        found[out.key] = tuple(bind_check(each, asset, known, resources) for each in own)
    return found


def _parameters(fn: Callable[..., Any] | None) -> list[str]:
    if fn is None:
        return []
    parameters = inspect.signature(fn).parameters.values()
    return [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def _hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(fn, include_extras=True)
    except Exception as error:
        raise AssetDefinitionError(f"{where}: its annotations cannot be read: {error}") from None


def _wired(
    asset: Asset[..., Any],
    where: str,
    parameters: Iterable[str],
    hints: Mapping[str, Any],
    known: Mapping[str, Asset[..., Any]],
    resources: Sequence[Any],
    *,
    of_check: bool = False,
) -> Wiring:
    inputs: list[Input] = []
    context: list[str] = []
    configs: dict[str, type[Config]] = {}
    given: dict[str, Any] = {}
    for name in parameters:
        hint = hints.get(name, Any)
        marker = next((each for each in get_args(hint)[1:] if isinstance(each, In)), None)
        if marker is not None or (name in known and not _is_special(hint)):
            inputs.append(_input(asset, name, marker or In(name), hint, known, where))
        elif hint is AssetContext:
            context.append(name)
        elif isinstance(hint, type) and issubclass(hint, Config):
            configs[name] = hint
        else:
            given[name] = _resource(name, hint, known, resources, where)
    read = {each.key for each in inputs}
    if not of_check:
        inputs += [_input(asset, None, In(key), Any, known, where) for key in asset.deps if key not in read]
        if unknown := sorted(asset.mappings.keys() - {each.key for each in inputs}):
            raise AssetDefinitionError(f"{where}: mappings names {unknown[0]!r}, which is not upstream of it")
    return Wiring(inputs=tuple(inputs), context=tuple(context), configs=configs, resources=given)


def _is_special(hint: Any) -> bool:
    return hint is AssetContext or (isinstance(hint, type) and issubclass(hint, Config))


def _input(
    asset: Asset[..., Any],
    parameter: str | None,
    marker: In,
    hint: Any,
    known: Mapping[str, Asset[..., Any]],
    where: str,
) -> Input:
    upstream = known.get(marker.key)
    if upstream is None:
        raise AssetDefinitionError(f"{where}: there is no asset {marker.key!r}.{nearest(marker.key, known)}")
    mapping = marker.mapping or asset.mappings.get(marker.key)
    try:
        if mapping is None:
            mapping = default_mapping(upstream.partitions, asset.partitions)
    except AssetError as error:
        raise AssetDefinitionError(f"{where}: its upstream {marker.key} ({upstream.where}): {error}") from None
    annotation = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return Input(key=marker.key, mapping=mapping, parameter=parameter, annotation=annotation)


def _resource(
    name: str, hint: Any, known: Mapping[str, Asset[..., Any]], resources: Sequence[Any], where: str
) -> Any:
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    fitting = [each for each in resources if isinstance(plain, type) and plain is not object and isinstance(each, plain)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise AssetDefinitionError(f"{where}: {len(fitting)} resources are a {plain.__name__}, as {name!r} asks for one")
    raise AssetDefinitionError(
        f"{where}: its parameter {name!r} is no asset, and no resource is a {getattr(plain, '__name__', plain)}."
        f"{nearest(name, known)}"
    )
