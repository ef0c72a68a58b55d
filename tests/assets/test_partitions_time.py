"""Hours, days, weeks and months against models that walk; and what is done to clocks, and to definitions."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.assets import Daily, Hourly, Monthly, Partitions, Weekly, Window, zones
from engine.errors import DefinitionError, PartitionError
from tests.runtime.slices import some

from . import walking

FAR = datetime(2190, 1, 1, tzinfo=UTC)
ZONES = sorted({zone for zone, _ in walking.CHANGES} | {"America/Anchorage", "Pacific/Chatham", "Asia/Tehran"})
KINDS = (Hourly, Daily, Weekly, Monthly)
MONDAY = date(1995, 1, 2)


def listed(partitions: Partitions, now: datetime = FAR) -> list[tuple[str, datetime, datetime]]:
    found = []
    for key in partitions.keys(now=now):
        window = partitions.window(key)
        assert window is not None
        found.append((key, window.start, window.end))
    return found


# ------------------------------------------------------------------ against models that walk


@pytest.mark.parametrize(("zone", "day"), walking.CHANGES)
def test_hours_are_those_that_are_found_by_walking(zone: str, day: date) -> None:
    end = day + timedelta(days=4)
    hours = Hourly(day, end, timezone=zone)
    assert listed(hours) == walking.hours(zone, day, end)


@pytest.mark.parametrize("hour", [0, 3])
@pytest.mark.parametrize(("zone", "day"), walking.CHANGES)
def test_days_are_those_that_are_found_by_walking(zone: str, day: date, hour: int) -> None:
    end = day + timedelta(days=4)
    days = Daily(day, end, timezone=zone, offset=timedelta(hours=hour))
    assert listed(days) == walking.days(zone, day, end, hour)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(ZONES), st.dates(date(1950, 1, 1), date(2150, 1, 1)))
def test_any_days_are_those_that_are_found_by_walking(zone: str, day: date) -> None:
    end = day + timedelta(days=3)
    assert listed(Daily(day, end, timezone=zone)) == walking.days(zone, day, end)
    assert listed(Hourly(day, end, timezone=zone)) == walking.hours(zone, day, end)


# ------------------------------------------------------------------ windows tile


def partitions_of(kind: Any, zone: str, **more: Any) -> Any:
    starts = {Hourly: "2011-06-01", Daily: "1985-01-01", Weekly: "1984-12-31", Monthly: "1960-01"}
    ends = {Hourly: "2012-05-01", Daily: "2015-01-01", Weekly: "2014-12-29", Monthly: "2030-01"}
    return kind(starts[kind], ends[kind], timezone=zone, **more)


@cache
def walked_once(kind: Any, zone: str) -> list[tuple[str, datetime, datetime]]:
    return listed(partitions_of(kind, zone))


@pytest.mark.parametrize("zone", some(ZONES))
@pytest.mark.parametrize("kind", KINDS)
def test_windows_tile_time(kind: Any, zone: str) -> None:
    partitions = partitions_of(kind, zone)
    every = listed(partitions)
    assert all(start < end for _, start, end in every)
    assert [end for _, _, end in every[:-1]] == [start for _, start, _ in every[1:]]
    assert len({key for key, *_ in every}) == len(every)
    assert partitions.pick(key for key, *_ in every) == partitions.keys(now=FAR)


@settings(deadline=None)
@given(st.data())
def test_a_moment_lies_in_the_window_that_is_found_for_it(data: st.DataObject) -> None:
    partitions = partitions_of(data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(ZONES)))
    every = partitions.keys(now=FAR)
    first, last = partitions.window(every[0]).start, partitions.window(every[-1]).end
    seconds = data.draw(st.integers(0, int((last - first).total_seconds()) - 1))
    moment = (first + timedelta(seconds=seconds)).astimezone(UTC)
    ordinal = partitions.at(zones.instant_of(moment))
    assert moment in partitions.window(every[ordinal])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_partition_exists_when_its_window_has_ended_or_with_current_has_begun(data: st.DataObject) -> None:
    kind, zone = data.draw(st.sampled_from([Daily, Weekly, Monthly])), data.draw(st.sampled_from(ZONES))
    partitions = partitions_of(kind, zone)
    now = data.draw(st.datetimes(datetime(1984, 1, 1), datetime(2016, 1, 1))).replace(tzinfo=UTC)
    if data.draw(st.booleans()) and (every := partitions.keys(now=now)):
        now = partitions.window(every[-1]).end + data.draw(st.sampled_from([-1, 0, 1])) * timedelta.resolution
    every = walked_once(kind, zone)
    assert list(partitions.keys(now=now)) == [key for key, _, end in every if end <= now]
    current = partitions_of(kind, zone, current=True)
    assert list(current.keys(now=now)) == [key for key, start, _ in every if start <= now]


# ------------------------------------------------------------------ what is done to clocks


def windows(partitions: Partitions, *keys: str) -> list[Window | None]:
    return [partitions.window(key) for key in keys]


def hours_of(window: Window | None) -> float:
    assert window is not None
    return (window.end - window.start) / timedelta(hours=1)


def test_days_have_the_hours_that_they_have() -> None:
    days = Daily("2013-01-01", timezone="Europe/Berlin")
    assert list(map(hours_of, windows(days, "2013-03-30", "2013-03-31", "2013-10-27"))) == [24, 23, 25]
    window = days.window("2013-10-27")
    assert (str(window.start), str(window.end)) == ("2013-10-27 00:00:00+02:00", "2013-10-28 00:00:00+01:00")


def test_an_hour_that_comes_twice_is_two_and_one_that_is_skipped_is_none() -> None:
    hours = Hourly("2013-03-31", timezone="Europe/Berlin")
    assert list(hours.keys(now=datetime(2013, 3, 31, 2, tzinfo=UTC))) == [
        "2013-03-31T00", "2013-03-31T01", "2013-03-31T03",
    ]  # fmt: skip
    twice = hours.pick(["2013-10-27T02+01:00", "2013-10-27T02+02:00"])
    assert list(twice) == ["2013-10-27T02+02:00", "2013-10-27T02+01:00"]
    assert [hours.window(key).end for key in twice] == [datetime(2013, 10, 27, hour, tzinfo=UTC) for hour in (1, 2)]


def test_a_day_that_is_skipped_is_none_and_the_day_before_it_is_yesterday() -> None:
    days = Daily("2011-12-28", timezone="Pacific/Apia")
    assert list(days.keys(now=datetime(2012, 1, 2, tzinfo=UTC))) == [
        "2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01",
    ]  # fmt: skip
    with pytest.raises(PartitionError, match="the clocks skipped it; nearest: '2011-12-31'"):
        days.check("2011-12-30")
    assert Daily("2011-12-30", timezone="Pacific/Apia").defined()[0] == "2011-12-31"
    assert len(Weekly("2011-12-23", "2012-01-06", begins="friday", timezone="Pacific/Apia").defined()) == 2


def test_where_there_is_no_midnight_the_day_begins_at_one() -> None:
    for zone, day in (("America/Sao_Paulo", "2018-11-04"), ("Asia/Beirut", "2022-03-27")):
        window = Daily(day, timezone=zone).window(day)
        assert (window.start.hour, hours_of(window)) == (1, 23)
        assert Hourly(day, timezone=zone).defined()[0] == f"{day}T01"


def test_weeks_and_months_go_over_years() -> None:
    weeks = Weekly("1999-12-27", "2000-01-17")
    assert list(weeks.keys(now=FAR)) == ["1999-12-27", "2000-01-03", "2000-01-10"]
    sundays = Weekly("2023-12-31", "2024-01-14", begins="sunday")
    assert str(sundays.keys(now=FAR)) == "2023-12-31..2024-01-07"
    iso = Weekly("2020-12-21", "2021-01-18", format="%G-W%V")
    assert list(iso.keys(now=FAR)) == ["2020-W52", "2020-W53", "2021-W01", "2021-W02"]
    assert list(Monthly("2013-11", "2014-03").keys(now=FAR)) == ["2013-11", "2013-12", "2014-01", "2014-02"]


def test_the_end_is_exclusive_and_without_one_there_is_always_a_next() -> None:
    assert str(Daily("2013", "2014").keys(now=FAR)) == "2013-01-01..2013-12-31"
    assert Daily("2013").defined()[-1] == f"{zones.YEAR_MAX - 1}-12-31"
    assert Hourly("2013").defined()[-1] == f"{zones.YEAR_MAX - 1}-12-31T23"


@pytest.mark.parametrize("kind", KINDS)
def test_years_cost_nothing(kind: Any) -> None:
    """Arithmetic: with a table that is made, a partition two centuries later is found without what lies between."""
    partitions = kind({Weekly: "2012-12-31"}.get(kind, "2013-01-01"), timezone="Europe/Berlin")
    calls: list[int] = []
    original = partitions.zone.first_instant
    partitions.zone.first_instant = lambda wall: (calls.append(wall), original(wall))[1]
    try:
        key = partitions.defined()[-2]
        calls.clear()
        assert partitions.window(key).start.year >= 2199
        assert partitions.at(zones.instant_of(FAR)) > 2_000
        assert len(calls) < 20
    finally:
        del partitions.zone.first_instant


# ------------------------------------------------------------------ keys


def test_keys_in_another_format() -> None:
    days = Daily("2013-01-01", format="%d.%m.%Y")
    assert str(days.keys(now=datetime(2013, 1, 4, tzinfo=UTC))) == "01.01.2013..03.01.2013"
    assert "02.01.2013" in days.keys(now=FAR)
    hours = Hourly("2013-10-27", timezone="Europe/Berlin", format="%Y%m%d%H")
    assert list(hours.keys(now=datetime(2013, 10, 27, 2, tzinfo=UTC)))[-2:] == ["2013102702+02:00", "2013102702+01:00"]
    with pytest.raises(PartitionError, match="came twice: '2013102702[+]02:00' and '2013102702[+]01:00'"):
        hours.check("2013102702")


@pytest.mark.parametrize("given_format", ["%m-%d", "%Y", "days", "%Y-%m", "%G-W%V", "%Y-%d"])
def test_a_format_tells_partitions_apart(given_format: str) -> None:
    with pytest.raises(DefinitionError, match="does not tell all partitions apart"):
        Daily("2013-01-01", format=given_format)


@pytest.mark.parametrize("given_format", ["%b %Y", "%y-%m-%d", "%Y-%m-%d%", "%c", "%Y-%m-%d %Z"])
def test_a_format_says_the_same_everywhere(given_format: str) -> None:
    with pytest.raises(DefinitionError, match="is not for keys; those are %Y %m %d"):
        Daily("2013-01-01", format=given_format)


def test_a_format_makes_keys() -> None:
    with pytest.raises(DefinitionError, match="holds '\\\\n'"):
        Daily("2013-01-01", format="%Y-%m-%d\n")


@pytest.mark.parametrize(
    ("partitions", "key", "said"),
    [
        (Daily("2013-01-01"), "2013-1-1", "keys are like '2013-01-01'"),
        (Daily("2013-01-01"), "2013-02-30", "keys are like '2013-01-01'"),
        (Daily("2013-01-01"), "20130131", "it is written '2013-01-31'; nearest: '2013-01-31'"),
        (Daily("2013-01-01"), "2013-W01-1", "it is written|the first is"),
        (Daily("2013-01-01"), "2012-12-31", "the first is '2013-01-01'; nearest: '2013-01-01'"),
        (Daily("2013-01-01", "2013-02-01"), "2013-02-01", "the last is '2013-01-31'; nearest: '2013-01-31'"),
        (Daily("2013-01-01"), "٢٠١٣-٠١-٠١", "keys are like '2013-01-01'"),
        (Monthly("2013"), "2013-13", "keys are like '2013-01'"),
        (Monthly("2013"), "2013-1", "it is written '2013-01'"),
        (Weekly("2012-12-31"), "2013-01-01", "it is written '2012-12-31'"),
        (Hourly("2013", timezone="Europe/Berlin"), "2013-03-31T02", "the clocks skipped that hour"),
        (Hourly("2013", timezone="Europe/Berlin"), "2013-10-27T02", "came twice: .*02:00' and .*01:00'; nearest"),
        (Hourly("2013", timezone="Europe/Berlin"), "2013-10-27T02+03:00", "came twice"),
        (Hourly("2013", timezone="Europe/Berlin"), "2013-10-27T03+01:00", "it is written '2013-10-27T03'"),
        (Hourly("2013"), "2013-01-01T24", "keys are like '2013-01-01T00'"),
        (Hourly("2013"), "2013-01-01 05", "keys are like '2013-01-01T00'"),
        (Hourly("2013"), "2013-W02-1T05", "keys are like '2013-01-01T00'"),
        (Hourly("2013"), "2012-12-31T23", "the first is '2013-01-01T00'"),
        (Hourly("2013", "2014"), "2014-01-01T00", "the last is '2013-12-31T23'"),
        (Hourly("2013"), "", "keys are like"),
    ],
)
def test_a_key_that_is_none_is_told_why(partitions: Partitions, key: str, said: str) -> None:
    assert key not in partitions.defined()
    for refused in (partitions.check, partitions.window):
        with pytest.raises(PartitionError, match=said):
            refused(key)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.text() | st.from_regex(r"\d{4}-?\d\d-?\d\d[T ]?\d*[+-]?[\d:]*", fullmatch=True))
def test_what_is_a_key_is_written_as_it_is_read(kind: Any, key: str) -> None:
    partitions = partitions_of(kind, "Europe/Berlin")
    place = partitions.place(key)
    if place is None:
        with pytest.raises(PartitionError, match="there is no partition"):
            partitions.check(key)
    else:
        assert partitions.key_at(place) == key


# ------------------------------------------------------------------ definitions


def test_definitions_that_say_the_same_are_equal() -> None:
    same = [Daily("2013"), Daily("2013-01"), Daily("2013-01-01"), Daily(date(2013, 1, 1)), Daily(datetime(2013, 1, 1))]
    assert len(set(same)) == 1
    assert repr(same[0]) == "Daily(start='2013-01-01')"
    assert Daily("2013") != Daily("2013", timezone="Europe/Berlin")
    assert Daily("2013") != Weekly("2012-12-31") != Monthly("2013")
    assert same[1].keys(now=FAR) == same[3].keys(now=FAR)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Monthly, {"start": "2013-01-15"}, "start='2013-01-15' is not where .* begins: 2013-01 and 2013-02"),
        (Monthly, {"start": "2013", "end": "2013-05-02"}, "end='2013-05-02' is not where"),
        (Weekly, {"start": "2013-01-01"}, "2012-12-31 and 2013-01-07"),
        (Weekly, {"start": "2013-01-06", "begins": "Sunday"}, "none of monday, tuesday"),
        (Daily, {"start": "2013-01-01T05"}, "2013-01-01 and 2013-01-02"),
        (Hourly, {"start": "2013-01-01T05:30"}, "2013-01-01T05 and 2013-01-01T06"),
        (Daily, {"start": "yesterday"}, "'yesterday' is no date"),
        (Daily, {"start": "2013-02-30"}, "'2013-02-30' is no date"),
        (Daily, {"start": 2013.5}, "2013.5 is no date"),
        (Daily, {"start": datetime(2013, 1, 1, tzinfo=UTC)}, "has a zone of its own"),
        (Daily, {"start": "1066-10-14"}, "does not lie in the years from 1600 up to 2200"),
        (Daily, {"start": "2013", "end": "2201"}, "does not lie in the years"),
        (Daily, {"start": "2013", "end": "2013"}, "ends before anything has begun"),
        (Daily, {"start": "2013", "end": "2012"}, "ends before anything has begun"),
        (Daily, {"start": "2013", "offset": timedelta(hours=24)}, "from 0 up to 1 day"),
        (Daily, {"start": "2013", "offset": timedelta(hours=-1)}, "from 0 up to 1 day"),
        (Hourly, {"start": "2013", "offset": timedelta(microseconds=5)}, "whole seconds"),
        (Daily, {"start": "2013", "timezone": "Europe/Berlim"}, "no time zone 'Europe/Berlim'.*'Europe/Berlin'"),
        (Daily, {"start": "2013", "timezone": "../../etc/passwd"}, "no time zone"),
        (Daily, {"start": "2013", "timezone": "Europe"}, "no time zone"),
        (Daily, {"start": "2013", "timezone": ""}, "no time zone"),
    ],
)
def test_a_definition_that_cannot_be_is_refused(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        kind(**options)


def test_without_time_zones_the_machine_is_named_and_utc_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", gone)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(DefinitionError, match="'Europe/Berlin' cannot be read: this machine has no time zones.*tzdata"):
        Daily("2013", timezone="Europe/Berlin")
    assert len(Daily("2013", "2014").keys(now=FAR)) == 365


def test_now_is_a_moment() -> None:
    for partitions in (Daily("2013"), Hourly("2013")):
        with pytest.raises(ValueError, match="aware"):
            partitions.keys(now=datetime(2014, 1, 1))
    east = datetime(2013, 1, 2, 5, tzinfo=timezone(timedelta(hours=5)))
    assert list(Daily("2013").keys(now=east)) == ["2013-01-01"]
    assert list(Daily("2013").keys(now=east - timedelta.resolution)) == []


def test_offsets_move_beginnings_and_keys_are_of_the_beginning() -> None:
    days = Daily("2013-01-01", timezone="Europe/Berlin", offset=timedelta(hours=6))
    window = days.window("2013-03-30")
    assert (str(window.start), str(window.end)) == ("2013-03-30 06:00:00+01:00", "2013-03-31 06:00:00+02:00")
    assert hours_of(window) == 23
    quarters = Hourly("2013-01-01T05", offset=timedelta(minutes=15))
    assert quarters.window("2013-01-01T05").start == datetime(2013, 1, 1, 5, 15, tzinfo=UTC)
    assert datetime(2013, 1, 1, 6, 10, tzinfo=UTC) in quarters.window("2013-01-01T05")
