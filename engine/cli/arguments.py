"""``name=value`` on a command line as the arguments of a workflow, decoded to its annotated types.

A string parameter takes the text as it stands; everything else is read as its type (``3``, ``true``, ``2026-01-31``),
lists, dicts and Structs as JSON. Everything that is wrong is said at once, each with the parameter, its type and what
was given.
"""

from __future__ import annotations

import difflib
import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from engine import Workflow
from engine.cli.problems import Problem

__all__ = ["bind", "decode_text", "short_type", "signature_text", "type_text"]

_BOOLS: Final[Mapping[str, bool]] = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}
_NONES: Final = frozenset({"null", "none"})
_SAYS_NOTHING_MORE: Final = re.compile(r"Expected `[^`]*`, got `str`|Invalid (enum )?value .*|Invalid \w+")
_JSON_STARTS: Final = ("[", "{", '"')


def bind(definition: Workflow[..., Any], words: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the call that `words` ask for. Raises `Problem` naming all that is wrong."""
    parameters = inspect.signature(definition.fn).parameters
    types_ = {parameter.name: parameter.type for parameter in definition.arguments.parameters}
    variadic = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    problems: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        into, type_ = (values, types_.get(name)) if name != variadic else (extra, None)
        if not equals:
            problems.append(f"{word!r} is not of the form name=value")
        elif name in values or name in extra:
            problems.append(f"{name} is given twice")
        elif name in types_ and name != variadic:
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                type_ = list[type_]  # type: ignore[valid-type]
            _take(into, name, text, type_, problems)
        elif variadic is not None:
            _take(extra, name, text, types_[variadic], problems)
        else:
            problems.append(_unknown(name, types_))
    given = {word.partition("=")[0] for word in words}
    problems += [
        f"{parameter.name} is missing: it needs {type_text(parameter.type)}"
        for parameter in definition.arguments.parameters
        if parameter.required and parameter.name not in given
    ]
    if problems:
        separator = " " if len(problems) == 1 else "\n  "
        raise Problem(
            f"the arguments do not fit:{separator}" + "\n  ".join(problems),
            hint=f"The workflow is {signature_text(definition)}",
        )
    if extra and variadic is not None:
        values[variadic] = extra
    ordered = {name: values[name] for name in parameters if name in values}
    bound = inspect.BoundArguments(inspect.signature(definition.fn), ordered)
    return bound.args, bound.kwargs


def _take(into: dict[str, Any], name: str, text: str, type_: Any, problems: list[str]) -> None:
    try:
        into[name] = decode_text(text, type_)
    except (ValueError, RecursionError) as error:
        problems.append(f"{name} needs {type_text(type_)}, got {text!r}{_detail(error, text)}")


def _detail(error: Exception, text: str) -> str:
    """What the decoder adds to "needs X, got Y": the place inside a JSON value, a broken constraint."""
    said = str(error)
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        return f" ({said})" if text.startswith(_JSON_STARTS) else " (write it as JSON)"
    return "" if said == text or _SAYS_NOTHING_MORE.fullmatch(said) else f" ({said})"


def _unknown(name: str, types_: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, types_, n=1)
    if close:
        return f"there is no parameter {name}; did you mean {close[0]}?"
    return f"there is no parameter {name}; " + (f"there are {', '.join(types_)}" if types_ else "it takes none")


def decode_text(text: str, type_: Any) -> Any:
    """One value of `type_` from its text. Raises `ValueError` (msgspec's are) or `RecursionError`."""
    members = tuple(_members(type_))
    if type_ is Any or members == (Any,):
        return _json_or_text(text)
    if type(None) in members and text.lower() in _NONES:
        return None
    if all(member is str for member in members if member is not type(None)):
        return msgspec.convert(text, type_)
    first: Exception | None = None
    json_first = text.startswith(_JSON_STARTS) or any(_is_container(member) for member in members)
    for reading in (_as_word, _as_json, _as_scalar) if json_first else (_as_word, _as_scalar, _as_json):
        try:
            return reading(text, type_, members)
        except _NotThis:
            continue
        except (ValueError, RecursionError) as error:
            first = first if first is not None else error
    if first is None:
        raise ValueError(text)
    raise first


class _NotThis(Exception):
    """The text is not for this reading."""


def _as_word(text: str, _type: Any, members: tuple[Any, ...]) -> Any:
    if bool in members and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    for member in members:
        if isinstance(member, type) and issubclass(member, enum.Enum) and text in member.__members__:
            return member[text]
    raise _NotThis


def _as_scalar(text: str, type_: Any, members: tuple[Any, ...]) -> Any:
    if str not in members:
        return msgspec.convert(text, type_, strict=False)
    others = tuple(member for member in members if member is not str and not _is_container(member))
    try:
        return msgspec.convert(text, typing.Union[others], strict=False) if others else text  # noqa: UP007 - built at run time
    except ValueError:
        return text


def _as_json(text: str, type_: Any, members: tuple[Any, ...]) -> Any:
    if not any(_is_container(member) for member in members) and not text.startswith('"'):
        raise _NotThis
    return msgspec.json.decode(text, type=type_)


def _is_container(member: Any) -> bool:
    """Whether values of it are written as JSON arrays or objects."""
    origin = typing.get_origin(member) or member
    if origin is Literal or not isinstance(origin, type):
        return False
    if issubclass(origin, list | tuple | set | frozenset | dict | msgspec.Struct):
        return True
    return hasattr(origin, "__dataclass_fields__") or hasattr(origin, "__total__") or hasattr(origin, "__attrs_attrs__")


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def _members(type_: Any) -> Iterator[Any]:
    """The alternatives of a union, each without its annotations."""
    origin = typing.get_origin(type_)
    if origin is typing.Annotated:
        yield from _members(typing.get_args(type_)[0])
    elif origin in {typing.Union, types.UnionType}:
        for member in typing.get_args(type_):
            yield from _members(member)
    else:
        yield type_


_ARTICLED: Final[Mapping[Any, str]] = {
    str: "a string",
    int: "an int",
    float: "a float",
    bool: "a bool (true, false)",
    Any: "any value",
    type(None): "null",
}


def type_text(type_: Any) -> str:
    """A type in words: ``an int``, ``one of red, blue``, ``a date (2026-01-31)``."""
    members = tuple(_members(type_))
    if len(members) > 1:
        return " or ".join(type_text(member) for member in members)
    (member,) = members
    if typing.get_origin(member) is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(member))
    if isinstance(member, type) and issubclass(member, enum.Enum):
        return f"one of {', '.join(member.__members__)}"
    named = {
        "date": "a date (2026-01-31)",
        "datetime": "a datetime (2026-01-31T12:00:00Z)",
        "time": "a time (12:30:00)",
    }
    name = getattr(member, "__name__", "")
    if getattr(member, "__module__", "") == "datetime" and name in named:
        return named[name]
    if member in _ARTICLED:
        return _ARTICLED[member]
    return f"{short_type(member)} as JSON" if _is_container(member) else short_type(member)


def signature_text(definition: Workflow[..., Any]) -> str:
    """The workflow as its author wrote it, types without their modules: ``nightly(day: date, limit: int = 10)``."""
    types_ = {parameter.name: parameter.type for parameter in definition.arguments.parameters}
    parts = []
    for parameter in inspect.signature(definition.fn).parameters.values():
        stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
        type_ = types_[parameter.name]
        text = stars + parameter.name + ("" if type_ is Any else f": {short_type(type_)}")
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        parts.append(text)
    return f"{definition.name}({', '.join(parts)})"


def short_type(type_: Any) -> str:
    """A type as its author wrote it, without its modules: ``list[Row]``."""
    if typing.get_origin(type_) is typing.Annotated:
        return short_type(typing.get_args(type_)[0])
    members = tuple(_members(type_))
    if len(members) > 1:
        return " | ".join(short_type(member) for member in members)
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if type_ is type(None) or type_ is None:
        return "None"
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        inner = ", ".join("..." if each is Ellipsis else short_type(each) for each in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(getattr(type_, "__name__", type_))
