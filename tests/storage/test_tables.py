"""Tables of every library, written by one and read by another; and their data versions."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import StorageRefused
from engine.storage import Storage, Stored, data_version

NAN = float("nan")
UTC = dt.UTC
MOMENT = dt.datetime(2020, 3, 29, 1, 30, 0, 5)

COLUMNS: dict[str, pa.Array] = {
    "int64": pa.array([1, -(2**63), 2**63 - 1]),
    "int64 with nulls": pa.array([1, None, 2**63 - 1]),
    "uint8": pa.array([0, 255, 7], pa.uint8()),
    "uint64 with nulls": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float64": pa.array([1.5, -0.0, 1e308]),
    "float32": pa.array([1.5, -0.0, 0.25], pa.float32()),
    "float64 with nulls": pa.array([1.5, None, -0.0]),
    "bool": pa.array([True, False, True]),
    "bool with nulls": pa.array([True, None, False]),
    "text": pa.array(["", "ä\0b", "x" * 1000]),
    "text with nulls": pa.array([None, "", "z"]),
    "bytes": pa.array([b"", b"\0\xff", None]),
    "date": pa.array([dt.date(1, 1, 1), None, dt.date(2024, 2, 29)]),
    "timestamp": pa.array([MOMENT, None, dt.datetime(1960, 1, 1)], pa.timestamp("us")),
    "timestamp in ns": pa.array([1, None, 2**60 + 1], pa.timestamp("ns")),
    "timestamp in ms": pa.array([MOMENT.replace(microsecond=5000), None, None], pa.timestamp("ms")),
    "timestamp in UTC": pa.array([MOMENT.replace(tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    "duration": pa.array([dt.timedelta(days=-1, microseconds=3), None, dt.timedelta()], pa.duration("us")),
    "time": pa.array([dt.time(1, 2, 3, 4), None, dt.time()], pa.time64("us")),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-99999999.99")], pa.decimal128(18, 2)),
    "lists": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "structs": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    "lists of structs": pa.array([[{"a": [1]}], [], None]),
    "categories": pa.array(["x", None, "x"]).dictionary_encode(),
    "nothing": pa.nulls(3),
}
TYPES: dict[str, Any] = {
    "polars": pl.DataFrame,
    "lazy": pl.LazyFrame,
    "pandas": pd.DataFrame,
    "arrow": pa.Table,
    "batch": pa.RecordBatch,
    "reader": pa.RecordBatchReader,
    "duckdb": duckdb.DuckDBPyRelation,
}
LACKS = {
    # What a library has no type for; it gives the nearest one that it has, or says so.
    ("duckdb", "timestamp in ms"): "timestamp[us]",
    ("duckdb", "nothing"): "int32",
    ("polars", "time"): "time[ns]",
    ("lazy", "time"): "time[ns]",
}
INTERVAL = "duration"  # to DuckDB an interval, of months, days and microseconds, which Parquet cannot hold


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


def rows(table: pa.Table) -> Any:
    return pl.DataFrame(pl.from_arrow(table)).to_dicts()


@pytest.mark.parametrize("reader", TYPES)
@pytest.mark.parametrize("writer", TYPES)
def test_what_one_library_writes_every_other_reads(storage: Storage, writer: str, reader: str) -> None:
    """As the writer's type, written, read as the reader's, written again: the same rows and the same data versions."""
    names = [name for name in COLUMNS if "duckdb" not in (writer, reader) or name != INTERVAL]
    table = pa.table({"id": pa.array([1, 2, 3]), **{name: COLUMNS[name] for name in names}})
    blocking = storage.blocking
    first = blocking.write(blocking.read(blocking.write(table), TYPES[writer]), TYPES[writer])
    again = blocking.write(blocking.read(first, TYPES[reader]), TYPES[reader])
    assert first.rows == again.rows == 3
    assert rows(blocking.read(again)) == rows(blocking.read(first)) == rows(table)
    for stored, seen in ((first, {writer}), (again, {writer, reader})):
        found = blocking.read(stored)
        for name in names:
            if not any((library, name) in LACKS for library in seen):
                column = data_version(found.select([name]))
                assert column == data_version(table.select([name])), (name, found.schema.field(name))


def test_an_interval_of_duckdb_cannot_be_stored(storage: Storage) -> None:
    stored = storage.blocking.write(pa.table({"a": COLUMNS[INTERVAL]}))
    with pytest.raises(StorageRefused, match="month_day_nano_interval cannot be stored as Parquet: cast it"):
        storage.blocking.write(storage.blocking.read(stored, duckdb.DuckDBPyRelation))


@pytest.mark.parametrize("kind", TYPES)
def test_an_empty_table_keeps_its_types(storage: Storage, kind: str) -> None:
    blocking = storage.blocking
    odd = {INTERVAL, *(name for _, name in LACKS)}
    if kind == "pandas":  # categories without any category have no type there
        odd.add("categories")
    table = pa.table({name: column.slice(0, 0) for name, column in COLUMNS.items() if name not in odd})
    stored = blocking.write(blocking.read(blocking.write(table), TYPES[kind]), TYPES[kind])
    assert (stored.rows, stored.data_version) == (0, data_version(table))


def test_a_table_without_columns(storage: Storage) -> None:
    for empty in (pa.table({}), pl.DataFrame()):
        stored = storage.blocking.write(empty)
        assert storage.blocking.read(stored, pl.DataFrame).shape == (0, 0)


def test_nan_is_no_null_but_in_pandas(storage: Storage) -> None:
    blocking = storage.blocking
    both = blocking.write(pl.DataFrame({"a": [1.0, NAN, None]}))
    assert blocking.read(both, pl.DataFrame)["a"].is_nan().to_list() == [False, True, None]
    assert blocking.read(both).column("a").null_count == 1
    frame = blocking.read(both, pd.DataFrame)
    assert frame["a"].isna().tolist() == [False, True, True]
    assert blocking.read(blocking.write(frame)).column("a").null_count == 2


def test_a_zone_is_kept_where_the_library_has_zones(storage: Storage) -> None:
    blocking = storage.blocking
    berlin = pl.DataFrame({"t": [MOMENT.replace(tzinfo=ZoneInfo("Europe/Berlin"))]})
    stored = blocking.write(berlin)
    assert blocking.read(stored, pl.DataFrame).equals(berlin)
    assert str(blocking.read(stored, pd.DataFrame)["t"].dt.tz) == "Europe/Berlin"
    again = blocking.write(blocking.read(stored, duckdb.DuckDBPyRelation))
    assert again.schema[0].type == "timestamp[us, UTC]"
    assert blocking.read(again, pl.DataFrame)["t"].dt.epoch().to_list() == berlin["t"].dt.epoch().to_list()


def test_what_pandas_wrote_it_reads_back_as_it_was(storage: Storage) -> None:
    frame = pd.DataFrame(
        {"d": [dt.date(2020, 1, 1), None], "c": pd.Categorical(["b", "a"], ["b", "a"])},
        index=pd.Index(["one", "two"], name="key"),
    )
    back = storage.blocking.read(storage.blocking.write(frame, pd.DataFrame), pd.DataFrame)
    pd.testing.assert_frame_equal(back, frame)
    as_polars = storage.blocking.read(storage.blocking.write(frame), pl.DataFrame)
    assert as_polars.columns == ["d", "c", "key"]


def test_stored_says_what_it_is(storage: Storage) -> None:
    stored = storage.blocking.write(pl.DataFrame({"a": [1, 2], "b": [["x"], None]}), pl.DataFrame)
    assert (stored.format, stored.rows, stored.type) == ("parquet", 2, "polars.DataFrame")
    assert [(c.name, c.type, c.nullable) for c in stored.schema] == [("a", "int64", True), ("b", "list<string>", True)]
    assert stored.writer == f"pyarrow {pa.__version__}"


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "several columns of one name .a."),
        (pa.table({"a": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), "month_day_nano_interval"),
        (pa.table({"a": pa.array([{}], pa.struct([]))}), "struct"),
        (pd.DataFrame({"a": [1, "x", object()]}), "pandas"),
        (pl.DataFrame({"a": [object()]}), "polars"),
    ],
    ids=["names", "interval", "struct", "objects", "python objects"],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(storage: Storage, table: Any, wrong: str) -> None:
    with pytest.raises(StorageRefused, match=wrong):
        storage.blocking.write(table)
    assert storage.blocking.sweep([], grace=0).kept == 0
    assert [each.name for each in Path(storage.name).rglob("*") if each.is_file()] in ([], ["lock"])


def test_the_annotation_is_held_to(storage: Storage) -> None:
    with pytest.raises(StorageRefused, match="annotated polars.DataFrame, but is a DataFrame"):
        storage.blocking.write(pd.DataFrame({"a": [1]}), pl.DataFrame)
    stored = storage.blocking.write(pl.DataFrame({"a": [1]}))
    with pytest.raises(StorageRefused, match="is a table, which cannot be read as builtins.int"):
        storage.blocking.read(stored, int)


# -- data versions -----------------------------------------------------------------------------------------------------


def variants(table: pa.Table) -> list[pa.Table]:
    """The same table in other clothes."""
    singles = [table.slice(at, 1) for at in range(table.num_rows)]
    padded = pa.concat_tables([table.slice(0, 1), table]).slice(min(1, table.num_rows)) if table.num_rows else table
    found = [table, table.combine_chunks(), padded, table.replace_schema_metadata({"a": "b"})]
    if singles:
        found.append(pa.concat_tables(singles))
    coded = [
        column.dictionary_encode() if pa.types.is_string(column.type) or pa.types.is_integer(column.type) else column
        for column in table.columns
    ]
    found.append(pa.table(dict(zip(table.column_names, coded, strict=True))))
    large = [column.cast(pa.large_string()) if pa.types.is_string(column.type) else column for column in table.columns]
    found.append(pa.table(dict(zip(table.column_names, large, strict=True))))
    return found


def of_type(type_: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(type_):
        return st.lists(of_type(type_.value_type) | st.none(), max_size=3)
    if pa.types.is_struct(type_):
        return st.fixed_dictionaries({field.name: of_type(field.type) | st.none() for field in type_})
    match str(type_):
        case "int64":
            return st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
        case "double":
            return st.floats(width=64)
        case "bool":
            return st.booleans()
        case "string":
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        case "binary":
            return st.binary(max_size=4)
        case "date32[day]":
            return st.dates()
        case "timestamp[us]":
            return st.datetimes()
        case _:
            return st.decimals(-99, 99, places=2)


FLAT = st.sampled_from(
    [
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.string(),
        pa.binary(),
        pa.date32(),
        pa.timestamp("us"),
        pa.decimal128(9, 2),
    ]
)
TYPE = st.recursive(
    FLAT,
    lambda inner: (
        inner.map(pa.list_)
        | st.lists(inner, min_size=1, max_size=2).map(lambda ts: pa.struct(list(zip("ab", ts, strict=False))))
    ),
    max_leaves=3,
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    types = draw(st.lists(TYPE, min_size=1, max_size=3))
    height = draw(st.integers(0, 6))
    columns = {
        f"c{number}": pa.array(draw(st.lists(of_type(t) | st.none(), min_size=height, max_size=height)), t)
        for number, t in enumerate(types)
    }
    return pa.table(columns)


def canonical(table: pa.Table) -> Any:
    """Told apart exactly as a data version should: bits of floats (all NaNs alike), nulls, types, names."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return ("float", "nan" if value != value else value.hex())
        if isinstance(value, list):
            return [plain(each) for each in value]
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return (type(value).__name__, value)

    return [(f.name, str(f.type), f.nullable) for f in table.schema], plain(table.to_pylist())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_equal_tables_have_equal_versions_in_any_clothes(table: pa.Table) -> None:
    assert {data_version(each) for each in variants(table)} == {data_version(table)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), tables(), st.data())
