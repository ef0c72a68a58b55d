r"""What a partition key may be, and how keys and sets of them are written.

A key is 1 to `KEY_MAX` printable characters; only the one key of what is not partitioned is the empty text. A key of
two dimensions is `first|second`, where `|` and `\` within a dimension stand behind a `\`.

A set is items with `,` between them: `2013-01..2013-06,2013-09`. An item is a key, a range `from..to` whose ends may
be left out, or `*` for all there are; in two dimensions it is two of these, `eu..us|2013-01..2013-06`: all pairs of
them. Within a set a `\` takes any character as it is, and a key with `,`, `|`, `*`, `\`, dots that could be taken for
a range, or blanks at its ends is written so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from engine.errors import PartitionError

KEY_MAX: Final = 200
"""Characters of a key, of both dimensions together."""

_SHOWN_MAX: Final = 60
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SPECIAL: Final = re.compile(r"[\\,|*.]|^\s|\s$")
_TOKEN: Final = re.compile(r"\\(?P<plain>.?)|(?P<range>\.\.)|(?P<mark>[,|*])|(?P<text>[^\\.,|*]+|\.)", re.DOTALL)


class Span(NamedTuple):
    """One item in one dimension: a key (both ends are it), or a range with one end, both, or none."""

    first: str | None
    last: str | None


def shown(key: str) -> str:
    """A key as messages quote it, cut when it is long."""
    return repr(key) if len(key) <= _SHOWN_MAX else f"{key[:_SHOWN_MAX]!r}... ({len(key)} characters)"


def check_key(key: object) -> str:
    """The key, if it can be one; a `PartitionError` says what is wrong with it."""
    if not isinstance(key, str):
        raise PartitionError(f"a partition key is a str, not {type(key).__name__}: {key!r}")
    if not key:
        raise PartitionError("a partition key is not empty: only what is not partitioned has the key ''")
    if len(key) > KEY_MAX:
        raise PartitionError(f"the partition key {shown(key)} is longer than {KEY_MAX} characters")
    if found := _CONTROL.search(key):
        raise PartitionError(
            f"the partition key {shown(key)} holds {found[0]!r}: "
            "no control characters, line breaks or halves of characters"
        )
    return key


def join(first: str, second: str) -> str:
    """The key of two dimensions."""
    return f"{_dimension(first)}|{_dimension(second)}"


def _dimension(key: str) -> str:
    return key if "\\" not in key and "|" not in key else key.replace("\\", "\\\\").replace("|", "\\|")


def split(key: str) -> tuple[str, str] | None:
    """The two keys of a key of two dimensions; None when `join` does not write it so."""
    if "\\" not in key:
        first, bar, second = key.partition("|")
        return (first, second) if bar and "|" not in second else None
    parts = [""]
    for found in re.finditer(r"\\(.)|(\|)|([^\\|]+)|\\", key, re.DOTALL):
        if found[2]:
            parts.append("")
        else:
            parts[-1] += found[1] or found[3] or "\\"
    return (parts[0], parts[1]) if len(parts) == 2 and join(*parts) == key else None


def quote(key: str) -> str:
    """A key of one dimension as it stands in the text of a set.

    The empty key is `*`: it is all that there is of what is not partitioned.
    """
    if not key:
        return "*"
    if not _SPECIAL.search(key):
        return key
    dots = ".." in key or key[0] == "." or key[-1] == "."
    ends = {0, len(key) - 1}
    return "".join(
        f"\\{each}" if each in "\\,|*" or (each == "." and dots) or (each.isspace() and at in ends) else each
        for at, each in enumerate(key)
    )


def write_span(first: str, last: str) -> str:
    """A key, or the range from the first to the last."""
    return quote(first) if first == last else f"{quote(first)}..{quote(last)}"


def read_items(text: str, dimensions: int) -> list[tuple[Span, ...]]:
    """The items of a set's text, with a span for each dimension. A `PartitionError` says which is wrong, and how."""
    if not text.strip():
        return []
    items = [[[_Part()]]]
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark == ",":
            items.append([[_Part()]])
        elif mark == "|":
            items[-1].append([_Part()])
        elif token["range"]:
            items[-1][-1].append(_Part())
        else:
            items[-1][-1][-1].add(token)
    return [_item(item, dimensions, text, number) for number, item in enumerate(items, 1)]


def _item(sides: Sequence[Sequence[_Part]], dimensions: int, text: str, number: int) -> tuple[Span, ...]:
    where = f"item {number} of {shown(text)}"
    if len(sides) == 1 and len(sides[0]) == 1 and sides[0][0].is_all:
        return (Span(None, None),) * dimensions
    if len(sides) != dimensions:
        wanted = "FIRST|SECOND" if dimensions == 2 else "one key or range (a '|' within a key is written '\\|')"
        raise PartitionError(f"{where} has {_parts(len(sides))}; an item of this set is {wanted}")
    return tuple(_span(side, where) for side in sides)


def _parts(count: int) -> str:
    return "one part" if count == 1 else f"{count} parts"


def _span(ends: Sequence[_Part], where: str) -> Span:
    if len(ends) > 2:
        raise PartitionError(f"{where} has more than one '..'; dots of a key are written '\\.'")
    keys = [end.key() for end in ends]
    if len(ends) == 1:
        if ends[0].is_all:
            return Span(None, None)
        if not keys[0]:
            raise PartitionError(f"{where} is empty; items stand between commas, '*' is all there are")
        return Span(keys[0], keys[0])
    if any(end.is_all for end in ends):
        raise PartitionError(f"{where} has '*' at an end of a range; an end that is left out is the first, or the last")
    return Span(*(key or None for key in keys))


class _Part:
    """A key while it is read: blanks around it are dropped, unless they were written behind a backslash."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, bool]] = []  # text, and whether it is taken as it is

    def add(self, token: re.Match[str]) -> None:
        plain = token["plain"]
        self._pieces.append((token["mark"] or token["text"] or plain or "\\", plain is not None))

    @property
    def is_all(self) -> bool:
        return [(text, plain) for text, plain in self._pieces if text.strip() or plain] == [("*", False)]

    def key(self) -> str:
        pieces = self._pieces[:]
        while pieces and not pieces[0][1] and not pieces[0][0].strip():
            del pieces[0]
        while pieces and not pieces[-1][1] and not pieces[-1][0].strip():
            del pieces[-1]
        if pieces and not pieces[0][1]:
            pieces[0] = (pieces[0][0].lstrip(), False)
        if pieces and not pieces[-1][1]:
            pieces[-1] = (pieces[-1][0].rstrip(), False)
        return "".join(text for text, _ in pieces)
