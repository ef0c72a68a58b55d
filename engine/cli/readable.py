"""Recorded values, times and errors as text for a person. Pure: text from data, nothing printed here.

Reads the recorded JSON, so it needs no code of the workflow and imports nothing by a recorded name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from engine import ErrorInfo

__all__ = [
    "amount",
    "attributes_text",
    "by_and_why",
    "clipped",
    "clock",
    "counted",
    "duration",
    "error_lines",
    "error_text",
    "instant",
    "moment",
    "one_line",
    "one_line_of",
    "value_lines",
    "waiting_for",
]

ITEMS_SHOWN: Final = 30
"""Items of one list or dict that are shown; `--json` shows all."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST: Final = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)  # in every time zone
_OUR_ERRORS: Final = "engine.errors."
_TASK_ERROR: Final = "engine.errors.TaskError"
_RECORDED: Final = "Recorded traceback (most recent call last):"


# ------------------------------------------------------------------------------------------------ times


def duration(seconds: float) -> str:
    """``340 ms``, ``4.2 s``, ``3 m 07 s``, ``2 h 05 m``, ``3 d 04 h``."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours == 0:
        return f"{minutes} m {whole % 60:02} s"
    if days == 0:
        return f"{hours} h {minutes % 60:02} m"
    return f"{days} d {hours % 24:02} h"


def moment(microseconds: int) -> datetime:
    """A recorded time in the local time zone."""
    return _time(microseconds).astimezone()


def instant(microseconds: int | None) -> str | None:
    """A recorded time as ISO 8601 in UTC, for machines."""
    if microseconds is None:
        return None
    return _time(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _time(microseconds: int) -> datetime:
    """The time; the first or last there is for one that no calendar has: a history is shown whatever it says."""
    return _EPOCH + timedelta(microseconds=min(max(microseconds, _FIRST), _LAST))


def clock(microseconds: int, *, day: bool = True) -> str:
    """A recorded time for a person: ``2026-01-31 12:05:09``, or without the day and with milliseconds."""
    local = moment(microseconds)
    return local.strftime("%Y-%m-%d %H:%M:%S") if day else local.isoformat(timespec="milliseconds")[11:23]


# ------------------------------------------------------------------------------------------------ values


def clipped(text: str, width: int) -> str:
    """At most `width` characters of it, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: max(1, width - 1)]}…"


def by_and_why(by: str, reason: str) -> str:
    """`` by ann: maintenance``, as far as it is known."""
    return f"{f' by {by}' if by else ''}{f': {reason}' if reason else ''}"


