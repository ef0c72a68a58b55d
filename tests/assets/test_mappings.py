"""Mappings against models that go through all pairs of partitions; both ways; and the one that is meant by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.assets import (
    AllPartitions,
    Custom,
    Daily,
    Dimension,
    Dynamic,
    DynamicKeys,
    EachDimension,
    Hourly,
    KeySet,
    LastPartition,
    Mapping,
    Monthly,
    Partitions,
    Product,
    SameKey,
    Static,
    TimeWindow,
    Unpartitioned,
    Weekly,
    default_mapping,
)
from engine.assets.key_text import split
from engine.assets.mappings import OFFSET_MAX
from engine.errors import DefinitionError, PartitionError, PartitionMismatch

NOW = datetime(2013, 11, 20, 15, tzinfo=UTC)
BERLIN, APIA, LORD_HOWE = "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe"
TIMES: list[Any] = [
    Hourly("2013-10-20", timezone=BERLIN),
    Hourly("2013-10-01", "2013-10-08", timezone=LORD_HOWE),
    Daily("2013-09-28", timezone=BERLIN),
    Daily("2013-10-15", "2013-11-01"),
    Daily("2013-10-01", timezone=APIA, current=True),
    Weekly("2013-09-30", timezone=BERLIN),
    Weekly("2013-09-29", begins="sunday", current=True),
    Monthly("2013-08", timezone=BERLIN),
    Monthly("2013-09", current=True),
]
REGIONS = Static(["eu", "us", "a|b"])
Pairs = Callable[[str, str], bool]


def some_of(data: st.DataObject, every: KeySet) -> KeySet:
    """Part of a set: a range, a few, or many that are broken."""
    edges = sorted(data.draw(st.lists(st.integers(0, len(every)), max_size=4)))
    found = every[:0]
    for start, stop in zip(edges[::2], edges[1::2]):
        found |= every[start:stop]
    if data.draw(st.booleans()):
        random = data.draw(st.randoms(use_true_random=False))
        found ^= every.pick(key for key in every if random.random() < 0.3)
    return found


def agrees(data: st.DataObject, mapping: Mapping, up: KeySet, down: KeySet, made_from: Pairs) -> None:
    """Both ways, for parts of both sides."""
    wanted = some_of(data, down)
    assert list(mapping.upstream(wanted, up)) == [key for key in up if any(made_from(each, key) for each in wanted)]
    changed = some_of(data, up)
    found = mapping.downstream(changed, down, up)
    assert list(found) == [key for key in down if any(made_from(key, each) for each in changed)]


def by_window(up: Any, down: Any, up_keys: KeySet, start: int, end: int) -> Pairs:
    """Partitions that overlap, by looking at all; then so many before and after."""
    windows = {key: up.window(key) for key in up_keys}

    def made_from(key: str, other: str) -> bool:
        window = down.window(key)
        touched = [
            place for place, each in enumerate(windows.values()) if each.start < window.end and window.start < each.end
        ]
        if not touched:
            return False
        place = list(windows).index(other)
        return touched[0] + start <= place <= touched[-1] + end

    return made_from


# ------------------------------------------------------------------ by time


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_windows_that_overlap(data: st.DataObject) -> None:
    up, down = data.draw(st.sampled_from(TIMES)), data.draw(st.sampled_from(TIMES))
    ups, downs = up.keys(now=NOW)[:60], down.keys(now=NOW)[:60]
    overlaps = {
        (key, other)
        for key, window in [(key, down.window(key)) for key in downs]
        for other, each in [(other, up.window(other)) for other in ups]
        if each.start < window.end and window.start < each.end
    }
    agrees(data, TimeWindow(), ups, downs, lambda key, other: (key, other) in overlaps)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(-3, 3), st.integers(0, 3))
def test_windows_with_offsets(data: st.DataObject, start: int, length: int) -> None:
    """Of one asset's own partitions, and of finer and coarser ones that cover the same time."""
    up = data.draw(
        st.sampled_from(
            [Daily("2013-10-21", "2013-11-11", timezone=BERLIN), Weekly("2013-10-21", "2013-11-11", timezone=BERLIN)]
        )
    )
    down = data.draw(
        st.sampled_from(
            [
                up,
                Daily("2013-10-21", "2013-11-11", timezone=BERLIN),
                Weekly("2013-10-21", "2013-11-11", timezone=BERLIN),
            ]
        )
    )
    ups, downs = up.keys(now=NOW), down.keys(now=NOW)
    agrees(data, TimeWindow(start, start + length), ups, downs, by_window(up, down, ups, start, start + length))


