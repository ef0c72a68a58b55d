"""Key sets against Python's sets of the same keys; their text; and what was recorded under another definition."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.assets import (
    Daily,
    Dynamic,
    DynamicKeys,
    Hourly,
    KeySet,
    Monthly,
    Partitions,
    Product,
    Static,
    Unpartitioned,
)
from engine.assets.key_text import KEY_MAX, join, split
from engine.errors import PartitionError, PartitionMismatch

NOW = datetime(2014, 1, 1, tzinfo=UTC)
MONTHS = Monthly("2013").keys(now=NOW)
HOSTILE = ["|", "\\", "..", ",", "a|b", "a\\", "\\|", "a..b", ".", ".a", "a.", "*", "a*b", " ", " a", "a ", "  ", "\xa0a", "\\ ",
           "a,b..c|d\\", "...", "é", "日本", "🦆", "'", '"', "-", "prod/eu", "%s", "{}", "x" * KEY_MAX]  # fmt: skip

key_texts = st.text(st.sampled_from("ab.|\\,* é"), min_size=1, max_size=4) | st.sampled_from(HOSTILE)
statics = st.lists(key_texts, min_size=1, max_size=60, unique=True).map(Static)
SHORT = [key for key in HOSTILE if len(key) < KEY_MAX]


def ordered(partitions: Partitions) -> list[str]:
    return list(partitions.keys(DynamicKeys(), now=NOW))


definitions = st.one_of(
    statics,
    st.sampled_from(
        [
            Static(f"k{number:03}" for number in range(300)),
            Daily("2013-01-01", timezone="Europe/Berlin"),
            Hourly("2013-10-20", "2013-11-03", timezone="Europe/Berlin"),
            Monthly("2010"),
            Unpartitioned(),
            Product(Static(SHORT), Static([*SHORT, "eu"])),
            Product(Static(["eu", "us", "a|b"]), Daily("2013-10-01")),
            Product(Hourly("2013-12-01", "2013-12-08"), Static(["a", "b"])),
        ]
    ),
)


@st.composite
def chosen(draw: st.DrawFn, count: int = 2) -> tuple[KeySet, list[set[str]]]:
    """All keys of a definition, and some sets of them: ranges, single ones, and many that are broken."""
    every = draw(definitions).keys(now=NOW)
    keys = list(every)
    sets = []
    for _ in range(count):
        edges = draw(st.lists(st.integers(0, len(keys)), max_size=6))
        some = {key for start, stop in zip(sorted(edges)[::2], sorted(edges)[1::2]) for key in keys[start:stop]}
        if draw(st.booleans()):
            random = draw(st.randoms(use_true_random=False))
            some ^= {key for key in keys if random.random() < 0.5}
        sets.append(some)
    return every, sets


# ------------------------------------------------------------------ sets


@settings(deadline=None, max_examples=60)
@given(chosen())
def test_algebra_is_that_of_sets(given_: tuple[KeySet, list[set[str]]]) -> None:
    every, (one, two) = given_
    first, second = every.pick(one), every.pick(two)
    order = list(every)
    for found, expected in (
        (first | second, one | two),
        (first & second, one & two),
        (first - second, one - two),
        (first ^ second, one ^ two),
        (every - first, set(order) - one),
    ):
        assert list(found) == [key for key in order if key in expected]
        assert len(found) == len(expected)
        assert bool(found) == bool(expected)
        assert found == every.pick(expected)
        assert hash(found) == hash(every.pick(sorted(expected)))
        assert all((key in found) == (key in expected) for key in order)
    assert (first == second) == (one == two)
    assert (first <= second) == (one <= two)
    assert first != one


@settings(deadline=None, max_examples=60)
@given(chosen(1), st.integers(-70, 70) | st.none(), st.integers(-400, 400) | st.none())
def test_slices_are_those_of_the_list(given_: tuple[KeySet, list[set[str]]], start: Any, stop: Any) -> None:
    every, (some,) = given_
    keys = every.pick(some)
    assert list(keys[start:stop]) == list(keys)[start:stop]
    for place in (0, len(keys) // 2, len(keys) - 1, -len(keys)):
        if keys:
            assert keys[place] == list(keys)[place]
    with pytest.raises(IndexError):
        keys[len(keys)]
    with pytest.raises(ValueError, match="no step"):
        keys[::2]


# ------------------------------------------------------------------ text


@settings(deadline=None, max_examples=60)
@given(chosen(1))
def test_the_text_of_a_set_gives_it_back(given_: tuple[KeySet, list[set[str]]]) -> None:
    every, (some,) = given_
    keys = every.pick(some)
    text = str(keys)
    assert every.parse(text) == keys
    assert every.parse(f"  {text} ") == keys
    assert keys.parse("*") == keys
    assert msgspec.json.decode(msgspec.json.encode({"keys": keys}, enc_hook=str)) == {"keys": text}


def test_the_text_is_compact() -> None:
    assert str(MONTHS) == "2013-01..2013-12"
    assert str(MONTHS.pick(["2013-09", "2013-02", "2013-01", "2013-03"])) == "2013-01..2013-03,2013-09"
    assert repr(MONTHS[:2]) == "KeySet('2013-01..2013-02')"
    assert str(MONTHS[:0]) == ""
    both = Product(Static(["as", "eu", "us"]), Monthly("2013")).keys(now=NOW)
    assert str(both) == "as..us|2013-01..2013-12"
    assert str(both.parse("us|2013-03, as..eu|2013-01..2013-02")) == "as..eu|2013-01..2013-02,us|2013-03"
    whole = Unpartitioned().keys(now=NOW)
    assert (str(whole), list(whole), len(whole)) == ("*", [""], 1)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("2013-01..2013-03,2013-09", ["2013-01", "2013-02", "2013-03", "2013-09"]),
        (" 2013-01 .. 2013-02 , 2013-09 ", ["2013-01", "2013-02", "2013-09"]),
        ("2013-09,2013-01,2013-09", ["2013-01", "2013-09"]),
        ("2013-11..", ["2013-11", "2013-12"]),
        ("..2013-02", ["2013-01", "2013-02"]),
        ("2013-02..2013-02", ["2013-02"]),
        ("\\2\\0\\1\\3-02", ["2013-02"]),
        ("*", list(MONTHS)),
        ("..", list(MONTHS)),
        ("", []),
        ("  ", []),
    ],
)
def test_what_a_text_names(text: str, keys: list[str]) -> None:
    assert list(MONTHS.parse(text)) == keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2013-13", "there is no partition '2013-13': keys are like '2013-01'"),
        ("2014-02", "there is no partition '2014-02'; nearest: '2013-12'"),
        ("2012-02..2013-02", "there is no partition '2012-02': the first is '2013-01'; nearest: '2013-01'"),
        ("2013-01..2014-02", "there is no partition '2014-02'; nearest: '2013-12'"),
        ("2013-03..2013-01", "the range 2013-03..2013-01 goes backwards"),
        ("2013-01,,2013-02", "item 2 of '2013-01,,2013-02' is empty"),
        ("2013-01,", "item 2 of '2013-01,' is empty"),
        ("2013-01..2013-02..2013-03", "item 1 of .* has more than one '..'"),
        ("2013-01...2013-03", "there is no partition '.2013-03'"),
        ("*..2013-03", "'[*]' at an end of a range"),
        ("2013-*", "there is no partition '2013-[*]': keys are like '2013-01'"),
        ("\\*", "there is no partition '[*]'"),
        ("eu|2013-01", "item 1 of 'eu|2013-01' has 2 parts; an item of this set is one key or range"),
        ("2013-01\\", "there is no partition '2013-01"),
        ("x" * 5000, "there is no partition 'xxxxx*'... .5000 characters."),
        ("2013-01\x00", "there is no partition '2013-01.x00'"),
        ("\ud800", "there is no partition '.ud800'"),
    ],
)
def test_a_text_that_is_wrong_is_told_where(text: str, said: str) -> None:
    with pytest.raises(PartitionError, match=said):
        MONTHS.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eu", "item 1 of 'eu' has one part; an item of this set is FIRST|SECOND"),
        ("eu|2013-01|x", "has 3 parts"),
        ("eu|", "item 1 of 'eu|' is empty"),
        ("uk|2013-01", "there is no partition 'uk'; nearest: 'us'"),
        ("eu|2014-01", "there is no partition '2014-01'; nearest: '2013-12'"),
        ("us..eu|*", "goes backwards"),
    ],
)
def test_a_text_of_two_dimensions_that_is_wrong_is_told_where(text: str, said: str) -> None:
    with pytest.raises(PartitionError, match=said):
        Product(Static(["eu", "us"]), Monthly("2013")).keys(now=NOW).parse(text)


def test_pairs_that_are_not_together_are_told() -> None:
    both = Product(Static(["eu", "us"]), Monthly("2013")).keys(now=NOW)
    some = both - both.parse("eu|2013-03")
    with pytest.raises(PartitionError, match="no partition in eu|2013-03: both parts are there, but not together"):
        some.parse("us|2013-04,eu|2013-03")
    assert str(some.parse("eu..us|2013-03..2013-04")) == "eu|2013-04,us|2013-03..2013-04"
    with pytest.raises(PartitionError, match="not together"):
        some.pick(["eu|2013-03"])
    with pytest.raises(PartitionError, match="'uk' is not among the keys of its dimension; nearest: 'us'"):
        some.pick(["uk|2013-03"])
    with pytest.raises(PartitionError, match="a key of two dimensions is FIRST|SECOND"):
        some.pick(["uk"])


def test_the_nearest_of_very_many_is_found() -> None:
    many = Static(f"customer-{number:06}" for number in range(100_000)).keys(now=NOW)
    with pytest.raises(PartitionError, match="no partition 'custmer-050000'; nearest: 'customer-\\d+'"):
        many.parse("custmer-050000")
    with pytest.raises(PartitionError, match="nearest: 'customer-09999.'"):
        many.parse("customer-0999999")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_set_or_an_error_that_names_it(text: str) -> None:
    for every in (MONTHS, Product(Static(["a", "b"]), Static(["c"])).keys(now=NOW), Unpartitioned().keys(now=NOW)):
        try:
            found = every.parse(text)
        except PartitionError:
            continue
        assert found <= every


# ------------------------------------------------------------------ keys of two dimensions


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_key_of_two_dimensions_is_split_as_it_was_joined(first: str, second: str) -> None:
    assert split(join(first, second)) == (first, second)


@settings(deadline=None)
@given(st.text(st.sampled_from("a|\\")))
def test_what_is_split_is_joined_as_it_was(key: str) -> None:
    parts = split(key)
    assert parts is None or join(*parts) == key


# ------------------------------------------------------------------ other definitions


def test_sets_of_two_definitions_do_not_meet() -> None:
    days = Daily("2013-01-01").keys(now=NOW)
    for meet in (KeySet.__or__, KeySet.__and__, KeySet.__sub__, KeySet.__xor__, KeySet.__le__):
        with pytest.raises(
            PartitionMismatch, match="Monthly.start='2013-01'. and of Daily.start='2013-01-01'. do not meet"
        ):
            meet(MONTHS, days)
    assert MONTHS != days
    assert MONTHS[:0] != days[:0]


def test_what_was_recorded_is_read_by_key_when_the_definition_has_changed() -> None:
    recorded = ["a", "d", "b"]
    assert str(Static(["a", "b", "c", "d"]).pick(recorded)) == "a..b,d"
    found = Static(["d", "a", "between", "b"]).read(recorded)
    assert (list(found.keys), found.unknown) == (["d", "a", "b"], ())
    found = Static(["a", "c"]).read(recorded)
    assert (list(found.keys), found.unknown) == (["a"], ("d", "b"))
    months = list(MONTHS)
    found = Monthly("2010").read(months)
    assert (list(found.keys), found.unknown) == (months, ())
    assert str(found.keys) == "2013-01..2013-12"
    found = Monthly("2013-06").read(months)
    assert (str(found.keys), found.unknown) == ("2013-06..2013-12", tuple(months[:5]))
    found = Daily("2013-01-01").read([*months, "2013-01-05"])
    assert (str(found.keys), found.unknown) == ("2013-01-05", tuple(months))


@settings(deadline=None)
@given(st.lists(key_texts, min_size=1, max_size=20, unique=True), st.lists(key_texts, max_size=20, unique=True))
def test_recorded_keys_are_known_or_unknown(names: list[str], recorded: list[str]) -> None:
    found = Static(names).read(recorded)
    assert set(found.keys) == set(names) & set(recorded)
    assert list(found.unknown) == [key for key in recorded if key not in names]


# ------------------------------------------------------------------ keys that come and go


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from([f"k{n}" for n in range(80)]), max_size=40))))
def test_dynamic_keys_keep_their_places(steps: list[tuple[bool, list[str]]]) -> None:
    known, customers = DynamicKeys(), Dynamic("customers")
    first_added: list[str] = []
    there: set[str] = set()
    earlier: list[tuple[KeySet, list[str]]] = []
    for adds, keys in steps:
        if adds:
            known.add("customers", keys)
            first_added += [key for key in dict.fromkeys(keys) if key not in first_added]
            there |= set(keys)
        else:
            known.remove("customers", keys)
            there -= set(keys)
        now = customers.keys(known, now=NOW)
        expected = [key for key in first_added if key in there]
        assert list(now) == expected
        assert now.parse(str(now)) == now
        earlier.append((now, expected))
    for keys_then, expected in earlier:
        assert list(keys_then) == expected  # what was made before is what it was


def test_a_key_that_was_removed_is_told() -> None:
    known = DynamicKeys()
    known.add("customers", ["ann", "bob", "cem"])
    before = Dynamic("customers").keys(known, now=NOW)
    known.remove("customers", ["bob", "nobody"])
    keys = Dynamic("customers").keys(known, now=NOW)
    assert (list(before), list(keys), len(before - keys)) == (["ann", "bob", "cem"], ["ann", "cem"], 1)
    assert "bob" in before
    assert "bob" not in keys
    with pytest.raises(PartitionError, match="'bob': it was removed from 'customers'; nearest: 'ann'"):
        keys.parse("bob")
    with pytest.raises(PartitionError, match="'bab': it was not added to 'customers'"):
        keys.parse("bab")
    assert Dynamic("customers").read(["cem", "bob", "dan"], known).unknown == ("bob", "dan")
    assert str(keys.parse("ann..cem")) == "ann,cem"


def test_two_lists_of_the_same_dynamic_keys_meet_by_key() -> None:
    one, two, three = DynamicKeys(), DynamicKeys(), DynamicKeys()
    one.add("c", ["a", "b", "c"])
    two.add("c", ["c", "b", "a", "d"])
    three.add("c", ["x"])
    first, second, third = (Dynamic("c").keys(each, now=NOW) for each in (one, two, three))
    assert set(first | second) == {"a", "b", "c", "d"}
    assert set(first & second) == {"a", "b", "c"}
    assert list(second - first) == ["d"]
    assert second[:3] == first
    assert hash(first[:1]) == hash(second[2:3])
    with pytest.raises(PartitionMismatch, match="two lists of the keys of Dynamic"):
        first | third
    assert first[:1] != third
    other = Product(Dynamic("c"), Static(["p", "q"]))
    assert other.keys(one, now=NOW) <= other.keys(two, now=NOW)
