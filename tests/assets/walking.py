"""The models that partitions are held against: they walk, minute after minute, and ask `zoneinfo` each time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)

CHANGES = [
    ("UTC", date(2024, 2, 28)),
    ("Europe/Berlin", date(2013, 3, 30)),
    ("Europe/Berlin", date(2013, 10, 26)),
    ("America/New_York", date(2007, 11, 3)),
    ("America/Sao_Paulo", date(2018, 11, 3)),  # no midnight
    ("America/Sao_Paulo", date(2018, 2, 16)),  # 23:00 twice
    ("Asia/Beirut", date(2022, 3, 26)),  # no midnight
    ("Asia/Beirut", date(2022, 10, 28)),
    ("Australia/Lord_Howe", date(2013, 4, 6)),  # by half an hour
    ("Australia/Lord_Howe", date(2013, 10, 5)),
    ("America/St_Johns", date(2009, 10, 31)),  # at 00:01, back to the day before
    ("America/St_Johns", date(2009, 3, 7)),
    ("America/St_Johns", date(1988, 10, 29)),  # by two hours, until then
    ("Asia/Kathmandu", date(1985, 12, 31)),  # by a quarter of an hour
    ("Pacific/Apia", date(2011, 12, 29)),  # no 30 December
    ("Pacific/Kwajalein", date(1969, 9, 29)),  # 30 September twice
    ("Pacific/Kwajalein", date(1993, 8, 19)),  # no 21 August
    ("America/Toronto", date(1919, 3, 29)),  # from 23:30 to 00:30
    ("Africa/Casablanca", date(2024, 3, 9)),
    ("Antarctica/Troll", date(2013, 3, 30)),  # by two hours
    ("Europe/Dublin", date(2013, 10, 26)),
    ("Asia/Gaza", date(2040, 10, 19)),
]
"""Days before something is done to the clocks."""


def walked(zone: str, first: date, last: date) -> list[tuple[datetime, datetime]]:
    """Minute after minute of those days and the days beside them: the moment in UTC, and what the clocks show."""
    info = ZoneInfo(zone)
    moment = datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(days=2)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=2)
    found = []
    while moment < end:
        found.append((moment, moment.astimezone(info)))
        moment += MINUTE
    return found


def hours(zone: str, first: date, last: date) -> list[tuple[str, datetime, datetime]]:
    """Key, beginning and end of every hour from `first` up to `last`, by walking."""
    found = []
    for (wall, offset), some in groupby(
        walked(zone, first, last), lambda each: (each[1].isoformat()[:13], each[1].isoformat()[19:])
    ):
        moments = [moment for moment, _ in some]
        found.append((wall, offset, moments[0], moments[-1] + MINUTE))
    times = [wall for wall, *_ in found]
    begin = next(start for wall, _, start, _ in found if wall >= first.isoformat())
    end = next(start for wall, _, start, _ in found if wall >= last.isoformat())
    return [
        (wall + offset if times.count(wall) > 1 else wall, start, stop)
        for wall, offset, start, stop in found
        if begin <= start < end
    ]


def days(zone: str, first: date, last: date, hour: int = 0) -> list[tuple[str, datetime, datetime]]:
    """Key, beginning and end of every day from `first` up to `last`: from the first minute at which a date is reached."""
    reached: dict[date, datetime] = {}
    latest = date.min
    for moment, shown in walked(zone, first, last):
        day = (shown.replace(tzinfo=None) - timedelta(hours=hour)).date()
        if day > latest:
            reached[day] = moment
            latest = day
    beginnings = sorted(reached.items())
    return [
        (day.isoformat(), start, stop)
        for (day, start), (_, stop) in zip(beginnings, beginnings[1:])
        if first <= day < last
    ]
