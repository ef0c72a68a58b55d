"""Which assets are meant: ``orders``, ``+orders``, ``orders+``, ``tag:daily``, ``group:sales``, ``stale``, and more.

Words beside each other are united, commas between them keep what both mean, and ``!`` before a word takes away:
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
    "orders (one asset), +orders (with all that it is made from), orders+ (with all that is made from it),"
    " 2+orders+1 (so many steps), raw/* or key:raw/* (by pattern), tag:daily or tag:tier=1, group:sales, owner:ann"
    " (patterns, too), stale, * (all); a comma keeps what both sides mean, a space unites, ! before a word takes away"
)

_TERM: Final = re.compile(r"(?P<above>(?P<ups>\d*)\+)?(?P<what>[^+]+)(?P<below>\+(?P<downs>\d*))?")
_WORD: Final = re.compile(r"\S+")
_PATTERN: Final = re.compile(r"[*?\[]")
_STEPS_DIGITS: Final = 9
"""Of a number of steps: there are no more assets than that."""


class World(Struct, frozen=True):
    """What a selection is made in. `node_of`: by key the node that makes it. `stale`: the names of stale nodes."""

    specs: Mapping[str, AssetSpec]
    node_of: Callable[[str], str]
    graph: Graph
    stale: Callable[[], Collection[str]]


class _Term(Struct, frozen=True):
    """A part of a selection, and where it stands, for messages."""

    text: str
    selection: str
    place: int  # from 0

    def refused(self, why: str) -> AssetError:
        return AssetError(f"{why}; at character {self.place + 1} of the selection {self.selection!r}")


def select(texts: Iterable[str], world: World) -> frozenset[str]:
    """The names of the nodes that are meant; of no text at all: all. Raises `AssetError`, with the place, for what
    means nothing.
    """
    words = [_Term(found[0], text, found.start()) for text in texts for found in _WORD.finditer(text)]
    plus = [word for word in words if not word.text.startswith("!")]
    chosen = _united(plus, world) if plus else set(world.graph.upstream)
    minus = [_Term(word.text[1:], word.selection, word.place + 1) for word in words if word.text.startswith("!")]
    return frozenset(chosen - _united(minus, world))


def _united(words: Iterable[_Term], world: World) -> set[str]:
    return set().union(*(_both(word, world) for word in words))


def _both(word: _Term, world: World) -> set[str]:
    parts: list[_Term] = []
    place = word.place
    for text in word.text.split(","):
        parts.append(_Term(text, word.selection, place))
        place += len(text) + 1
    return set.intersection(*(_one(part, world) for part in parts))


def _one(term: _Term, world: World) -> set[str]:
    if not term.text:
        raise term.refused("nothing stands there")
    if term.text.startswith("!"):
        raise term.refused(f"a ! stands before a whole word: {term.text!r} is only a part of one")
    found = _TERM.fullmatch(term.text)
    if found is None:
        raise term.refused(f"{term.text!r} means nothing: {SELECTION_FORMS}")
    meant = _meant(_Term(found["what"], term.selection, term.place + found.start("what")), world)
    chosen = set(meant)
    if found["above"]:
        chosen |= world.graph.above(meant, steps=_steps(found["ups"], term))
    if found["below"]:
        chosen |= world.graph.below(meant, steps=_steps(found["downs"], term))
    return chosen


def _steps(digits: str, term: _Term) -> int | None:
    if len(digits) > _STEPS_DIGITS:
        raise term.refused(f"{digits[:_STEPS_DIGITS]}... is no number of steps")
    return int(digits) if digits else None


def _meant(term: _Term, world: World) -> set[str]:
    what = term.text
    kind, colon, value = what.partition(":")
    if what == "*":
        return set(world.graph.upstream)
    if what in world.specs:
        return {world.node_of(what)}
    if what == "stale":
        return set(world.stale())
    if not colon and _PATTERN.search(what):
        kind, value = "key", what
    elif not colon:
        raise term.refused(f"{what!r} is no asset.{nearest(what, [*world.specs, 'stale'])}")
    if not value:
        raise term.refused(f"{what!r} lacks what comes behind the colon")
    fits = _fitting(kind, value, world)
    if fits is None:
        raise term.refused(f"{what!r} means nothing: {SELECTION_FORMS}")
    if not fits:
        raise term.refused(f"{what!r} means no asset.{nearest(value, _there(kind, world))}")
    return {world.node_of(key) for key in fits}


def _fitting(kind: str, pattern: str, world: World) -> list[str] | None:
    """The keys of assets of which that is so; None for a kind that there is none of."""
    specs = world.specs.values()
    match kind:
        case "key":
            return [spec.key for spec in specs if fnmatchcase(spec.key, pattern)]
        case "tag":
            name, equals, wanted = pattern.partition("=")
            return [
                spec.key
                for spec in specs
                for tag, value in spec.tags.items()
                if fnmatchcase(tag, name) and (not equals or fnmatchcase(value, wanted))
            ]
        case "group":
            return [spec.key for spec in specs if fnmatchcase(spec.group, pattern) and spec.group]
        case "owner":
            return [spec.key for spec in specs if any(fnmatchcase(owner, pattern) for owner in spec.owners)]
        case _:
            return None


def _there(kind: str, world: World) -> set[str]:
    specs = world.specs.values()
    match kind:
        case "tag":
            return {each for spec in specs for tag, value in spec.tags.items() for each in (tag, f"{tag}={value}")}
        case "group":
            return {spec.group for spec in specs if spec.group}
        case "owner":
            return {owner for spec in specs for owner in spec.owners}
        case _:
            return set(world.specs)
