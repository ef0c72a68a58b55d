"""Which assets are meant: ``orders``, ``+orders``, ``orders+``, ``2+orders``, ``tag:daily``, ``group:sales``, ``stale``.

Words beside each other are united, commas between them keep what both mean, and ``!`` takes away:
``group:sales,stale !orders``. Pure: what is stale is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct

from engine.assets.definition import AssetSpec
from engine.assets.graph import Graph
from engine.assets.nodes import nearest
from engine.errors import AssetError

__all__ = ["SELECTION_FORMS", "World", "select"]

SELECTION_FORMS: Final = (
    "orders (one asset), +orders (with all that it is made from), orders+ (with all that is made from it), 2+orders+1 (so"
    " many steps), key:raw/* (by pattern), tag:daily or tag:tier=1, group:sales, owner:ann, stale, * (all); a comma keeps"
    " what both sides mean, a space unites, ! takes away"
)

_TERM: Final = re.compile(r"(?P<above>(?P<ups>\d*)\+)?(?P<what>[^+]+)(?P<below>\+(?P<downs>\d*))?")


class World(Struct, frozen=True):
    """What a selection is made in. `node_of`: by key the node that makes it. `stale`: the names of stale nodes."""

    specs: Mapping[str, AssetSpec]
    node_of: Callable[[str], str]
    graph: Graph
    stale: Callable[[], Collection[str]]


def select(texts: Iterable[str], world: World) -> frozenset[str]:
    """The names of the nodes that are meant. Raises `AssetError`, with the place, for what means nothing."""
    words = [word for text in texts for word in text.split()]
    if not words:
        return frozenset(world.graph.upstream)
    plus = [word for word in words if not word.startswith("!")]
    chosen = set().union(*(_all_of(word, world) for word in plus)) if plus else set(world.graph.upstream)
    for word in words:
        if word.startswith("!"):
            chosen -= _all_of(word[1:], world)
    return frozenset(chosen)


def _all_of(word: str, world: World) -> set[str]:
    parts = word.split(",")
    if not all(parts):
        raise AssetError(f"the selection {word!r} has nothing on one side of a comma")
    return set.intersection(*(_one(part, word, world) for part in parts))


def _one(term: str, word: str, world: World) -> set[str]:
    found = _TERM.fullmatch(term)
    if found is None:
        raise AssetError(f"{term!r} in the selection {word!r} means nothing; {SELECTION_FORMS}")
    meant = _meant(found["what"], word, world)
    chosen = set(meant)
    if found["above"]:
        chosen |= world.graph.above(meant, steps=int(found["ups"]) if found["ups"] else None)
    if found["below"]:
        chosen |= world.graph.below(meant, steps=int(found["downs"]) if found["downs"] else None)
    return chosen


def _meant(what: str, word: str, world: World) -> set[str]:
    kind, colon, value = what.partition(":")
    if not colon:
        return _named(what, word, world)
    match kind:
        case "key":
            fits = [spec for spec in world.specs.values() if fnmatchcase(spec.key, value)]
        case "tag":
            name, equals, wanted = value.partition("=")
            fits = [
                spec for spec in world.specs.values() if name in spec.tags and (not equals or spec.tags[name] == wanted)
            ]
        case "group":
            fits = [spec for spec in world.specs.values() if spec.group == value]
        case "owner":
            fits = [spec for spec in world.specs.values() if value in spec.owners]
        case _:
            raise AssetError(f"{what!r} in the selection {word!r} means nothing; {SELECTION_FORMS}")
    if not fits:
        there = _there(kind, world)
        raise AssetError(f"{what!r} in the selection {word!r} means no asset.{nearest(value, there)}")
    return {world.node_of(spec.key) for spec in fits}


def _named(what: str, word: str, world: World) -> set[str]:
    if what == "*":
        return set(world.graph.upstream)
    if what in world.specs:
        return {world.node_of(what)}
    if what == "stale":
        return set(world.stale())
    raise AssetError(f"{what!r} in the selection {word!r} is no asset.{nearest(what, [*world.specs, 'stale'])}")


def _there(kind: str, world: World) -> set[str]:
    specs = world.specs.values()
    match kind:
        case "tag":
            return {name for spec in specs for name in spec.tags}
        case "group":
            return {spec.group for spec in specs if spec.group}
        case "owner":
            return {owner for spec in specs for owner in spec.owners}
        case _:
            return set(world.specs)