def test_what_a_month_a_day_and_a_week_are_made_from() -> None:
    hours, days = Hourly("2013-01-01", timezone=BERLIN), Daily("2013-01-01", timezone=BERLIN)
    hour_keys, day_keys = hours.keys(now=NOW), days.keys(now=NOW)
    window = TimeWindow()
    months = Monthly("2013", timezone=BERLIN).keys(now=NOW)
    assert str(window.upstream(months.parse("2013-02"), day_keys)) == "2013-02-01..2013-02-28"
    assert (
        str(window.downstream(day_keys.parse("2013-01-31..2013-02-01,2013-09-09"), months, day_keys))
        == "2013-01..2013-02,2013-09"
    )
    assert len(window.upstream(day_keys.parse("2013-10-27"), hour_keys)) == 25
    assert len(window.upstream(day_keys.parse("2013-03-31"), hour_keys)) == 23
    weeks = Weekly("2013-01-07", timezone=BERLIN).keys(now=NOW)
    assert str(window.upstream(weeks.parse("2013-04-29"), day_keys)) == "2013-04-29..2013-05-05"
    assert str(window.upstream(weeks.parse("2013-04-29"), months)) == "2013-04..2013-05"
    yesterday = TimeWindow(-1, -1)
    assert str(yesterday.upstream(day_keys.parse("2013-01-01..2013-01-03"), day_keys)) == "2013-01-01..2013-01-02"
    assert str(yesterday.downstream(day_keys.parse("2013-01-31"), day_keys, day_keys)) == "2013-02-01"
    assert str(TimeWindow(-6).upstream(day_keys.parse("2013-01-10"), day_keys)) == "2013-01-04..2013-01-10"
    assert (
        str(
            TimeWindow(1, 1).upstream(
                day_keys.parse("2012-12-31") if "2012-12-31" in day_keys else day_keys[:1], day_keys
            )
        )
        == "2013-01-02"
    )


@pytest.mark.parametrize("up", TIMES)
@pytest.mark.parametrize("down", TIMES)
def test_offsets_may_lead_far_away(up: Any, down: Any) -> None:
    ups, downs = up.keys(now=NOW), down.keys(now=NOW)
    wide = TimeWindow(-OFFSET_MAX, OFFSET_MAX)
    assert wide.upstream(downs[:1], ups) == ups
    assert wide.downstream(ups[-1:], downs, ups) == downs
    for far in (-OFFSET_MAX, OFFSET_MAX):
        assert not TimeWindow(far, far).upstream(downs, ups)
        assert not TimeWindow(far, far).downstream(ups, downs, ups)


def test_windows_need_time_and_offsets_an_order() -> None:
    names, days = REGIONS.keys(now=NOW), Daily("2013-10-01").keys(now=NOW)
    for up, down in ((names, days), (days, names)):
        with pytest.raises(PartitionMismatch, match="leads between partitions by time, not between"):
            TimeWindow().upstream(down, up)
        with pytest.raises(PartitionMismatch, match="leads between partitions by time"):
            TimeWindow().downstream(up, down, up)
    with pytest.raises(DefinitionError, match="ends before it starts"):
        TimeWindow(1)
    with pytest.raises(DefinitionError, match="at most 10000 partitions"):
        TimeWindow(-(10**9))


def test_what_waits_for_a_time_that_has_not_come() -> None:
    utc, new_york = Monthly("2013"), Daily("2013-01-01", timezone="America/New_York")
    now = datetime(2013, 3, 1, 1, tzinfo=UTC)  # February is over here, and its last day is not over there
    months, days = utc.keys(now=now), new_york.keys(now=now)
    assert (str(months), days[-1]) == ("2013-01..2013-02", "2013-02-27")
    assert str(TimeWindow().waiting(months, days)) == "2013-02"
    assert str(TimeWindow(0, 1).waiting(months, days)) == "2013-02"
    assert str(TimeWindow(-40, -31).waiting(months, days)) == ""
    ended = Daily("2013-01-01", "2013-02-15", timezone="America/New_York").keys(now=now)
    assert str(TimeWindow().waiting(months, ended)) == ""  # there will never be more of them
    assert str(SameKey().waiting(utc.keys(now=now), utc.keys(now=datetime(2013, 2, 5, tzinfo=UTC)))) == "2013-02"
    for mapping in (AllPartitions(), LastPartition(), Custom(lambda key: key)):
        assert not mapping.waiting(months, months[:1])