def test_versions_are_equal_exactly_when_tables_are(one: pa.Table, other: pa.Table, data: st.DataObject) -> None:
    assert (data_version(one) == data_version(other)) == (canonical(one) == canonical(other))
    if one.num_rows > 1:
        order = data.draw(st.permutations(range(one.num_rows)))
        moved = one.take(pa.array(order))
        assert (data_version(one) == data_version(moved)) == (canonical(one) == canonical(moved))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(table=tables())
def test_parquet_changes_no_version(tmp_path: Path, table: pa.Table) -> None:
    storage = Storage(tmp_path / "storage").blocking
    stored = storage.write(table)
    assert stored.data_version == data_version(table) == data_version(storage.read(stored))


DIFFERENT: list[tuple[str, Any, Any]] = [
    ("order of rows", pa.table({"a": [1, 2]}), pa.table({"a": [2, 1]})),
    ("order of columns", pa.table({"a": [1], "b": [1]}), pa.table({"b": [1], "a": [1]})),
    ("name", pa.table({"a": [1]}), pa.table({"b": [1]})),
    ("type", pa.table({"a": [1]}), pa.table({"a": [1.0]})),
    ("width", pa.table({"a": [1]}), pa.table({"a": pa.array([1], pa.int32())})),
    ("null and NaN", pa.table({"a": pa.array([None], pa.float64())}), pa.table({"a": [NAN]})),
    ("zeros", pa.table({"a": [0.0]}), pa.table({"a": [-0.0]})),
    ("null and empty", pa.table({"a": pa.array([None], pa.string())}), pa.table({"a": [""]})),
    (
        "null and empty list",
        pa.table({"a": pa.array([None], pa.list_(pa.int64()))}),
        pa.table({"a": pa.array([[]], pa.list_(pa.int64()))}),
    ),
    ("where lists end", pa.table({"a": [[1], [2, 3]]}), pa.table({"a": [[1, 2], [3]]})),
    ("where texts end", pa.table({"a": ["ab", "c"]}), pa.table({"a": ["a", "bc"]})),
    ("null struct", pa.table({"a": pa.array([None], pa.struct([("x", pa.int64())]))}), pa.table({"a": [{"x": None}]})),
    (
        "zone",
        pa.table({"a": pa.array([0], pa.timestamp("us"))}),
        pa.table({"a": pa.array([0], pa.timestamp("us", "UTC"))}),
    ),
    (
        "scale",
        pa.table({"a": pa.array([Decimal(1)], pa.decimal128(9, 2))}),
        pa.table({"a": pa.array([Decimal(1)], pa.decimal128(9, 3))}),
    ),
    ("nullability", pa.table({"a": [1]}), pa.table({"a": [1]}, pa.schema([pa.field("a", pa.int64(), nullable=False)]))),
    ("one row less", pa.table({"a": pa.nulls(2)}), pa.table({"a": pa.nulls(3)})),
]


