"""A history without what people wrote: strings become placeholders of the same shape, so that it still replays.

What code is told (arguments, results, signals: the payloads of facts) keeps its structure, its numbers and its keys;
each string becomes another of the same length and kinds of characters, the same one wherever it stands. What the code
said (the payloads of decisions) is left out, as a destroyed payload is: it would be compared with what the code now
makes of the placeholders. Payloads of notes are left out, too, for no replay looks at them.

Kept are dates, times, numbers in strings, UUIDs' form, ids, names and sites; and in headers everything but who and why,
and the key of a singleton, which a program makes of what it was told.
What cannot replay any more is code that looks into strings: a `Literal` or an enum, a tag of a union, an id or a branch
named by a string. `keep` names the keys whose strings stay.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from engine import HistoryEvent

__all__ = ["Redaction"]

_FACTS: Final = frozenset(
    ["RunStarted", "TaskCompleted", "TaskFailed", "SignalReceived", "RequestReceived", "ChildCompleted", "ChildFailed"]
)
"""Events whose payloads code is told."""
_ERRORS: Final = frozenset({"TaskFailed", "ChildFailed"})
_SAID: Final = frozenset({"by", "reason", "worker", "singleton", "key"})
"""Fields of headers: who and why, and the key of a singleton (`RunStarted`, `RunQueued`). No replay looks at them."""
_KEPT: Final = re.compile(
    r"""
    [-+]?\d[\d.,:]*([eE][-+]?\d+)?                        # numbers, and what is written like them: 12.50, 12:30
    | \d{4}-\d\d-\d\d([T\ ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?     # dates and times
    | [-+]?P(\d+(\.\d+)?[YMWD])*(T(\d+(\.\d+)?[HMS])+)?                       # durations
    """,
    re.VERBOSE,
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_TRIES: Final = 1_000  # for a placeholder that stands for no other string yet; of very short ones there are few


class Redaction:
    """Of one history. `secret` makes the placeholders: without it nobody can find out what stood there by trying."""

    def __init__(self, *, secret: bytes, keep: Collection[str] = ()) -> None:
        self._secret = secret
        self._keep = frozenset(keep)
        self._placeholders: dict[str, str] = {}
        self._taken: set[str] = set()

    def header(self, item: HistoryEvent) -> dict[str, Any]:
        """The header of an event, without who and why, and without the key of a singleton."""
        header: dict[str, Any] = msgspec.json.decode(item.header)
        for name in _SAID & header.keys():
            if header["type"] not in ("RunSuspended", "SendRejected"):  # there it is one of a few words
                header[name] = self._text(header[name])
        return header

    def payload(self, item: HistoryEvent) -> bytes | None:
        """The payload of an event; None where there is none, or it is left out."""
        type_ = type(item.event).__name__
        if item.payload is None or type_ not in _FACTS or item.payload[:1] in b" \0":  # it lies in a storage
            return None
        value = msgspec.json.decode(item.payload)
        return msgspec.json.encode(self._error(value) if type_ in _ERRORS else self._value(value))

    def _error(self, value: Any) -> Any:
        """An exception keeps its types, and loses its traceback."""
        if not isinstance(value, dict):
            return self._value(value)
        said = {name: each for name, each in value.items() if name not in ("type", "traceback", "cause", "group")}
        found = {"type": value.get("type", ""), **self._value(said)}
        if value.get("cause") is not None:
            found["cause"] = self._error(value["cause"])
        if value.get("group"):
            found["group"] = [self._error(each) for each in value["group"]]
        return found

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self._text(value)
            case list():
                return [self._value(each) for each in value]
            case dict():
                return self._object(value)
            case _:
                return value

    def _object(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: each if name in self._keep else self._value(each) for name, each in value.items()}

    def _text(self, text: str) -> str:
        if not text or _KEPT.fullmatch(text):
            return text
        known = self._placeholders.get(text)
        if known is not None:
            return known
        made = ""
        for attempt in range(_TRIES):
            made = self._made(text, attempt)
            if made not in self._taken:
                break
        self._taken.add(made)
        self._placeholders[text] = made
        return made

    def _made(self, text: str, attempt: int) -> str:
        is_uuid = _UUID.fullmatch(text) is not None
        chosen: list[str] = []
        digest = b""
        for index, letter in enumerate(text):
            if index % 32 == 0:
                digest = sha256(self._secret + f"{attempt} {index} {text}".encode()).digest()
            number = digest[index % 32]
            chosen.append(letter if is_uuid and index in (14, 19) else _like(letter, number, hexadecimal=is_uuid))
        return "".join(chosen)


def _like(letter: str, number: int, *, hexadecimal: bool) -> str:
    """Another of the same kind; spaces and punctuation stay."""
    if letter.isdigit():
        return str(number % 10)
    if not letter.isalpha():
        return letter
    letters = "abcdef" if hexadecimal else string.ascii_lowercase
    found = letters[number % len(letters)]
    return found.upper() if letter.isupper() else found
