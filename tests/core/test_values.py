"""Values as typed JSON: what goes in comes back as what it was, or is refused with its place named."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import subprocess
import sys
import typing
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import task, workflow
from engine.core.carriage import INLINE
from engine.core.values import PAYLOAD_INLINE_BYTES, ArgumentsCodec, ValueCodec
from engine.errors import ArgumentsError, DefinitionError, NotRecordable, PayloadTooLarge

ROOT = Path(__file__).parents[2]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.0
    when: dt.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Order:
    id: uuid.UUID
    lines: tuple[Point, ...]
    note: str | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict, total=False):
    name: str
    tags: list[str]


AWARE = st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(-(2**63), 2**64 - 1) | st.integers()
POINTS = st.builds(Point, INTS, FLOATS, st.none() | AWARE)
ORDERS = st.builds(Order, st.uuids(), st.lists(POINTS, max_size=3).map(tuple), st.none() | TEXT)

TYPED: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: INTS,
    float: FLOATS,
    str: TEXT,
    bytes: st.binary(),
    None: st.none(),
    dt.date: st.dates(),
    dt.datetime: AWARE | st.datetimes(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(dt.timedelta(days=-10_000), dt.timedelta(days=10_000)),
    uuid.UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Point: POINTS,
    Order: ORDERS,
    Pair: st.builds(Pair, INTS, TEXT),
    Row: st.fixed_dictionaries({}, optional={"name": TEXT, "tags": st.lists(TEXT, max_size=2)}),
    list[int]: st.lists(INTS),
    set[str]: st.sets(TEXT),
    frozenset[int]: st.frozensets(INTS),
    tuple[int, str]: st.tuples(INTS, TEXT),
    tuple[Point, ...]: st.lists(POINTS, max_size=3).map(tuple),
    dict[str, Point]: st.dictionaries(TEXT, POINTS, max_size=3),
    dict[int, str]: st.dictionaries(INTS, TEXT, max_size=3),
    dict[uuid.UUID, int]: st.dictionaries(st.uuids(), INTS, max_size=3),
    dict[dt.date, int]: st.dictionaries(st.dates(), INTS, max_size=3),
    int | str | None: INTS | TEXT | st.none(),
    list[Order]: st.lists(ORDERS, max_size=2),
    typing.Literal["a", 3]: st.sampled_from(["a", 3]),
    Any: st.recursive(
        st.none() | st.booleans() | INTS | FLOATS | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ),
}


@pytest.mark.parametrize("type_", TYPED, ids=str)
def test_values_come_back_as_what_they_were(type_: Any) -> None:
    codec = ValueCodec(type_, "here")

    @settings(max_examples=25, deadline=None)
    @given(TYPED[type_])
    def check(value: Any) -> None:
        data = codec.encode_checked(value)
        back = codec.decode(data)
        assert back == value
        assert type(back) is type(value) or type_ in (float, Any)
        assert codec.encode(back) == data

    check()


class Plain:
    pass


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, [1.0, math.nan], {"a": {"b": math.inf}}, (1, (math.nan,)), {1.5: math.nan}],
    ids=repr,
)
def test_nan_and_infinity_are_refused_wherever_they_hide(value: Any) -> None:
    with pytest.raises(NotRecordable, match=r"the result of task 'x' .*NaN|NaN or an infinity"):
        ValueCodec(Any, "the result of task 'x'").encode(value)


def test_nan_hides_in_structs_and_dataclasses_too() -> None:
    @dataclasses.dataclass
    class Reading:
        value: float | None

    for holder in (Point(1, math.nan), Reading(math.inf), [Order(uuid.UUID(int=1), (Point(1, math.inf),))]):
        with pytest.raises(NotRecordable, match="NaN or an infinity"):
            ValueCodec(Any, "x").encode(holder)
    assert ValueCodec(Any, "x").encode(["null", None]) == b'["null",null]', "the word alone is no NaN"


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Plain(),
        print,
        iter([]),
        1j,
        [Plain()],
        {"a": Plain()},
        cyclic(),
        "\ud800",
        {"\ud800": 1},
        {(1, 2): 3},
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(NotRecordable, match="the result of task 'x' cannot be written as typed JSON"):
        ValueCodec(Any, "the result of task 'x'").encode(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [(int, "1"), (int, True), (str, 1), (Point, {"y": 1.0}), (list[int], [1, "2"]), (None, 1), (dt.date, "yesterday"),
     (Colour, "green"), (tuple[int, str], [1]), (bytes, "?"), (float, "1.5"), (int, 1.5)],
    ids=str,
)  # fmt: skip
def test_a_value_that_is_not_of_its_type_is_refused_before_it_is_written(type_: Any, value: Any) -> None:
    with pytest.raises(NotRecordable, match="the result of task 'x' is annotated .*but the value does not fit"):
        ValueCodec(type_, "the result of task 'x'").encode_checked(value)


def test_what_was_recorded_otherwise_is_refused() -> None:
    with pytest.raises(NotRecordable, match="was recorded as something that int does not take"):
        ValueCodec(int, "the result of task 'x'").decode(b'"a"')


def test_a_struct_with_its_own_check_is_refused_by_name() -> None:
    class Positive(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise RuntimeError("must be positive")

    codec = ValueCodec(Positive, "the result of task 'x'")
    with pytest.raises(NotRecordable, match="must be positive"):
        codec.decode(b'{"n":-1}')


def test_the_limit_is_exact_and_says_how_much() -> None:
    codec = ValueCodec(str, "the result of task 'x'")
    assert len(codec.encode("a" * (PAYLOAD_INLINE_BYTES - 2))) == PAYLOAD_INLINE_BYTES
    with pytest.raises(PayloadTooLarge, match=r"the result of task 'x' takes 262,145 bytes.* at most 262,144"):
        codec.encode("a" * (PAYLOAD_INLINE_BYTES - 1))


def test_sets_and_dicts_are_written_in_one_order_in_every_process() -> None:
    program = (
        "from engine.core.values import ValueCodec; from typing import Any\n"
        "print(ValueCodec(Any, 'x').encode([{f'k{n}': {f's{m}' for m in range(9)} for n in (3, 1, 2)}]).decode())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout  # fmt: skip
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    "type_", [object, Plain, list[Plain], dict[str, Plain], Plain | None, typing.Callable[[], int], type]
)
def test_types_that_cannot_be_recorded_are_refused_at_once(type_: Any) -> None:
    with pytest.raises(DefinitionError, match="the result of task 'x' is annotated"):
        ValueCodec(type_, "the result of task 'x'")


# -- arguments --------------------------------------------------------------------------------------------------------


def plain(a: int, b: str = "x") -> None: ...
def keyword(a: int, *, b: str = "x", c: float) -> None: ...
def positional(a: int, b: str = "x", /, c: int = 3) -> None: ...
def variadic(a: int, *rest: str, **named: float) -> None: ...
def clashing(a: int, /, **kwargs: int) -> None: ...
def untyped(a, b=None, *c, d=1, **e): ...  # type: ignore[no-untyped-def]


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, "y"), {}),
    (plain, (), {"b": "y", "a": 1}),
    (keyword, (1,), {"c": 1.5}),
    (keyword, (), {"c": 1.5, "a": 2, "b": "z"}),
    (positional, (1,), {}),
    (positional, (1, "y"), {"c": 4}),
    (positional, (1,), {"c": 4}),
    (variadic, (1,), {}),
    (variadic, (1, "p", "q"), {"x": 1.0, "y": 2.0}),
    (clashing, (1,), {"a": 2}),
    (untyped, (1,), {}),
    (untyped, (1, 2, 3, [4]), {"d": {"k": None}, "z": "w"}),
    (untyped, (), {"a": 1, "d": 2}),
]


@pytest.mark.parametrize(("fn", "args", "kwargs"), CALLS)
def test_arguments_come_back_as_the_same_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    import inspect

    codec = ArgumentsCodec(fn, f"task {fn.__name__!r}")
    codec.check(args, kwargs)
    data = codec.encode(args, kwargs, INLINE)
    back_args, back_kwargs = codec.decode(data, INLINE)
    assert inspect.signature(fn).bind(*back_args, **back_kwargs) == inspect.signature(fn).bind(*args, **kwargs)
    assert codec.encode(back_args, back_kwargs, INLINE) == data
    assert codec.same(data, data)


@given(
    st.integers(-100, 100),
    st.lists(TEXT, max_size=3),
    st.dictionaries(st.from_regex(r"[b-z]{1,5}", fullmatch=True), FLOATS, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_arguments_of_any_number_come_back(a: int, rest: list[str], named: dict[str, float]) -> None:
    codec = ArgumentsCodec(variadic, "task 'variadic'")
    assert codec.decode(codec.encode((a, *rest), named, INLINE), INLINE) == ((a, *rest), named)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (plain, (), {}),
        (plain, (1, "a", 2), {}),
        (plain, (1,), {"z": 1}),
        (keyword, (1, 2), {}),
        (positional, (), {"a": 1}),
    ],
)
def test_a_call_that_the_signature_does_not_take_names_the_signature(fn: Any, args: Any, kwargs: Any) -> None:
    with pytest.raises(ArgumentsError, match=rf"task '{fn.__name__}': .*; its signature is \(a: "):
        ArgumentsCodec(fn, f"task {fn.__name__!r}").check(args, kwargs)


def test_errors_name_the_argument() -> None:
    @task
    async def load(table: str, rows: list[Any]) -> None: ...

    with pytest.raises(NotRecordable, match="argument 'rows' of task 'load' cannot be written"):
        load.arguments.encode(("t", [object()]), {}, INLINE)
    with pytest.raises(NotRecordable, match="argument 'rows' of task 'load' holds a NaN"):
        load.arguments.encode(("t", [math.nan]), {}, INLINE)
    with pytest.raises(ArgumentsError, match=r"the arguments of task 'load' do not fit its signature .*\$\.table"):
        load.arguments.decode(b'{"table":1,"rows":[]}', INLINE)
    with pytest.raises(ArgumentsError, match="lack 'rows', which has no default"):
        load.arguments.decode(b'{"table":"t"}', INLINE)
    with pytest.raises(PayloadTooLarge, match="task 'load' takes"):
        load.arguments.encode(("t", ["a" * PAYLOAD_INLINE_BYTES]), {}, INLINE)


def test_unknown_recorded_parameters_are_ignored_and_missing_ones_take_their_default() -> None:
    codec = ArgumentsCodec(plain, "task 'plain'")
    assert codec.decode(b'{"a":1,"gone":2}', INLINE) == ((1,), {})
    assert codec.same(b'{"a":1}', b'{"a":1,"b":"x"}')
    assert not codec.same(b'{"a":1}', b'{"a":1,"b":"y"}')
    assert not codec.same(b'{"a":1}', b"damaged")


def test_annotations_that_cannot_be_resolved_or_recorded_are_refused_by_name() -> None:
    def missing(a: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def custom(a: Plain) -> None: ...

    with pytest.raises(DefinitionError, match="the annotations of task 'missing' cannot be resolved"):
        ArgumentsCodec(missing, "task 'missing'")
    with pytest.raises(DefinitionError, match="parameter 'a' of task 'custom' is annotated .*Plain"):
        ArgumentsCodec(custom, "task 'custom'")


def test_parameters_say_what_tools_need() -> None:
    shown = [(p.name, p.type, p.required, p.variadic) for p in ArgumentsCodec(variadic, "x").parameters]
    assert shown == [("a", int, True, False), ("rest", str, False, True), ("named", float, False, True)]
    assert [p.required for p in ArgumentsCodec(plain, "x").parameters] == [True, False]


def test_mutable_arguments_are_recorded_as_they_were_when_the_call_was_awaited() -> None:
    from tests.core.harness import World, executions, play

    @task
    async def takes(rows: list[int]) -> int:
        return len(rows)

    @workflow
    async def mutates() -> int:
        rows = [1]
        call = takes(rows)
        rows.append(2)
        got = await call
        rows.append(3)
        return got

    history = play(World(mutates()))
    assert list(executions(history).values()) == [b'{"rows":[1,2]}']