@pytest.mark.parametrize(("one", "other"), [each[1:] for each in DIFFERENT], ids=[each[0] for each in DIFFERENT])
def test_what_makes_a_difference(one: pa.Table, other: pa.Table) -> None:
    assert data_version(one) != data_version(other)


def test_a_data_version_is_the_same_for_ever() -> None:
    """Recorded in histories: a change here makes every stored table another one."""
    table = pa.table({name: column for name, column in COLUMNS.items() if name != "nothing"})
    assert data_version(table) == "8c8e51642ce846bdb6bf94ccb1c55e412156c35552b5c3b3f4ad9e20bb40ada3"
    odd = pa.table(
        {
            "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
            "pairs": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
            "half": pa.array([1.0, None, 0.5], pa.float16()),
            "wide": pa.array([Decimal("1.5"), None, Decimal(2)], pa.decimal256(60, 2)),
            "four": pa.array([b"abcd", None, b"\0\0\0\0"], pa.binary(4)),
        }
    )
    assert data_version(odd) == "57e4025dc50503e5c2cfda3f96ce775ce13f6a6def67bcd9990a27bf2e7a3056"


def test_all_nans_are_one() -> None:
    """Whatever their bits: a library may have any of them, and nobody who reads them can tell."""
    for width, patterns in (
        (8, (0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001)),
        (4, (0x7FC00000, 0xFFC00001)),
    ):
        type_ = pa.float64() if width == 8 else pa.float32()
        arrays = [
            pa.Array.from_buffers(type_, 1, [None, pa.py_buffer(bits.to_bytes(width, "little"))]) for bits in patterns
        ]
        assert len({data_version(pa.table({"a": array})) for array in arrays}) == 1


