"""`@asset`, `@assets` and `external_asset`: what there is to be, what it is made from, and how.

An asset's function stays a function: called, it computes, so that a unit test needs nothing of this package. What its
parameters are (upstream assets, the context, configuration, resources) is decided where all assets are known: see
`definitions`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from msgspec import Struct

from engine import TaskOptions
from engine.assets.checks import Check
from engine.assets.functions import where_of
from engine.assets.keys import check_key
from engine.assets.mappings import Mapping as PartitionMapping
from engine.assets.metadata import MetadataValue
from engine.assets.options import AssetOptions, list_of, mappings_of, metadata_of, options_of, tags_of, text_of
from engine.assets.partitions import Partitions, Unpartitioned
from engine.errors import AssetDefinitionError
from engine.storage import Format

__all__ = [
    "FORMATS",
    "Asset",
    "AssetSpec",
    "In",
    "Out",
    "asset",
    "assets",
    "external_asset",
]

P = ParamSpec("P")
R = TypeVar("R")

FORMATS: Final = ("parquet", "json", "text", "bytes", "joblib", "external")


class In(Struct, frozen=True):
    """Which upstream asset a parameter is, when its name does not say: ``rows: Annotated[Table, In("raw/orders")]``.

    `mapping`: which of its partitions are meant.
    """

    key: str
    mapping: PartitionMapping | None = None


class AssetSpec(Struct, frozen=True, kw_only=True):
    """What one asset is called, and what is said of it."""

    key: str
    description: str = ""
    group: str = ""
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}  # of a tag without a value: ""
    metadata: Mapping[str, MetadataValue] = {}
    format: str | None = None  # one of FORMATS; None: by the value's type
    checks: tuple[Check[..., Any], ...] = ()

    @property
    def stored_as(self) -> Format | None:
        """The format that its value is written in; None: by the value's type."""
        return cast("Format | None", None if self.format == "external" else self.format)


