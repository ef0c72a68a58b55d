"""The signals, requests, queries, states and feeds that a target declares, found by name; and VALUE as their types say.

They are looked for among the names of the target's module, then of the modules that its workflows live in, then of the
modules that those name.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar

import msgspec

from engine import Feed, Query, Request, Signal, State
from engine.cli.arguments import short_type, type_text
from engine.cli.problems import Problem
from engine.cli.targets import Target

__all__ = ["INPUT_BYTES_MAX", "declared", "find", "find_or_none", "modules_of", "types_text", "unknown", "value_of"]

D = TypeVar("D", Signal[Any], Request[Any, Any], Query[Any, Any], State[Any], Feed[Any])

INPUT_BYTES_MAX: Final = 16 << 20
"""Bytes of a value that are read from standard input."""
_WORDS: Final[Mapping[type[Any], tuple[str, str, str]]] = {
    Signal: ("signal", "signals", 'approve = Signal("approve", bool)'),
    Request: ("request", "requests", 'review = Request("review", Draft, Verdict)'),
    Query: ("query", "queries", 'progress = Query("progress", None, int)'),
    State: ("state", "states", 'phase = State("phase", str)'),
    Feed: ("feed", "feeds", 'log = Feed("log", str)'),
}


def find(target: Target, kind: type[D], name: str) -> D:
    """The one of this name, or of the variable of this name. Raises `Problem` that lists those that exist."""
    found = find_or_none(target, kind, name)
    if found is not None:
        return found
    raise Problem(unknown(target, kind, name))


def unknown(target: Target, kind: type[D], name: str) -> str:
    """That there is none of this name, and which there are."""
    one, several, example = _WORDS[kind]
    there = declared(target, kind)
    if not there:
        return (
            f"{target.source} has no {one} {name!r}, nor any other: declare it beside the workflow, {example}"
            f" (from engine import {kind.__name__})"
        )
    listed = ", ".join(f"{each.name} ({types_text(each)})" for each in there.values())
    close = difflib.get_close_matches(name, there, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"{target.source} has no {one} {name!r}; its {several}: {listed}.{meant}"


def find_or_none(target: Target, kind: type[D], name: str) -> D | None:
    """Likewise; None when there is none. Raises `Problem` when two of the same name are of different types."""
    variable = getattr(target.module, name, None)
    there = declared(target, kind, asked=name)
    return there.get(name) or (variable if isinstance(variable, kind) else None)


def declared(target: Target, kind: type[D], *, asked: str = "") -> dict[str, D]:
    """All of a kind by name. `asked`: the name of which there must not be two that differ."""
    found: dict[str, D] = {}
    for modules in modules_of(target):
        near: dict[str, D] = {}
        for module in modules:
            for value in list(vars(module).values()):
                if not isinstance(value, kind) or value.name in found:
                    continue
                other = near.setdefault(value.name, value)
                if value.name == asked and types_text(other) != types_text(value):
                    raise Problem(
                        f"{target.source} knows two {_WORDS[kind][1]} {asked!r}, of {types_text(other)} and of"
                        f" {types_text(value)}: name the file of the one that is meant as target"
                    )
        found.update(near)
    return found


def modules_of(target: Target) -> Iterator[list[ModuleType]]:
    """Where the target's names may be declared, the nearest first."""
    yield [target.module]
    names = dict.fromkeys(each.fn.__module__ for each in target.workflows)
    homes = [module for name in names if (module := sys.modules.get(name)) is not None and module is not target.module]
    yield homes
    # `import shop` in a file, and `shop.approve` in its code.
    yield [value for module in (target.module, *homes) for value in vars(module).values() if _is_a_users(value)]


def _is_a_users(value: object) -> bool:
    if not isinstance(value, ModuleType):
        return False
    top = value.__name__.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in {"engine", "eventstore"}


def types_text(named: Signal[Any] | Request[Any, Any] | Query[Any, Any] | State[Any] | Feed[Any]) -> str:
    """The declared types, as their author wrote them: ``bool``, ``Draft -> Verdict``."""
    if isinstance(named, Request | Query):
        return f"{short_type(named.argument.type)} -> {short_type(named.result.type)}"
    return short_type(named.codec.type)


# ------------------------------------------------------------------------------------------------ values


def value_of(text: str | None, type_: Any, *, what: str) -> Any:
    """VALUE as a value of its declared type. Raises `Problem` that names the type and what was given."""
    if text is None:
        try:
            return msgspec.convert(None, type_)
        except msgspec.ValidationError:
            raise Problem(
                f"{what} needs {type_text(type_)}: give it as VALUE, in JSON, or - to read it from standard input"
            ) from None
    given = _from_input() if text == "-" else text
    try:
        return msgspec.json.decode(given, type=type_)
    except Exception as error:  # a user's __post_init__ may raise anything
        try:
            return msgspec.convert(given.removesuffix("\n") if text == "-" else given, type_)
        except Exception:
            raise _misfit(what, type_, given, error) from error


def _misfit(what: str, type_: Any, given: str, error: Exception) -> Problem:
    shown = given if len(given) <= 80 else f"{given[:79]}…"
    if type_ is None or type_ is type(None):
        return Problem(f"{what} takes no value, got {shown!r}")
    malformed = isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError)
    if malformed:
        why = f" ({error})" if given.lstrip().startswith(("[", "{", '"')) else " (write it as JSON)"
    else:
        why = f" ({error})"
    return Problem(f"{what} needs {type_text(type_)}, got {shown!r}{why}")


def _from_input() -> str:
    data = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    if len(data) > INPUT_BYTES_MAX:
        raise Problem(f"standard input holds more than {INPUT_BYTES_MAX:,} bytes, which no value may have")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem(f"standard input is not UTF-8 text: {error}") from None
