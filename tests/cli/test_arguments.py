"""``name=value`` as typed arguments, and what is said when they do not fit."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from engine import workflow
from engine.cli.arguments import bind, decode_text, signature_text, type_text
from engine.cli.problems import Exit, Problem
from engine.core.carriage import INLINE


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(msgspec.Struct):
    name: str
    size: int = 1


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("text", str, "text"),
        ("5", str, "5"),
        ("null", str, "null"),
        ("", str, ""),
        ('"quoted"', str, '"quoted"'),
        ("a=b", str, "a=b"),
        ("5", int, 5),
        ("-5", int, -5),
        ("2.5", float, 2.5),
        ("1e3", float, 1000.0),
        ("3", float, 3.0),
        *[(text, bool, True) for text in ("true", "True", "yes", "YES", "on", "1")],
        *[(text, bool, False) for text in ("false", "no", "off", "0")],
        ("2026-01-31", date, date(2026, 1, 31)),
        ('"2026-01-31"', date, date(2026, 1, 31)),
        ("2026-01-31T10:00:00Z", datetime, datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("PT1H", timedelta, timedelta(hours=1)),
        ("1.10", Decimal, Decimal("1.10")),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", UUID, UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        ("r", Colour, Colour.RED),
        ("RED", Colour, Colour.RED),
        ("2", Level, Level.HIGH),
        ("HIGH", Level, Level.HIGH),
        ("a", Literal["a", "b"], "a"),
        ("2", Literal[1, 2], 2),
        ("5", int | None, 5),
        ("null", int | None, None),
        ("none", str | None, None),
        ("some", str | None, "some"),
        ("5", int | str, 5),
        ("five", int | str, "five"),
        ("true", bool | str, True),
        ("2026-01-31", date | None, date(2026, 1, 31)),
        ("7", Annotated[int, msgspec.Meta(ge=5)], 7),
        ('["a", "b"]', list[str], ["a", "b"]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("[2, 1, 2]", set[int], {1, 2}),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ('{"name": "x"}', Place, Place("x")),
        ('[{"name": "x", "size": 3}]', list[Place], [Place("x", 3)]),
        ('["a"]', list[str] | str, ["a"]),
        ("a", list[str] | str, "a"),
        ("[a", list[str] | str, "[a"),
        ("5", Any, 5),
        ("some text", Any, "some text"),
        ('{"a": [1]}', Any, {"a": [1]}),
    ],
)
def test_text_as_its_type(text: str, type_: Any, value: Any) -> None:
    decoded = decode_text(text, type_)
    assert decoded == value
    assert type(decoded) is type(value)


@workflow
async def nightly(
    day: date, limit: int = 10, *, names: list[str] | None = None, colour: Colour = Colour.RED, at: Place | None = None
) -> None:
    return


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "day is missing: it needs a date (2026-01-31)"),
        (["day=x"], "day needs a date (2026-01-31), got 'x'"),
        (["day=2026-01-31", "limit=many"], "limit needs an int, got 'many'"),
        (["day=2026-01-31", "limit="], "limit needs an int, got ''"),
        (["day=2026-01-31", "limt=1"], "there is no parameter limt; did you mean limit?"),
        (["day=2026-01-31", "q=1"], "there is no parameter q; there are day, limit, names, colour, at"),
        (["2026-01-31"], "'2026-01-31' is not of the form name=value"),
        (["day=2026-01-31", "day=2026-01-31"], "day is given twice"),
        (["day=2026-01-31", "colour=green"], "colour needs one of RED, BLUE, got 'green'"),
        (["day=2026-01-31", "names=a,b"], "names needs list[str] as JSON or null, got 'a,b' (write it as JSON)"),
        (
            ["day=2026-01-31", "names=[1]"],
            "names needs list[str] as JSON or null, got '[1]' (Expected `str`, got `int` - at `$[0]`)",
        ),
        (["day=2026-01-31", 'at={"size": 1}'], "Object missing required field `name`"),
        (["day=2026-01-31", "at={"], "at needs Place as JSON or null, got '{'"),
    ],
)
def test_what_does_not_fit_is_named(words: list[str], said: str) -> None:
    with pytest.raises(Problem) as caught:
        bind(nightly, words)
    assert said in caught.value.message
    assert caught.value.code == Exit.USAGE
    assert "nightly(day: date, limit: int = 10, names: list[str] | None = None" in caught.value.hint


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Problem) as caught:
        bind(nightly, ["limit=x", "q=1"])
    assert caught.value.message.count("\n") == 3
    assert all(each in caught.value.message for each in ("day is missing", "limit needs", "no parameter q"))


def test_what_fits_makes_the_call() -> None:
    args, kwargs = bind(nightly, ["names=[]", "day=2026-01-31", "limit=3"])
    assert nightly.arguments.encode(args, kwargs, INLINE) == b'{"day":"2026-01-31","limit":3,"names":[]}'
    assert bind(nightly, ["day=2026-01-31"]) == ((date(2026, 1, 31),), {})


def test_variadic_parameters() -> None:
    @workflow
    async def spread(first: int, /, *rest: int, **more: float) -> None:
        return

    assert bind(spread, ["rest=[2, 3]", "x=1.5", "first=1", "y=2"]) == ((1, 2, 3), {"x": 1.5, "y": 2.0})
    with pytest.raises(Problem, match=r"rest needs list\[int\] as JSON, got '2'"):
        bind(spread, ["first=1", "rest=2"])
    with pytest.raises(Problem, match="x needs a float, got 'much'"):
        bind(spread, ["first=1", "x=much"])


def test_a_workflow_without_parameters_takes_none() -> None:
    @workflow
    async def plain() -> None:
        return

    assert bind(plain, []) == ((), {})
    with pytest.raises(Problem, match="there is no parameter x; it takes none"):
        bind(plain, ["x=1"])


def test_types_in_words() -> None:
    assert type_text(int | None) == "an int or null"
    assert type_text(Literal["a", "b"]) == "one of a, b"
    assert type_text(Annotated[int, msgspec.Meta(ge=5)]) == "an int"
    assert signature_text(nightly).startswith("nightly(day: date, limit: int = 10")