class Out:
    """One of the assets that a function of `assets` makes; the options are those of `asset`."""

    def __init__(
        self,
        key: str | None = None,
        *,
        description: str = "",
        group: str | None = None,
        owners: Sequence[str] = (),
        tags: Iterable[str] | Mapping[str, str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | None = None,
        checks: Sequence[Check[..., Any]] = (),
    ) -> None:
        self.key = key
        self.description = description
        self.group = group
        self.owners = owners
        self.tags = tags
        self.metadata = metadata
        self.io = io
        self.checks = checks


class Asset(Generic[P, R]):
    """What `@asset` and `@assets` make of a function: one or several assets that are made together.

    `names`: what the function calls them when it returns several. `external`: it is observed and not made; `fn` is
    then what observes it, if anything does. `where`: file and line of the function.
    """

    def __init__(
        self,
        fn: Callable[P, Any] | None,
        outs: tuple[AssetSpec, ...],
        *,
        names: tuple[str, ...] = (),
        deps: tuple[str, ...] = (),
        partitions: Partitions | None = None,
        mappings: Mapping[str, PartitionMapping] | None = None,
        code_version: str | None = None,
        modules: tuple[ModuleType, ...] = (),
        options: TaskOptions | None = None,
        several: bool = False,
        external: bool = False,
        where: str,
    ) -> None:
        if fn is not None:
            functools.update_wrapper(self, fn)  # first, for it brings along the function's attributes
        self.fn = fn
        self.outs = outs
        self.names = names or tuple(each.key for each in outs)
        self.deps = deps
        self.partitions = Unpartitioned() if partitions is None else partitions
        self.mappings = {} if mappings is None else dict(mappings)
        self.code_version = code_version
        self.modules = modules
        self.options = options or TaskOptions()
        self.several = several
        self.external = external
        self.where = where

    @property
    def fn_name(self) -> str:
        """What its function is called, for messages; its key if there is none."""
        return self.key if self.fn is None else self.fn.__name__

    @property
    def key(self) -> str:
        """Its key; of several assets that are made together, the first one's."""
        return self.outs[0].key

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, as it is."""
        if self.fn is None:
            raise AssetDefinitionError(f"{self.where}: {self.key} is external, and nothing observes it")
        result: R = self.fn(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<asset {', '.join(each.key for each in self.outs)}>"


# ------------------------------------------------------------------------------------------------ decorators


@overload
def asset(fn: Callable[P, R], /) -> Asset[P, R]: ...
@overload
def asset(
    *,
    key: str | None = None,
    deps: Sequence[str | Asset[..., Any]] = (),
    description: str | None = None,
    group: str = "",
    owners: Sequence[str] = (),
    tags: Iterable[str] | Mapping[str, str] = (),
    metadata: Mapping[str, Any] | None = None,
    partitions: Partitions | None = None,
    mappings: Mapping[str, PartitionMapping] | None = None,
    code_version: str | None = None,
    modules: Sequence[ModuleType] = (),
    io: str | None = None,
    checks: Sequence[Check[..., Any]] = (),
    **options: Unpack[AssetOptions],
) -> Callable[[Callable[P, R]], Asset[P, R]]: ...
def asset(
    fn: Any = None,
    /,
    *,
    key: str | None = None,
    deps: Sequence[str | Asset[..., Any]] = (),
    description: str | None = None,
    group: str = "",
    owners: Sequence[str] = (),
    tags: Iterable[str] | Mapping[str, str] = (),
    metadata: Mapping[str, Any] | None = None,
    partitions: Partitions | None = None,
    mappings: Mapping[str, PartitionMapping] | None = None,
    code_version: str | None = None,
    modules: Sequence[ModuleType] = (),
    io: str | None = None,
    checks: Sequence[Check[..., Any]] = (),
    **options: Any,
) -> Any:
    """Make an asset of a function, ``def`` or ``async def``; with or without parentheses.

    `key`: what it is called; the function's name if not given. Its parameters are the upstream assets of their names
    (or what `In` says), an `AssetContext`, a `Config`, and resources by their types. `deps`: upstream assets that it
    does not read. `partitions`: of which it has a value each. `mappings`: by upstream key, which partitions of that a
    partition is made from, where the default is not meant. `code_version`: what tells one logic from another; without
    one the digest of the function's source, and of the functions of its module that it names. `modules`: modules of
    your own that the work is done by: what is imported does not count otherwise. `io`: how the value is
    stored (one of FORMATS), by its type if not given; "external": the function writes it elsewhere by itself, and
    returns `Materialized`. `checks`: what must hold of the value. `options`: those of a task (`stop`, `wait`, `retry`,
    `timeout`, `deadline`, `pool`, `rate`, `priority`, `executor`, ...).

    Raises `AssetDefinitionError` for what cannot be so, with file and line.
    """

    def decorate(function: Callable[P, R]) -> Asset[P, R]:
        where = where_of(function, "@asset")
        shared = _shared(
            function,
            options,
            where,
            deps=deps,
            partitions=partitions,
            mappings=mappings,
            code_version=code_version,
            modules=modules,
        )
        out = Out(
            key,
            description=inspect.getdoc(function) or "" if description is None else description,
            group=group,
            owners=owners,
            tags=tags,
            metadata=metadata,
            io=io,
            checks=checks,
        )
        return Asset(
            function,
            (_spec(out, function.__name__, group, where),),
            **shared,
        )

    return decorate if fn is None else decorate(fn)


def assets(
    *,
    outs: Mapping[str, Out],
    deps: Sequence[str | Asset[..., Any]] = (),
    group: str = "",
    partitions: Partitions | None = None,
    mappings: Mapping[str, PartitionMapping] | None = None,
    code_version: str | None = None,
    modules: Sequence[ModuleType] = (),
    **options: Unpack[AssetOptions],
) -> Callable[[Callable[P, R]], Asset[P, R]]:
    """Make several assets of a function that makes them together: it returns a mapping from the names in `outs` to
    values, or a tuple in their order. The rest is as for `asset`; what `outs` say of one asset goes before.
    """

    def decorate(function: Callable[P, R]) -> Asset[P, R]:
        where = where_of(function, "@assets")
        if not isinstance(outs, Mapping) or not outs:
            raise AssetDefinitionError(f"{where}: outs names assets, as in outs={{'orders': Out()}}, not {outs!r}")
        shared = _shared(
            function,
            options,
            where,
            deps=deps,
            partitions=partitions,
            mappings=mappings,
            code_version=code_version,
            modules=modules,
        )
        specs = tuple(_spec(out, name, group, where) for name, out in outs.items())
        return Asset(
            function,
            specs,
            names=tuple(outs),
            several=True,
            **shared,
        )

    return decorate


def external_asset(
    key: str,
    *,
    observe: Callable[..., Any] | None = None,
    description: str = "",
    group: str = "",
    owners: Sequence[str] = (),
    tags: Iterable[str] | Mapping[str, str] = (),
    metadata: Mapping[str, Any] | None = None,
    partitions: Partitions | None = None,
    **options: Unpack[AssetOptions],
) -> Asset[..., Any]:
    """An asset that something else makes. `observe` returns its data version, or a `Materialized`; without it nothing
    is known of it but that it is there. Raises `AssetDefinitionError` for what cannot be so.
    """
    caller = sys._getframe(1)
    here = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
    where = here if observe is None else where_of(observe, f"{here}: external_asset(observe=...)")
    out = Out(key, description=description, owners=owners, tags=tags, metadata=metadata, io="external")
    return Asset(
        observe,
        (_spec(out, key, group, where),),
        external=True,
        **_shared(observe, options, where, partitions=partitions),
    )


# ------------------------------------------------------------------------------------------------ checking


def _spec(out: Out, name: str, group: str, where: str) -> AssetSpec:
    if not isinstance(out, Out):
        raise AssetDefinitionError(f"{where}: outs takes Out(...) for {name!r}, not {out!r}")
    key = check_key(name if out.key is None else out.key, where)
    what = f"{where}: asset {key}"
    if out.io is not None and out.io not in FORMATS:
        raise AssetDefinitionError(f"{what}: io is one of {', '.join(FORMATS)}, not {out.io!r}")
    return AssetSpec(
        key=key,
        description=text_of(out.description, "description", what),
        group=text_of(group if out.group is None else out.group, "group", what),
        owners=list_of(str, out.owners, "owners", what),
        tags=tags_of(out.tags, what),
        metadata=metadata_of(out.metadata, what),
        format=out.io,
        checks=list_of(Check, out.checks, "checks", what),
    )


def _shared(
    fn: Callable[..., Any] | None,
    options: Mapping[str, Any],
    where: str,
    *,
    deps: Any = (),
    partitions: Any = None,
    mappings: Any = None,
    code_version: Any = None,
    modules: Any = (),
) -> dict[str, Any]:
    """What an asset's function has, however many assets it makes."""
    if partitions is not None and not isinstance(partitions, Partitions):
        raise AssetDefinitionError(f"{where}: partitions is Daily(...), Static(...) or such, not {partitions!r}")
    if code_version is not None and not (isinstance(code_version, str) and code_version):
        raise AssetDefinitionError(f"{where}: code_version is a text such as '2', not {code_version!r}")
    return {
        "deps": _keys(deps, where),
        "partitions": partitions,
        "mappings": mappings_of(mappings, where),
        "code_version": code_version,
        "modules": list_of(ModuleType, modules, "modules", where),
        "options": options_of(fn, options, where),
        "where": where,
    }


def _keys(given: Sequence[str | Asset[..., Any]], where: str) -> tuple[str, ...]:
    if isinstance(given, str | Asset):
        raise AssetDefinitionError(f"{where}: deps is a list, as in deps=[{given!r}], not one of its members")
    keys: list[str] = []
    for each in given:
        keys += [out.key for out in each.outs] if isinstance(each, Asset) else [check_key(each, where)]
    return tuple(keys)
