"""Checks: what is built in, on tables of every library, against models row by row; adapters with the real libraries."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pandas as pd
import pandera.pandas
import pandera.polars
import pointblank as pb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.assets.builtin import (
    accepted_values,
    in_range,
    matches,
    not_null,
    references,
    row_count,
    row_count_against_history,
    schema_unchanged,
    unique,
)
from engine.assets.checks import Check, CheckContext, CheckResult, EarlierVersion, result_of
from engine.assets.definition import asset
from engine.assets.definitions import Definitions
from engine.assets.samples import SAMPLE_COLUMNS_MAX, SAMPLE_ROWS_MAX, SAMPLE_TEXT_MAX
from engine.assets.with_pandera import pandera_check
from engine.assets.with_pointblank import pointblank_check
from engine.errors import AssetDefinitionError, AssetError
from engine.storage import Column, Stored

THIS = Path(__file__).name
NAN = float("nan")


def found(check: Check[..., Any], *values: Any) -> CheckResult:
    result = check(*values)
    assert isinstance(result, CheckResult)
    msgspec.json.encode(result.rows)
    assert len(result.rows) <= SAMPLE_ROWS_MAX
    return result


def failing(check: Check[..., Any], *values: Any) -> list[int]:
    """The numbers of the rows that fail."""
    result = found(check, *values)
    rows = [row["(row)"] for row in result.rows]
    assert result.passed == (not rows)
    assert result.metadata["rows"] == len(pa.table(values[0]) if not isinstance(values[0], pa.Table) else values[0])
    assert len(rows) == min(SAMPLE_ROWS_MAX, int(result.metadata["failing"]))  # type: ignore[arg-type]
    assert rows == sorted(rows)
    return rows


def refusal(check: Check[..., Any], *values: Any) -> str:
    with pytest.raises(AssetError) as raised:
        check(*values)
    return str(raised.value)


ROWS = {"id": [1, 2, 2, None, 3], "x": [0.5, NAN, None, -1.0, NAN], "s": ["a", "b", None, "a", "zz"]}
TABLES = {
    "pyarrow": pa.table(ROWS),
    "chunked": pa.concat_tables([pa.table(ROWS).slice(0, 2), pa.table(ROWS).slice(2)]),
    "sliced": pa.concat_tables([pa.table(ROWS), pa.table(ROWS)]).slice(5),
    "dictionaries": pa.concat_tables(
        [pa.table({"id": t["id"], "x": t["x"], "s": t["s"].dictionary_encode()}) for t in (pa.table(ROWS).slice(0, 2), pa.table(ROWS).slice(2))]
    ),
    "polars": pl.DataFrame(ROWS),
    "duckdb": duckdb.sql("select * from (values (1, 0.5, 'a'), (2, 'nan'::double, 'b'), (2, null, null), (null, -1.0, 'a'), (3, 'nan'::double, 'zz')) t(id, x, s)").to_arrow_table(),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ of tables


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_each_check_says_the_same_of_each_library(table: Any) -> None:
    assert failing(not_null("id"), table) == [3]
    assert failing(not_null("id", "s"), table) == [2, 3]
    assert failing(not_null("x"), table) == [2]
    assert failing(not_null("x", nan_is_null=True), table) == [1, 2, 4]
    assert failing(unique("id"), table) == [1, 2]
    assert failing(unique("x"), table) == [1, 4]
    assert failing(unique("id", "x"), table) == []
    assert failing(accepted_values("s", ["a", "b"]), table) == [4]
    assert failing(in_range("x", min=0), table) == [1, 3, 4]
    assert failing(in_range("x", 0, 0.25), table) == [0, 1, 3, 4]
    assert failing(in_range("id", max=2), table) == [4]
    assert failing(matches("s", "[a-b]"), table) == [4]
    assert failing(matches("s", "z"), table) == [0, 1, 3, 4]
    assert failing(matches("s", ".*z.*"), table) == [0, 1, 3]
    assert failing(references("others", "id", "key"), table, pa.table({"key": [1, 2]})) == [4]
    assert failing(references("others", "id"), table, pl.DataFrame({"id": [3, None]})) == [0, 1, 2]


def test_pandas_says_null_where_it_has_nan() -> None:
    table = pd.DataFrame({"x": [0.5, NAN, None]})
    assert failing(not_null("x"), table) == [1, 2]
    assert failing(in_range("x", 0, 1), table) == []


keys = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, NAN, math.inf]))
many = st.lists(st.tuples(keys, st.none() | st.integers(0, 2)), max_size=12)


@given(many, st.integers(1, 12))
def test_unique_against_a_model(rows: list[tuple[float | None, int | None]], size: int) -> None:
    table = pa.table(
        {"a": pa.array([a for a, _ in rows], pa.float64()), "b": pa.array([b for _, b in rows], pa.int8())}
    )
    chunks = pa.Table.from_batches(table.to_batches(max_chunksize=size), table.schema)

    def key(row: tuple[Any, ...]) -> Any:
        return tuple("nan" if isinstance(each, float) and math.isnan(each) else each for each in row)

    whole = [key(row) for row in rows]
    expected = [at for at, row in enumerate(whole) if None not in row and whole.count(row) > 1]
    assert failing(unique("a", "b"), chunks) == expected
    alone = [key((row[0],)) for row in rows]
    assert failing(unique("a"), chunks) == [
        at for at, row in enumerate(alone) if None not in row and alone.count(row) > 1
    ]


@given(
    st.lists(st.none() | st.integers(-5, 5), max_size=15),
    st.none() | st.integers(-4, 4),
    st.none() | st.integers(-4, 4),
)
def test_ranges_and_values_against_a_model(values: list[int | None], low: int | None, high: int | None) -> None:
    table = pa.table({"x": pa.array(values, pa.int32())})
    if (low, high) != (None, None) and not (low is not None and high is not None and low > high):
        wrong = [
            at
            for at, each in enumerate(values)
            if each is not None and not ((low is None or each >= low) and (high is None or each <= high))
        ]
        assert failing(in_range("x", low, high), table) == wrong
    accepted = [each for each in (low, high, 0) if each is not None]
    assert failing(accepted_values("x", accepted), table) == [
        at for at, each in enumerate(values) if each is not None and each not in accepted
    ]
    assert failing(references("o", "x", "y"), table, pa.table({"y": pa.array(accepted, pa.int64())})) == [
        at for at, each in enumerate(values) if each is not None and each not in accepted
    ]
    assert failing(not_null("x"), table) == [at for at, each in enumerate(values) if each is None]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("timestamps", pa.array([1, 1, 2], pa.timestamp("ns", "UTC"))),
        ("dates", pa.array([1, 1, 2], pa.date32())),
        ("decimals", pa.array([1, 1, 2], pa.decimal128(9, 2))),
        ("truths", pa.array([True, True, False])),
        ("bytes", pa.array([b"a", b"a", b"b"])),
        ("views", pa.array(["a", "a", "b"], pa.string_view())),
        ("byte views", pa.array([b"a", b"a", b"b"], pa.binary_view())),
        ("large", pa.array(["a", "a", "b"], pa.large_string())),
        ("unsigned", pa.array([2**64 - 1, 2**64 - 1, 1], pa.uint64())),
        ("durations", pa.array([1, 1, 2], pa.duration("us"))),
        ("halves", pa.array(np.array([1, 1, 2], np.float16))),
    ],
)
def test_columns_of_every_plain_type(column: str, values: Any) -> None:
    table = pa.table({column: values})
    assert failing(unique(column), table) == [0, 1]
    assert failing(not_null(column), table) == []
    assert failing(accepted_values(column, [values[0].as_py()]), table) == [2]


def test_ranges_of_times_decimals_and_large_numbers() -> None:
    table = pa.table(
        {
            "at": pa.array(
                [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)], pa.timestamp("us", "UTC")
            ),
            "day": [date(2026, 1, 1), date(2026, 1, 3)],
            "price": [Decimal("1.10"), Decimal("2.20")],
            "big": pa.array([2**64 - 1, 5], pa.uint64()),
            "name": ["a", "c"],
        }
    )
    assert failing(in_range("at", max=datetime(2026, 1, 2, tzinfo=UTC)), table) == [1]
    assert failing(in_range("day", min=date(2026, 1, 2)), table) == [0]
    assert failing(in_range("price", Decimal("1.1"), 2), table) == [1]
    assert failing(in_range("price", 1.5), table) == [0]
    assert failing(in_range("big", -1, 10), table) == [0]
    assert failing(in_range("name", "a", "b"), table) == [1]
    assert "the bounds do not fit column 'at'" in refusal(in_range("at", datetime(2026, 1, 2)), table)
    assert "the bounds do not fit column 'name', which is string" in refusal(in_range("name", 3), table)


def test_tables_without_rows_hold() -> None:
    table = pa.table({"x": pa.array([], pa.int64()), "s": pa.array([], pa.string()), "n": pa.array([], pa.null())})
    for check in (
        not_null("x"),
        unique("x", "s"),
        accepted_values("x", [1]),
        in_range("x", 1),
        matches("s", "a"),
        unique("n"),
    ):
        assert found(check, table).passed
    assert failing(not_null("n"), pa.table({"n": pa.nulls(2)})) == [0, 1]
    assert failing(unique("n"), pa.table({"n": pa.nulls(2)})) == []


def test_what_is_no_such_table_is_refused() -> None:
    table = pa.table({"id": [1], "list": [[1]], "s": ["a"]})
    assert refusal(not_null("ids"), table) == "there is no column 'ids'; there are id, ..."
    assert "there is no column 'ids'" in refusal(references("o", "id", "ids"), table, table)
    twice = pa.table([pa.array([1]), pa.array([2])], names=["id", "id"])
    assert "there is more than one column 'id'" in refusal(unique("id"), twice)
    assert "column 'list' is list<item: int64>, which is not compared" in refusal(unique("list"), table)
    assert "column 'list' is list<item: int64>, which is not compared" in refusal(accepted_values("list", [[1]]), table)
    assert "matches: column 'id' is int64, and not text" in refusal(matches("id", "a"), table)
    assert "is no regular expression of RE2" in refusal(matches("s", "(?=a)"), table)
    assert "what is accepted does not fit column 'id'" in refusal(accepted_values("id", ["a"]), table)
    assert "column 'id' is int64, and 's' of others is string" in refusal(references("others", "id", "s"), table, table)
    assert refusal(not_null("id"), [1]) == "this check is of tables, and the value is list"


def test_failing_rows_are_json_few_and_in_order() -> None:
    count = 100_000
    table = pa.table(
        {
            "other": pa.array([datetime(2026, 1, 1)] * count),
            "id": pa.array(range(count)),
            "text": pa.array(["ab" * 1_000] * count).dictionary_encode(),
            "nan": pa.array([NAN] * count),
            "raw": pa.array([b"\xff\x00"] * count),
            "list": pa.array([[1, 2]] * count),
            "late": pa.array([2**62] * count, pa.timestamp("us")),  # no time that Python has
            **{f"c{number}": pa.array([0] * count) for number in range(30)},
        }
    )
    result = found(in_range("id", min=90_000), table)
    assert (result.metadata["failing"], result.metadata["rows"], result.metadata["min"]) == (90_000, count, 0)
    assert result.description == "90,000 of 100,000 rows out of range"
    assert [row["(row)"] for row in result.rows] == list(range(SAMPLE_ROWS_MAX))
    first = result.rows[0]
    assert list(first)[:3] == ["(row)", "id", "other"]
    assert len(first) == SAMPLE_COLUMNS_MAX
    assert (first["other"], first["nan"], first["raw"], first["list"]) == (
        "2026-01-01T00:00:00",
        "nan",
        "ff00",
        "[1, 2]",
    )
    assert len(first["text"]) == SAMPLE_TEXT_MAX
    assert isinstance(first["late"], str)


def test_a_sample_of_an_author_s_own_is_json_too() -> None:
    result = CheckResult(
        False, rows=({"n": np.int64(n), "at": date(2026, 1, 1), 3: object(), "t": "\ud800"} for n in range(10**9))
    )
    assert len(result.rows) == SAMPLE_ROWS_MAX
    assert result.rows[1]["n"] == 1
    assert result.rows[1]["at"] == "2026-01-01"
    msgspec.json.encode(result.rows)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_, pa.scalar(True), pd.Series([True]).all()])
def test_truth_as_libraries_have_it(value: Any) -> None:
    expected = value.as_py() if isinstance(value, pa.Scalar) else bool(value)
    assert result_of(value).passed is expected
    assert CheckResult(value).passed is expected
    assert result_of(CheckResult(value, "said")).description == "said"


@pytest.mark.parametrize("value", [1, None, "yes", [], np.int64(1), pl.Series([True])])
def test_what_is_no_truth(value: Any) -> None:
    with pytest.raises(AssetError, match="True or False, not"):
        result_of(value)
    with pytest.raises(AssetError, match="True or False, not"):
        CheckResult(value)


# ------------------------------------------------------------------------------------------------ of what was before


def context(rows: int | None = 10, *, schema: tuple[Column, ...] | None = (), **more: Any) -> CheckContext:
    stored = Stored(key="", digest="", size=1, format="parquet", data_version="", rows=rows, schema=schema)
    return CheckContext(key="orders", environment="prod", run_id="r", stored=stored, **more)


def before(*rows: int | None) -> tuple[EarlierVersion, ...]:
    return tuple(EarlierVersion(version=9 - at, rows=each) for at, each in enumerate(rows))


def test_row_counts() -> None:
    assert found(row_count(1, 10), context(10)).passed
    assert not found(row_count(max=9), context(10)).passed
    result = found(row_count(11), context(10))
    assert not result.passed
    assert result.metadata == {"rows": 10, "min": 11, "max": None}
    for check in (row_count(1), row_count_against_history(0.1), schema_unchanged()):
        assert "is no table" in refusal(check, context(None, schema=None))
        assert "is no table" in refusal(check, CheckContext(key="orders", environment="prod", run_id="r"))


@pytest.mark.parametrize(
    ("tolerance", "rows", "history", "passed"),
    [
        (0.2, 10, (), True),
        (0.2, 0, (), True),
        (0.2, 10, (None, None), True),
        (0.2, 12, (10,), True),
        (0.2, 13, (10,), False),
        (0.2, 8, (10,), True),
        (0.2, 7, (10,), False),
        (0.0, 10, (10, 11, 9), True),
        (0.0, 10, (10, 12), False),
        (0.5, 10, (10, 10, 10, 1_000), True),
        (0.5, 1_000, (10, 10, 10, 1_000), False),
        (3.0, 0, (10,), True),
        (0.2, 0, (0, 0), True),
        (0.2, 1, (0, 0), False),
    ],
)
def test_row_counts_against_what_was_before(
    tolerance: float, rows: int, history: tuple[Any, ...], passed: bool
) -> None:
    result = found(row_count_against_history(tolerance), context(rows, history=before(*history)))
    assert result.passed is passed, result.description


def test_only_so_many_versions_count() -> None:
    check = row_count_against_history(0.1, versions=2)
    assert found(check, context(10, history=before(10, 10, 500, 500, 500))).passed
    result = found(check, context(20, history=before(10, 10, 500)))
    assert result.description == "20 rows, where 10 was the median of the last 2 versions, +100.0%"
    assert result.metadata == {"rows": 20, "median": 10, "versions": 2, "tolerance": 0.1}


def test_schemas_against_the_one_before() -> None:
    a, b = Column("a", "int64"), Column("b", "string")

    def compared(old: Any, *new: Column) -> CheckResult:
        previous = EarlierVersion(version=3, schema=old)
        return found(schema_unchanged(), context(schema=new, previous=previous))

    assert found(schema_unchanged(), context(schema=(a,))).passed
    assert compared((a, b), a, b).passed
    assert compared(None, a, b).passed
    assert compared((a, b), a).description == "b is gone"
    assert compared((a,), a, b).description == "b is new (string)"
    assert compared((a, b), a, Column("b", "int64")).description == "b was string and is int64"
    assert compared((a, b), a, Column("b", "string", nullable=False)).description == "b may not be null now"
    assert compared((a, b), b, a).description == "the order was a, b"
    result = compared((a,), b)
    assert not result.passed
    assert result.metadata == {"changes": 2, "compared_with": 3}


# ------------------------------------------------------------------------------------------------ as they are defined


def test_names_severities_and_places() -> None:
    check = unique("id", "the day", blocking=False)
    assert (check.name, check.severity) == ("unique_id_the_day", "warning")
    assert check.where.startswith(f"{THIS}:")
    assert not_null("id", name="there").name == "there"
    assert references("raw/customers", "id").name == "references_id_raw_customers"
    assert len(unique(*[f"column_{number}" for number in range(50)]).name) == 80
    assert not_null("id").code_version != not_null("id", nan_is_null=True).code_version
    assert in_range("x", 1).code_version == in_range("x", 1).code_version != in_range("x", 2).code_version


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: not_null(), "not_null names no column"),
        (lambda: not_null(["id"]), "not_null takes names of columns, as in not_null('id'), not ['id']"),
        (lambda: unique(""), "unique takes names of columns"),
        (lambda: accepted_values("s", "abc"), "accepted_values takes a list of values, not 'abc'"),
        (lambda: accepted_values("s", []), "accepted_values takes a list of values, not []"),
        (lambda: in_range("x"), "in_range has neither min nor max"),
        (lambda: in_range("x", 3, 2), "in_range: min 3 is above max 2"),
        (lambda: in_range("x", 3, "b"), "min and max do not go together"),
        (lambda: row_count(), "row_count has neither min nor max"),
        (lambda: row_count_against_history(-1), "tolerance is a part of the median"),
        (lambda: row_count_against_history(NAN), "tolerance is a part of the median"),
        (lambda: row_count_against_history(0.1, versions=0), "versions is from 1 to 50"),
        (lambda: row_count_against_history(0.1, versions=51), "versions is from 1 to 50"),
        (lambda: matches("s", "("), "'(' is no regular expression"),
        (lambda: matches("s", 3), "3 is no regular expression"),
        (lambda: references(3, "id"), "references takes an asset or its key, not 3"),
        (lambda: references("o", 3), "references takes names of columns"),
        (lambda: not_null("id", name="a b"), "'a b' cannot name a check"),
    ],
)
def test_what_cannot_be_so_is_refused_where_it_stands(make: Any, said: str) -> None:
    with pytest.raises(AssetDefinitionError) as raised:
        make()
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{THIS}:{make.__code__.co_firstlineno}: ")


def test_what_they_ask_for() -> None:
    @asset
    def customers() -> pa.Table: ...

    @asset(checks=[not_null("id"), references(customers, "customer", "id"), row_count(1), schema_unchanged()])
    def orders() -> pl.DataFrame: ...

    definitions = Definitions([orders, customers])
    node = definitions.node_of("orders")
    bound = {each.check.name: each for each in node.checks["orders"]}
    assert {name: each.value for name, each in bound.items()} == {
        "not_null_id": "table",
        "references_customer_customers": "table",
        "row_count": None,
        "schema_unchanged": None,
    }
    assert [(each.key, each.parameter) for each in bound["references_customer_customers"].wiring.inputs] == [
        ("customers", "others")
    ]
    assert bound["row_count"].wiring.check_context == ("context",)
    assert definitions.order == ("customers", "orders")

    @asset(checks=[references("order", "id")])
    def lost() -> pa.Table: ...

    with pytest.raises(
        AssetDefinitionError, match=rf"{THIS}:\d+: check references_id_order of lost: there is no asset 'order'. Did"
    ):
        Definitions([lost, orders, customers])


# ------------------------------------------------------------------------------------------------ of other libraries


class Orders(pandera.polars.DataFrameModel):
    id: int = pandera.polars.Field(gt=0)
    name: str


PANDAS = pandera.pandas.DataFrameSchema(
    {"id": pandera.pandas.Column(int, pandera.pandas.Check.gt(0)), "name": pandera.pandas.Column(str)}, name="orders"
)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_pandera(library: str) -> None:
    check, frame = (
        (pandera_check(Orders), pl.DataFrame)
        if library == "polars"
        else (pandera_check(PANDAS, blocking=False), pd.DataFrame)
    )
    assert check.name == ("pandera_Orders" if library == "polars" else "pandera_orders")
    assert check.severity == ("blocking" if library == "polars" else "warning")

    @asset(checks=[check])
    def orders() -> Any: ...

    (bound,) = Definitions([orders]).node_of("orders").checks["orders"]
    assert (bound.value, bound.annotation) == ("table", frame)

    assert found(check, frame({"id": [1, 2], "name": ["a", "b"]})).passed
    result = found(check, frame({"id": [1, -5, 2, 0] * 50, "name": ["a", "b", "c", "d"] * 50}))
    assert not result.passed
    assert result.metadata == {"failing": 100, "checks that fail": 1}
    assert result.description == "100 failure cases: greater_than(0) (100)"
    assert [row["index"] for row in result.rows[:4]] == [1, 3, 5, 7]
    assert str(result.rows[0]["failure_case"]) == "-5"
    result = found(check, frame({"id": [-1]}))
    assert [row["check"] for row in result.rows] == ["column_in_dataframe", "greater_than(0)"]


@pytest.mark.parametrize("schema", [3, int, pl.DataFrame, pa.schema([])])
def test_what_is_no_pandera_schema(schema: Any) -> None:
    with pytest.raises(AssetDefinitionError, match=rf"{THIS}:\d+: pandera_check takes a schema or a model"):
        pandera_check(schema)


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame, pa.table])
def test_pointblank(frame: Any) -> None:
    @pointblank_check
    def positive(orders: Any, limit: int = 0) -> pb.Validate:
        """Prices are positive."""
        return pb.Validate(orders).col_vals_gt("price", limit).col_exists("id")

    assert (positive.name, positive.description, positive.severity) == ("positive", "Prices are positive.", "blocking")
    assert found(positive, frame({"id": [1, 2], "price": [1.0, 2.0]})).passed
    result = found(positive, frame({"id": [1, 2, 3] * 20, "price": [1.0, -2.0, 0.0] * 20}))
    assert not result.passed
    assert result.description == "step 1 col_vals_gt price: 40 of 60 fail"
    assert result.metadata == {"steps": 2, "steps that fail": 1, "units that fail": 40}
    assert len(result.rows) == SAMPLE_ROWS_MAX
    assert (result.rows[0]["(step)"], result.rows[0]["price"]) == ("1 col_vals_gt price", -2.0)
    result = found(positive, frame({"price": [1.0]}))
    assert result.description == "step 2 col_exists id: 1 of 1 fail"
    result = found(positive, frame({"id": [1]}))
    assert result.description == "step 1 col_vals_gt price could not be evaluated"


def test_pointblank_with_thresholds_and_results_of_its_own() -> None:
    table = pl.DataFrame({"x": [1, -1, -1, -1]})

    @pointblank_check(blocking=False, name="some", code_version="3")
    async def later(orders: pl.DataFrame, error: float) -> pb.Validate:
        return pb.Validate(orders, thresholds=pb.Thresholds(warning=1, error=error)).col_vals_gt("x", 0).interrogate()

    assert (later.name, later.severity, later.code_version) == ("some", "warning", "3")
    assert asyncio.run(later(table, 0.9)).passed
    assert not asyncio.run(later(table, 0.5)).passed

    @pointblank_check
    def nothing(orders: Any) -> Any:
        return True

    assert "it returned bool, and not a pointblank.Validate" in refusal(nothing, table)
    with pytest.raises(AssetDefinitionError, match="@pointblank_check decorates a function, not 3"):
        pointblank_check(3)  # type: ignore[call-overload]

    @asset(checks=[later])
    def orders(error: Any = 1) -> pl.DataFrame: ...

    with pytest.raises(
        AssetDefinitionError, match=rf"{THIS}:\d+: check some of orders: its parameter 'error' is no asset"
    ):
        Definitions([orders])
