"""What authors give with an asset, checked: texts, lists, tags, metadata, mappings, the options of its task.

It refuses with file and line what cannot be so, and knows nothing of what it is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, TypedDict, TypeVar

from engine import Rate, Task, TaskOptions
from engine.assets.mappings import Mapping as PartitionMapping
from engine.assets.metadata import MetadataValue, checked_metadata
from engine.errors import AssetDefinitionError, AssetError, DefinitionError

__all__ = ["AssetOptions", "list_of", "mappings_of", "metadata_of", "options_of", "tags_of", "text_of"]

T = TypeVar("T")


class AssetOptions(TypedDict, total=False):
    """The options of a task that an asset takes, as `task` has them."""

    stop: Callable[[Any], Any] | None
    wait: Callable[[Any], Any] | None
    retry: Callable[[Any], Any] | None
    timeout: float | None
    deadline: float | None
    executor: str | None
    heartbeat_timeout: float | None
    breaker: str | None
    pool: str | None
    rate: Rate | str | None
    priority: int
    fairness_key: str | Callable[..., str] | None


_MANY: Final[dict[type, str]] = {str: "texts", ModuleType: "modules"}
_NO_OPTION: Final = {
    "effect": "an asset's task may be run again: what it writes has the name of its content",
    "reconcile": "an asset's task may be run again: what it writes has the name of its content",
    "memo": "versions of assets are what memos are for tasks",
    "on_cancel": "nobody awaits it but its run",
}


def text_of(given: Any, option: str, where: str) -> str:
    """A text."""
    if not isinstance(given, str):
        raise AssetDefinitionError(f"{where}: {option} is a text, not {given!r}")
    return given


def list_of(kind: type[T], given: Any, option: str, where: str) -> tuple[T, ...]:
    """A list whose members are all of that kind."""
    if isinstance(given, kind) or not isinstance(given, Iterable):
        raise AssetDefinitionError(f"{where}: {option} is a list, as in {option}=[...], not {given!r}")
    found = tuple(given)
    for each in found:
        if not isinstance(each, kind):
            name = _MANY.get(kind, f"{kind.__name__.lower()}s")
            raise AssetDefinitionError(f"{where}: {option} is a list of {name}, and {each!r} is none")
    return found


def metadata_of(given: Any, where: str) -> dict[str, MetadataValue]:
    """Metadata of a definition."""
    if given is not None and not isinstance(given, Mapping):
        raise AssetDefinitionError(
            f"{where}: metadata is a mapping, as in metadata={{'source': 'shop'}}, not {given!r}"
        )
    try:
        return checked_metadata(given or {}, where)
    except AssetError as error:
        raise AssetDefinitionError(str(error)) from None


def tags_of(given: Any, where: str) -> dict[str, str]:
    """Tags, of ``["daily", "tier=1"]`` or a mapping."""
    if isinstance(given, Mapping):
        tags = dict(given)
    else:
        tags = dict(each.partition("=")[::2] for each in list_of(str, given, "tags", where))
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise AssetDefinitionError(f"{where}: the tag {name!r}: {value!r} is no text: tags are texts")
        if not name or not name.isprintable() or not value.isprintable() or set(name) & set(" ,=:+!"):
            raise AssetDefinitionError(f"{where}: {name!r} cannot be a tag: no spaces, ',', '=', ':', '+' or '!'")
    return tags


def mappings_of(given: Any, where: str) -> dict[str, PartitionMapping]:
    """By upstream key, which partitions are meant."""
    if given is not None and not isinstance(given, Mapping):
        raise AssetDefinitionError(f"{where}: mappings takes an upstream key and a mapping for each, not {given!r}")
    for key, value in (given or {}).items():
        if not isinstance(value, PartitionMapping):
            raise AssetDefinitionError(f"{where}: mappings[{key!r}] is no mapping of partitions: {value!r}")
    return dict(given or {})


def options_of(fn: Callable[..., Any] | None, given: Mapping[str, Any], where: str) -> TaskOptions:
    """Those of a task, without the ones that have no meaning here."""
    for name, why in _NO_OPTION.items():
        if name in given:
            raise AssetDefinitionError(f"{where}: an asset takes no {name}: {why}")
    known = AssetOptions.__annotations__.keys()
    if unknown := sorted(given.keys() - known):
        raise AssetDefinitionError(
            f"{where}: no option {unknown[0]!r}; of a task's there are {', '.join(sorted(known))}"
        )
    options = TaskOptions(**given)
    if options.executor == "processes" and inspect.iscoroutinefunction(fn):
        raise AssetDefinitionError(f"{where}: it is an `async def`, which runs on executor 'loop', not in 'processes'")
    if given:
        try:
            Task(_nothing if fn is None else fn, name="asset", options=options)  # refuses what cannot be so
        except DefinitionError as error:
            raise AssetDefinitionError(f"{where}: {error}") from None
    return options


def _nothing() -> None:
    """Stands where nothing observes."""