def test_what_parquet_does_not_tell_apart_is_one(storage: Storage) -> None:
    seconds = pa.table(
        {"t": pa.array([0, 60], pa.timestamp("s")), "d": pa.array([dt.date(2020, 1, 1), None], pa.date64())}
    )
    stored = storage.blocking.write(seconds)
    assert stored.data_version == data_version(storage.blocking.read(stored)) == data_version(seconds)


def test_large_tables_are_read_and_written_in_pieces(storage: Storage) -> None:
    """Row groups are cut alike wherever the batches end, and nobody needs the whole table in memory."""
    schema = pa.schema([("a", pa.int64())])
    total = 300_000

    def batches(size: int) -> pa.RecordBatchReader:
        parts = (pa.record_batch({"a": pa.array(range(at, min(at + size, total)))}) for at in range(0, total, size))
        return pa.RecordBatchReader.from_batches(schema, parts)

    before = pa.total_allocated_bytes()
    stored = storage.blocking.write(batches(1_000), pa.RecordBatchReader)
    assert storage.blocking.write(batches(77_777)) == stored
    with storage.blocking.path(stored) as path:
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(each).num_rows for each in range(groups.num_row_groups)] == [131_072, 131_072, 37_856]
    reader = storage.blocking.read(stored, pa.RecordBatchReader)
    assert sum(batch.num_rows for batch in reader) == total
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_reader_that_is_not_read_to_its_end_leaves_no_open_file(storage: Storage) -> None:
    stored = storage.blocking.write(pa.table({"a": list(range(200_000))}))
    reader = storage.blocking.read(stored, pa.RecordBatchReader)
    assert reader.read_next_batch().num_rows > 0
    reader.close()
    del reader


def test_a_source_that_fails_while_it_is_written_leaves_nothing(storage: Storage) -> None:
    def batches() -> Any:
        yield pa.record_batch({"a": pa.array(range(200_000))})
        raise ConnectionResetError("the source is gone")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())
    with pytest.raises(ConnectionResetError, match="the source is gone"):
        storage.blocking.write(reader)
    assert not list(Path(storage.name).rglob("*.p*"))


def test_a_stored_value_is_plain_json() -> None:
    import msgspec

    stored = Stored(key="k", digest="d", size=1, format="json", data_version="v")
    assert msgspec.json.decode(msgspec.json.encode(stored), type=Stored) == stored
