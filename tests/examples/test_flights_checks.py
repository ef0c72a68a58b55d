"""The checks: what holds passes in silence, known warts are warnings with a count, anything else fails with its reason."""

import msgspec
import pytest

from tests.examples.conftest import AIRLINES, AIRPORTS, FLIGHTS, PLANES, WEATHER

FIRST = FLIGHTS.splitlines()[1]


@pytest.fixture(autouse=True)
def small_tables(example, monkeypatch):
    """The rules as they are, but no row is known to break them, and the tables are as small as the made-up ones."""
    small = {
        name: msgspec.structs.replace(
            table,
            rows={"airlines": 2, "airports": 3, "planes": 2, "weather": 3, "flights": 5}[name],
            rules=[msgspec.structs.replace(rule, known=0) for rule in table.rules],
        )
        for name, table in example.TABLES.items()
    }
    for module in (example, __import__("flights_lib.tables").tables):
        monkeypatch.setattr(module, "TABLES", small)


def judge_all(example, tables):
    """Every rule, in one go: what the tasks find, but for the sizes of the tables."""
    with example.connect(**tables) as db:
        return [finding for name, table in example.TABLES.items() for finding in example.judge(db, name, table.rules)]


def check_all(example, tables):
    """As the workflow does it."""
    found = [finding for table in tables for finding in example.check_table.fn(table, tables[table])]
    for name, table in example.TABLES.items():
        for rule in table.rules:
            if rule.parent:
                found += example.check_reference.fn(name, rule.columns, tables)
    return found


def edited(table: str, old: str, new: str) -> str:
    assert old in table
    return table.replace(old, new, 1)


CANCELLED = {"dep_time is missing", "arr_time is missing", "arr_delay is missing", "air_time is missing"}


def test_good_data_pass_and_every_rule_was_asked(example, extract_all):
    findings = check_all(example, extract_all())
    assert {f"{f.columns} {f.problem}" for f in findings if f.count} == CANCELLED  # one flight of the made-up ones is
    assert len(findings) == sum(len(table.rules) for table in example.TABLES.values()) + 5
    assert len({(f.table, f.columns, f.problem) for f in findings}) == len(findings)