# ------------------------------------------------------------------ by key, all, last, custom


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_same_key(data: st.DataObject) -> None:
    definitions: list[Partitions] = [
        REGIONS,
        Static(["us", "x", "eu"]),
        Daily("2013-11-01"),
        Daily("2013-11-10"),
        Unpartitioned(),
    ]
    up, down = data.draw(st.sampled_from(definitions)), data.draw(st.sampled_from(definitions))
    agrees(data, SameKey(), up.keys(now=NOW), down.keys(now=NOW), str.__eq__)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_all_and_last(data: st.DataObject) -> None:
    ups, downs = REGIONS.keys(now=NOW), Daily("2013-11-01").keys(now=NOW)
    agrees(data, AllPartitions(), ups, downs, lambda key, other: True)
    agrees(data, LastPartition(), ups, downs, lambda key, other: other == "a|b")
    assert not LastPartition().upstream(downs, ups[:0])
    assert not LastPartition().downstream(ups[:0], downs, ups)


def before(key: str) -> Iterable[str]:
    return [f"{key[:-2]}{int(key[-2:]) - 1:02}", key] if not key.endswith("01") else key


def after(key: str) -> Iterable[str]:
    return [key, f"{key[:-2]}{int(key[-2:]) + 1:02}"]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_custom(data: st.DataObject) -> None:
    days = Daily("2013-11-01").keys(now=NOW)
    for mapping in (Custom(before), Custom(before, after)):
        agrees(data, mapping, days, days, lambda key, other: other in ([key] if key.endswith("01") else before(key)))


@pytest.mark.parametrize("answer", ["nowhere", ["eu", "nowhere"], [None], [5]])
def test_a_custom_function_that_names_what_never_is_is_named(answer: Any) -> None:
    def astray(key: str) -> Any:
        return answer

    regions = REGIONS.keys(now=NOW)
    for refused in (
        lambda: Custom(astray).upstream(regions, regions),
        lambda: Custom(astray).downstream(regions, regions, regions),
        lambda: Custom(before, astray).downstream(regions, regions, regions),
    ):
        with pytest.raises(PartitionError, match="astray.'eu'. names .*, which is no partition of Static"):
            refused()