def counted(number: int, word: str) -> str:
    """``1 run``, ``1,200 runs``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def amount(size: int) -> str:
    """Bytes: ``812 B``, ``45.1 kB``, ``3.2 GB``."""
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 999.95:
            break
        number, unit = number / 1000, larger
    return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"


def waiting_for(*, begins_at: int, singleton: str, behind: str = "") -> str:
    """What a run that is queued waits for: its time, its turn, or (neither is known) that nothing holds it."""
    time = f"until {clock(begins_at)}" if begins_at else ""
    turn = (f"behind run {behind} " if behind else "") + f"for key {singleton!r}" if singleton else ""
    return ", ".join(each for each in (time, turn) if each)


def attributes_text(attributes: Mapping[str, Any]) -> str:
    """``region=eu amount=3``, as `holdfast runs --attribute` takes them: a str that reads as other JSON in quotes."""
    return " ".join(f"{name}={_attribute(value)}" for name, value in attributes.items())


def _attribute(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if not isinstance(value, str) or not value or any(letter.isspace() or letter == '"' for letter in value):
        return text
    try:
        msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return value
    return text


def one_line(payload: bytes | None, width: int = 80) -> str:
    """A recorded value in one line of JSON."""
    return "(none)" if payload is None else clipped(payload.decode("utf-8", "replace"), width)


def one_line_of(value: Any, width: int = 80) -> str:
    """A value likewise."""
    return clipped(msgspec.json.encode(value).decode(), width)


def value_lines(payload: bytes | None) -> list[str]:
    """A recorded value as lines: ``key: value``, items after dashes, text as it stands, and so what nests too deep."""
    if payload is None:
        return ["(no value recorded)"]
    try:
        return list(_lines(msgspec.json.decode(payload)))
    except (ValueError, RecursionError):
        return [payload.decode("utf-8", "replace")]


def _lines(value: Any) -> Iterator[str]:
    match value:
        case dict() if value:
            for key, item in list(value.items())[:ITEMS_SHOWN]:
                yield from _entry(f"{key}:", item)
            yield from _more(len(value))
        case list() if value:
            for item in value[:ITEMS_SHOWN]:
                yield from _entry("-", item)
            yield from _more(len(value))
        case str():
            yield from value.splitlines() or [""]
        case _:
            yield _scalar(value)


def _entry(label: str, item: Any) -> Iterator[str]:
    if _is_short(item):
        yield f"{label} {_scalar(item)}"
    elif label == "-":
        for index, line in enumerate(_lines(item)):
            yield f"- {line}" if index == 0 else f"  {line}"
    else:
        yield label
        for line in _lines(item):
            yield f"  {line}"


def _is_short(item: Any) -> bool:
    match item:
        case str():
            return "\n" not in item
        case list():
            return all(not isinstance(each, list | dict) for each in item) and len(msgspec.json.encode(item)) <= 60
        case dict():
            return not item
        case _:
            return True


def _scalar(value: Any) -> str:
    match value:
        case str():
            return value
        case list():
            return ", ".join(map(_scalar, value)) if value else "[]"
        case None:
            return "none"
        case _:
            return msgspec.json.encode(value).decode()


def _more(length: int) -> Iterator[str]:
    if length > ITEMS_SHOWN:
        yield f"… {length - ITEMS_SHOWN:,} more (--json shows all)"


# ------------------------------------------------------------------------------------------------ errors


def error_lines(error: ErrorInfo, *, every_frame: bool = False) -> list[str]:
    """An error, its causes and its traceback; the engine's own frames are left out unless `every_frame`."""
    lines: list[str] = []
    current: ErrorInfo | None = error
    prefix = ""
    while current is not None:
        lines += _headline(current, prefix)
        for member in current.group:
            inner = error_lines(member, every_frame=every_frame)
            lines += [f"  {'•' if index == 0 else ' '} {line}" for index, line in enumerate(inner)]
        texts = [current.traceback]
        for note in current.notes:
            if note.startswith(_RECORDED):
                texts.append(note.removeprefix(_RECORDED))
            else:
                lines += [f"  {line}" for line in note.splitlines()]
        # Outermost first: the workflow's own lines, then those of the task that raised.
        shown = [line for text in texts for line in _frames(text, every_frame=every_frame)]
        if shown:
            lines += ["  Traceback (most recent call last):", *(f"  {line}" for line in shown)]
        current, prefix = current.cause, "caused by "
    return lines


def error_text(error: ErrorInfo) -> str:
    """Type and message, as a traceback ends with them; a `TaskError` is what it stands for."""
    if error.type == _TASK_ERROR and error.message:
        return error.message  # it begins with the type of the exception that the task raised
    type_ = error.type.removeprefix(_OUR_ERRORS)
    return f"{type_}: {error.message}" if error.message else type_


def _headline(error: ErrorInfo, prefix: str) -> list[str]:
    first, *rest = error_text(error).splitlines() or [""]
    return [f"{prefix}{first}", *(f"  {line}" for line in rest)]


def _frames(text: str, *, every_frame: bool) -> list[str]:
    """The lines of a formatted traceback without the frames between the user's lines."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith('  File "') or not blocks:
            blocks.append([])
        blocks[-1].append(line)
    kept = [block for block in blocks if any(block)]
    if not every_frame:
        own = [block for block in kept if not _is_machinery(block[0])]
        kept = own or kept[-1:]
    return [line for block in kept for line in block if line.strip()]


_HOUSE: Final = re.escape(str(Path(__file__).resolve().parents[1]))
_MACHINERY: Final = re.compile(
    rf'^  File "(?:{_HOUSE}/|.*/site-packages/(?:engine|eventstore|anyio|tenacity)/'
    r"|.*/python3[^/]*/(?:asyncio|concurrent/futures|threading\.py|contextvars)|<frozen )"
)


def _is_machinery(line: str) -> bool:
    return _MACHINERY.match(line.replace("\\", "/")) is not None
