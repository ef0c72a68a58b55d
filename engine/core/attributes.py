"""The attributes of a run: scalars under names of the author's, by which runs are found.

Some are given with the start (`AttributesGiven`), the others are set by the workflow (`AttributesSet`); the last word
under a name holds, and None takes it away. Epochs go on with what there is; a child run has its own. The code never
reads them: what it knows it has set, and what was given is for those who search. So all that an instance keeps is which
names there are, for there may be so many and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from engine.core.events import AttributesSet, Decision
from engine.core.loop import DeterministicLoop
from engine.core.sites import site
from engine.errors import HoldfastError

__all__ = [
    "ATTRIBUTES_MAX",
    "ATTRIBUTE_NAME_MAX",
    "ATTRIBUTE_VALUE_BYTES_MAX",
    "AttributeValue",
    "Attributes",
    "check_attribute",
    "decode_attributes",
    "encode_attributes",
]

ATTRIBUTES_MAX: Final = 32
"""Attributes that one run has at a time: each is a row of an index."""
ATTRIBUTE_NAME_MAX: Final = 100
"""Characters of an attribute's name."""
ATTRIBUTE_VALUE_BYTES_MAX: Final = 1_000
"""UTF-8 bytes of an attribute that is a str: all of it is indexed."""

AttributeValue: TypeAlias = str | int | float | bool
"""What an attribute of a run may be. Numbers are compared as numbers: 3 finds 3.0, and True finds 1."""

_INT_MAX: Final = (1 << 63) - 1
_encode: Final = msgspec.json.Encoder(order="sorted").encode

decode_attributes: Final = msgspec.json.Decoder(dict[str, AttributeValue | None]).decode
"""What the payload of `AttributesGiven` or `AttributesSet` says. Raises `ValueError`, `RecursionError`."""


def encode_attributes(values: Mapping[str, AttributeValue | None], *, where: str, removing: bool) -> bytes | None:
    """As they are recorded; None: there are none. `where`: who gives them, for messages; `removing`: None takes away.

    Raises `HoldfastError`, naming what is wrong with which.
    """
    if not isinstance(values, Mapping):
        raise HoldfastError(f"{where}: attributes are given by name, as in {{'region': 'eu'}}, not {values!r}")
    for name, value in values.items():
        check_attribute(name, value, where=where, removing=removing)
    check_number(values, where=where)
    return _encode(dict(values)) if values else None


def check_number(names: Iterable[str], *, where: str) -> None:
    """Raise `HoldfastError` for more of them than a run may have."""
    if (count := len(list(names))) > ATTRIBUTES_MAX:
        raise HoldfastError(
            f"{where}: a run has at most {ATTRIBUTES_MAX} attributes, and this would make {count}: they are for finding"
            " runs, so put a set of values under one name, or take names away that nobody searches (None)"
        )


def check_attribute(name: Any, value: Any, *, where: str, removing: bool) -> None:
    """Raise `HoldfastError` for what cannot be an attribute of a run, or be searched for as one."""
    fine = isinstance(name, str) and name.isprintable() and 0 < len(name) <= ATTRIBUTE_NAME_MAX
    if not fine or " " in name or "=" in name:
        raise HoldfastError(
            f"{where}: {name!r} cannot name an attribute: 1 to {ATTRIBUTE_NAME_MAX} printable characters, no spaces, no"
            " '='"
        )
    if problem := _problem_of(value, removing=removing):
        raise HoldfastError(f"{where}: attribute {name!r} {problem}")


def _problem_of(value: Any, *, removing: bool) -> str:
    kind = type(value)
    if kind is bool or (value is None and removing):
        return ""
    if kind is str:
        if "\x00" in value:
            return "holds a NUL character"
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            return "holds a lone surrogate, and has no UTF-8 form"
        return (
            ""
            if size <= ATTRIBUTE_VALUE_BYTES_MAX
            else (
                f"has {size:,} bytes, at most {ATTRIBUTE_VALUE_BYTES_MAX:,} are allowed: it is for finding the run;"
                " values belong into arguments, results and states"
            )
        )
    if kind is int:
        return "" if -_INT_MAX - 1 <= value <= _INT_MAX else f"does not fit 64 bits: {value}"
    if kind is float:
        return "" if math.isfinite(value) else f"is {value}, which equals nothing"
    return f"must be a str, int, float or bool, not {value!r}: of an enum give its value, of a date its isoformat()"


class AttributesHost(Protocol):
    """What the attributes need of their instance."""

    @property
    def loop(self) -> DeterministicLoop: ...
    @property
    def now(self) -> int: ...
    def check_open(self, what: object) -> None: ...
    def decide(self, event: Decision, payload: bytes | None = None) -> None: ...


class Attributes:
    """Those of one instance. `names` are in the order in which they came."""

    __slots__ = ("_host", "_names")

    def __init__(self, host: AttributesHost) -> None:
        self._host = host
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Those that the run has."""
        return tuple(self._names)

    def begin(self, names: Iterable[str]) -> None:
        """The epoch begins with these."""
        self._names = dict.fromkeys(names)

    def set(self, values: Mapping[str, AttributeValue | None], *, where: str) -> None:
        """Set some, and take away those that are None. Raises `HoldfastError` for what cannot be one, or too many."""
        host = self._host
        host.check_open("the setting of attributes")
        payload = encode_attributes(values, where=where, removing=True)
        if host.loop.poisoned or payload is None:
            return
        names = {name: None for name in (*self._names, *values) if values.get(name, "") is not None}
        check_number(names, where=where)
        self._names = names
        id_ = host.loop.current_branch().next_id("set:attributes")
        host.decide(AttributesSet(at=host.now, id=id_, site=site()), payload)