def test_what_a_custom_function_raises_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        Custom(lambda key: [str(1 // 0)]).upstream(REGIONS.keys(now=NOW), REGIONS.keys(now=NOW))


# ------------------------------------------------------------------ two dimensions


def parts(key: str) -> tuple[str, str]:
    found = split(key)
    assert found is not None
    return found


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_one_dimension_of_a_product(data: st.DataObject) -> None:
    days = Daily("2013-10-25", "2013-11-05")
    both = Product(REGIONS, days) if data.draw(st.booleans()) else Product(days, REGIONS)
    pairs, regions = both.keys(now=NOW), REGIONS.keys(now=NOW)
    name: Any = "first" if both.first == REGIONS else "second"
    place = 0 if name == "first" else 1
    for mapping in (Dimension(name), Dimension(name, SameKey()), default_mapping(both, REGIONS)):
        agrees(data, mapping, pairs, regions, lambda key, other: parts(other)[place] == key)
        agrees(data, mapping, regions, pairs, lambda key, other: parts(key)[place] == other)
    months, name = Monthly("2013-10", current=True).keys(now=NOW), "second" if name == "first" else "first"
    place = 1 - place
    agrees(data, Dimension(name), pairs, months, lambda key, other: parts(other)[place][:7] == key)
    agrees(data, Dimension(name), months, pairs, lambda key, other: parts(key)[place][:7] == other)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_each_dimension_of_two_products(data: st.DataObject) -> None:
    up = Product(REGIONS, Daily("2013-10-20", "2013-11-05"))
    down = Product(Static(["us", "eu"]), Monthly("2013-10", current=True))

    def made_from(key: str, other: str) -> bool:
        return parts(key)[0] == parts(other)[0] and parts(other)[1].startswith(parts(key)[1])

    for mapping in (EachDimension(), EachDimension(SameKey(), TimeWindow()), default_mapping(up, down)):
        agrees(data, mapping, up.keys(now=NOW), down.keys(now=NOW), made_from)


def test_what_waits_in_two_dimensions() -> None:
    days, months = Daily("2013-11-01"), Monthly("2013-10", current=True)
    up, down = Product(REGIONS, days).keys(now=NOW), Product(REGIONS, months).keys(now=NOW)
    assert str(EachDimension().waiting(down, up)) == "eu..a\\|b|2013-11"
    assert (
        str(SameKey().waiting(Product(REGIONS, Daily("2013-11-01")).keys(now=datetime(2013, 11, 22, tzinfo=UTC)), up))
        == "eu..a\\|b|2013-11-20..2013-11-21"
    )
    assert str(Dimension("second").waiting(months.keys(now=NOW), up)) == "2013-11"
    assert str(Dimension("second").waiting(down, days.keys(now=NOW))) == "eu..a\\|b|2013-11"


def test_dimensions_need_products() -> None:
    regions, pairs = REGIONS.keys(now=NOW), Product(REGIONS, Daily("2013-11-01")).keys(now=NOW)
    for one, two in ((regions, regions), (pairs, pairs)):
        with pytest.raises(PartitionMismatch, match="leads between a product and what is none"):
            Dimension("first").upstream(one, two)
    with pytest.raises(PartitionMismatch, match="leads between two products"):
        EachDimension().upstream(pairs, regions)
    with pytest.raises(DefinitionError, match="'first' and 'second'"):
        Dimension("third")  # type: ignore[arg-type]


# ------------------------------------------------------------------ the one that is meant

DAYS = Daily("2013-11-01")


@pytest.mark.parametrize(
    ("up", "down", "mapping"),
    [
        (DAYS, Daily("2013-11-01"), SameKey()),
        (DAYS, Daily("2013-11-02"), TimeWindow()),
        (DAYS, Monthly("2013"), TimeWindow()),
        (Hourly("2013"), DAYS, TimeWindow()),
        (Unpartitioned(), DAYS, AllPartitions()),
        (DAYS, Unpartitioned(), AllPartitions()),
        (Unpartitioned(), Unpartitioned(), AllPartitions()),
        (Product(REGIONS, DAYS), Unpartitioned(), AllPartitions()),
        (REGIONS, Static(["us", "eu"]), SameKey()),
        (Dynamic("a"), Dynamic("a"), SameKey()),
        (Product(REGIONS, DAYS), REGIONS, Dimension("first")),
        (Product(REGIONS, DAYS), Monthly("2013"), Dimension("second")),
        (DAYS, Product(REGIONS, DAYS), Dimension("second")),
        (Product(REGIONS, DAYS), Product(REGIONS, DAYS), SameKey()),
        (Product(REGIONS, DAYS), Product(REGIONS, Monthly("2013")), EachDimension(SameKey(), TimeWindow())),
    ],
)
def test_the_mapping_that_is_meant(up: Partitions, down: Partitions, mapping: Mapping) -> None:
    assert default_mapping(up, down) == mapping


@pytest.mark.parametrize(
    ("up", "down", "why"),
    [
        (REGIONS, DAYS, "goes by other things"),
        (REGIONS, Static(["eu", "uk", "x"]), "there is no 'uk' and 1 more upstream"),
        (Dynamic("a"), Dynamic("b"), "goes by other things"),
        (Dynamic("a"), REGIONS, "goes by other things"),
        (Product(REGIONS, REGIONS), REGIONS, "both dimensions fit"),
        (Product(REGIONS, DAYS), Dynamic("a"), "no dimension fits"),
        (Product(REGIONS, DAYS), Product(DAYS, REGIONS), "goes by other things"),
    ],
)
def test_where_none_is_meant_both_are_named(up: Partitions, down: Partitions, why: str) -> None:
    with pytest.raises(PartitionMismatch, match="no mapping is meant by itself from .* to .*: ") as raised:
        default_mapping(up, down)
    assert why in str(raised.value)
    assert all(str(getattr(each, "first", each)) in str(raised.value) for each in (up, down))


def test_removed_keys_are_mapped_no_more() -> None:
    known = DynamicKeys()
    known.add("a", ["x", "y", "z"])
    before_ = Dynamic("a").keys(known, now=NOW)
    known.remove("a", ["y"])
    now = Dynamic("a").keys(known, now=NOW)
    assert list(SameKey().upstream(before_, now)) == ["x", "z"]
    assert list(SameKey().downstream(now, before_, now)) == ["x", "z"]
