"""What runs are searched by, as words: attributes that their authors gave them, and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

__all__ = ["AttributeOption", "SinceOption", "UntilOption", "attributes_of", "moment_of"]

AttributeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="NAME=VALUE",
        help="Only runs with this attribute; may be given again: other names must hold as well, of one name any value"
        " will do. A value that is JSON (3, 2.5, true) is that, any other is text; null finds runs without one, and"
        """ quotes make text of anything: zip='"01234"'.""",
        show_default=False,
    ),
]
_WHEN: Final = (
    "ISO 8601 (2026-01-31, 2026-01-31T12:00; your time zone unless it says another), or so long ago: 90s, 30m, 12h, 7d."
)
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help=f"Only runs recorded then or later: {_WHEN}", show_default=False),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Only runs recorded before then, given likewise.", show_default=False),
]
_AGO: Final = re.compile(r"(\d{1,9})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def attributes_of(words: list[str] | None) -> dict[str, tuple[Any, ...]]:
    """What was said of attributes, by name. Raises `typer.BadParameter` for what cannot be meant."""
    import msgspec  # noqa: PLC0415 - help comes without it

    found: dict[str, tuple[Any, ...]] = {}
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{word!r} is not NAME=VALUE, as in region=eu", param_hint="--attribute")
        value: Any
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            value = text
        if isinstance(value, list | dict):
            raise typer.BadParameter(
                f"{word!r}: an attribute is a text, a number or a boolean", param_hint="--attribute"
            )
        if value not in found.get(name, ()):
            found[name] = (*found.get(name, ()), value)
    return found


def moment_of(text: str | None, option: str) -> datetime | None:
    """A time, as it was said. Raises `typer.BadParameter` for what is none."""
    if text is None:
        return None
    if (ago := _AGO.fullmatch(text)) is not None:
        from eventstore import SystemClock  # noqa: PLC0415 - help comes without it

        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=SystemClock().now())
        try:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise typer.BadParameter(f"{text!r} is before there was anything", param_hint=option) from None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: say 2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00Z, or so long ago: 30m, 12h, 7d",
            param_hint=option,
        ) from None