VIOLATIONS = {
    "missing": (
        {"airlines": edited(AIRLINES, "UA,United", "UA,NA")},
        "airlines: name is missing: 1 of 2 rows",
        "carrier=UA",
    ),
    "missing key": ({"planes": edited(PLANES, "N2,1993", ",1993")}, "planes: tailnum is missing: 1 of 2 rows", "None"),
    "repeated": (
        {"airlines": edited(AIRLINES, "UA,United", "AA,United")},
        "airlines: carrier is not unique: 2 of 2 rows",
        "carrier=AA",
    ),
    "repeated pair": (
        {"weather": edited(WEATHER, "JFK,2013,1,1,6", "EWR,2013,1,1,6")},
        "weather: origin, time_hour is not unique: 2 of 3 rows",
        "origin=EWR, time_hour=2013-01-01 11:00:00",
    ),
    "outside": (
        {"flights": edited(FLIGHTS, "600,10,", "600,9999,")},
        "flights: dep_delay is not in -120..1440: 1 of 5 rows",
        "time_hour=2013-01-01 11:00:00, carrier=UA, flight=100, origin=EWR, dep_delay=9999",
    ),
    "latitude": (
        {"airports": edited(AIRPORTS, "40.69", "91")},
        "airports: lat is not in -90..90: 1 of 3 rows",
        "lat=91",
    ),
    "wind": ({"weather": edited(WEATHER, "10.4", "1048.4")}, "weather: wind_speed is not in 0..150: 1 of 3", "1048.4"),
    "seats": ({"planes": edited(PLANES, ",149,", ",0,")}, "planes: seats is not in 1..900: 1 of 2 rows", "seats=0"),
    "dangling airline": (
        {"airlines": edited(AIRLINES, "UA,United", "XX,United")},
        "flights: carrier is not in airlines: 2 of 5 rows",
        "carrier=UA, flight=100",
    ),
    "dangling destination": (
        {"airports": edited(AIRPORTS, "ORD", "MDW")},
        "flights: dest is not in airports: 5 of 5 rows",
        "dest=ORD",
    ),
    "dangling plane": ({"planes": edited(PLANES, "N2", "N3")}, "flights: tailnum is not in planes: 3 of 5 rows", "N2"),
    "dangling pair": (
        {"weather": edited(WEATHER, "2013-02-01T11", "2013-02-01T12")},
        "flights: origin, time_hour is not in weather: 2 of 5 rows",
        "origin=JFK",
    ),
    "origin of the weather": (
        {"airports": edited(AIRPORTS, "JFK", "LGA")},
        "weather: origin is not in airports: 2 of 3 rows",
        "origin=JFK",
    ),
    "clock": ({"flights": edited(FLIGHTS, ",6,45,", ",7,45,")}, "sched_dep_time is not hour and minute: 1 of 5", "645"),
    "time zone": (
        {"flights": edited(FLIGHTS, "6,0,2013-01-01T11", "6,0,2013-01-01T06")},
        "flights: time_hour is not the local hour in UTC: 1 of 5 rows",
        "2013-01-01 06:00:00",
    ),
    "arrived, never left": (
        {"flights": edited(FLIGHTS, "NA,615,NA,NA,745,NA", "NA,615,NA,800,745,NA")},
        "flights: dep_time is missing, yet the flight arrived: 1 of 5 rows",
        "flight=201",
    ),
    "too fast": (
        {"flights": edited(FLIGHTS, "ORD,110,719", "ORD,50,719")},
        "air_time means over 650 mph: 1 of 5",
        "100",
    ),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_fails_the_run_and_says_which_rows(example, extract_all, violation):
    changed, reason, sample = VIOLATIONS[violation]
    findings = judge_all(example, extract_all(**changed))
    with pytest.raises(example.DataQualityError) as failure:
        example.insist(findings)
    message = str(failure.value)
    assert reason in message
    assert sample in message
    assert f"of {len(findings)} data-quality checks failed" in message


def test_too_many_rows_and_none_at_all_fail_the_run(example, extract_all):
    tables = extract_all(
        flights=FLIGHTS + FIRST.replace("UA,100", "UA,300") + "\n", planes=PLANES.splitlines()[0] + "\n"
    )
    findings = example.check_table.fn("flights", tables["flights"]) + example.check_table.fn("planes", tables["planes"])
    with pytest.raises(
        example.DataQualityError, match=r"\n  flights has 6 rows, not 5\n[\s\S]*\n  planes has 0 rows, not 2"
    ):
        example.insist(findings)


def test_all_that_is_wrong_is_said_at_once_and_no_more_than_three_rows_are_shown(example, extract_all):
    findings = judge_all(
        example, extract_all(airports=edited(AIRPORTS, "ORD", "MDW"), planes=edited(PLANES, "N2", "N3"))
    )
    with pytest.raises(example.DataQualityError) as failure:
        example.insist(findings)
    message = str(failure.value)
    assert message.startswith("6 of ")
    assert message.count("dest=ORD") == 3
    assert message.count("tailnum=N2") == 3


def test_known_warts_are_warnings_until_there_is_one_more(example, extract_all, monkeypatch):
    flights = example.TABLES["flights"]
    rules = [
        msgspec.structs.replace(rule, known=5 if rule.columns == "dest" else 1, meaning="known")
        for rule in flights.rules
    ]
    monkeypatch.setitem(example.TABLES, "flights", msgspec.structs.replace(flights, rules=rules))
    findings = judge_all(example, extract_all(airports=edited(AIRPORTS, "ORD", "MDW")))
    example.insist(findings)
    (wart,) = [finding for finding in findings if finding.columns == "dest" and finding.count]
    assert (wart.count, wart.total, wart.known, wart.meaning) == (5, 5, 5, "known")

    findings = [msgspec.structs.replace(f, count=6) if f == wart else f for f in findings]
    with pytest.raises(example.DataQualityError, match="dest is not in airports: 6 of 5 rows, 5 are known"):
        example.insist(findings)


def test_findings_survive_the_history(example, extract_all):
    findings = judge_all(example, extract_all())
    assert msgspec.json.decode(msgspec.json.encode(findings), type=list[type(findings[0])]) == findings
