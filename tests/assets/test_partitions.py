"""Definitions by name: fixed names, names that are added, two dimensions, and what is not partitioned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from engine.assets import (
    Daily,
    Dynamic,
    DynamicKeys,
    Hourly,
    Monthly,
    Partitions,
    Product,
    Static,
    Unpartitioned,
    Weekly,
)
from engine.errors import DefinitionError, PartitionError

NOW = datetime(2014, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "at least one name; .* Dynamic"),
        (["a", "b", "a"], "has 'a' twice, as names 1 and 3"),
        (["a", ""], "name 2 of Static: a partition key is not empty"),
        (["x" * 201], "'x+'... .201 characters. is longer than 200 characters"),
        (["a\nb"], "'a.nb' holds '.n': no control characters"),
        (["a\x7f"], "no control characters"),
        (["a\u2028"], "line breaks"),
        (["\udcff"], "halves of characters"),
        ([1], "name 1 of Static: a partition key is a str, not int: 1"),
        ([None], "not NoneType"),
        ("abc", "Static takes several names"),
    ],
)
def test_names_that_cannot_be_are_refused(names: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Static(names)


def test_static_names_are_in_their_order() -> None:
    sizes = Static(["small", "medium", "large"])
    assert list(sizes.keys(now=NOW)) == ["small", "medium", "large"]
    assert sizes.names == ("small", "medium", "large")
    assert sizes == Static(iter(["small", "medium", "large"])) != Static(["large", "medium", "small"])
    assert hash(sizes) == hash(Static(["small", "medium", "large"]))
    assert repr(sizes) == "Static(['small', 'medium', 'large'])"
    assert repr(Static(map(str, range(100)))) == "Static(['0', '1', '2', ... 100 in all])"
    sizes.check("large")
    with pytest.raises(PartitionError, match="there is no partition 'larg'; nearest: 'large'"):
        sizes.check("larg")
    assert sizes.window("large") is None


def test_dynamic_keys_are_handed_in() -> None:
    customers = Dynamic("customers")
    known = DynamicKeys()
    assert list(customers.keys(known, now=NOW)) == []
    known.add("customers", ["b", "a", "b"])
    known.add("shops", ["s"])
    assert list(customers.keys(known, now=NOW)) == ["b", "a"]
    with pytest.raises(PartitionError, match="the keys of Dynamic.'customers'. are handed in"):
        customers.keys(now=NOW)
    customers.check("anybody")
    with pytest.raises(PartitionError, match="holds '.x00'"):
        customers.check("a\x00")
    for bad in ("", "x" * 201, "a\n", 5):
        with pytest.raises(PartitionError):
            known.add("customers", ["c", bad])  # type: ignore[list-item]
    assert list(customers.keys(known, now=NOW)) == ["b", "a"]  # none of a list with a bad one
    assert Dynamic("customers") == customers != Dynamic("shops")
    with pytest.raises(DefinitionError, match="needs the name of its list"):
        Dynamic("")


def test_a_product_has_all_pairs() -> None:
    known = DynamicKeys()
    known.add("customers", ["ann", "b|b"])
    both = Product(Dynamic("customers"), Monthly("2013-11"))
    keys = both.keys(known, now=NOW)
    assert list(keys) == ["ann|2013-11", "ann|2013-12", "b\\|b|2013-11", "b\\|b|2013-12"]
    assert str(keys) == "ann..b\\|b|2013-11..2013-12"
    known.remove("customers", ["ann"])
    assert list(both.keys(known, now=NOW)) == ["b\\|b|2013-11", "b\\|b|2013-12"]
    both.check("anybody|2013-11")
    assert both == Product(Dynamic("customers"), Monthly("2013-11"))
    assert hash(both) == hash(Product(Dynamic("customers"), Monthly("2013-11")))
    assert repr(both) == "Product(Dynamic('customers'), Monthly(start='2013-11'))"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("eu", "'eu' is no key of Product.*FIRST.SECOND"),
        ("eu|2013-01|x", "is no key of Product"),
        ("uk|2013-01", "no partition 'uk'; nearest: 'eu'"),
        ("eu|2012-01", "no partition '2012-01': the first is '2013-01'"),
        ("e\\u|2013-01", "is no key of Product"),
        ("x" * 201, "longer than 200"),
    ],
)
def test_a_key_of_a_product_that_is_none_is_told_why(key: str, said: str) -> None:
    both = Product(Static(["eu", "as"]), Monthly("2013"))
    for refused in (both.check, both.window):
        with pytest.raises(PartitionError, match=said):
            refused(key)


def test_a_product_has_the_window_of_its_one_time() -> None:
    days = Daily("2013-01-01")
    assert Product(Static(["eu"]), days).window("eu|2013-01-05") == days.window("2013-01-05")
    assert Product(days, Static(["eu"])).window("2013-01-05|eu") == days.window("2013-01-05")
    assert Product(days, Hourly("2013")).window("2013-01-05|2013-01-05T03") is None
    assert Product(Static(["eu"]), Static(["a"])).window("eu|a") is None


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (Unpartitioned(), Static(["a"]), "not Unpartitioned"),
        (Product(Static(["a"]), Static(["b"])), Static(["c"]), "not Product"),
        ("a", Static(["a"]), "not 'a'"),
        (Static(["a" * 150]), Static(["b" * 50]), "longer than 200 characters: the longest names have .150, 50."),
        (Static(["a"]), Static, "not <class"),
    ],
)
def test_dimensions_that_cannot_be_are_refused(first: Any, second: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        Product(first, second)


def test_what_is_not_partitioned_is_one() -> None:
    whole = Unpartitioned()
    assert list(whole.keys(now=NOW)) == [""]
    assert whole == Unpartitioned()
    assert len({whole, Unpartitioned()}) == 1
    assert whole.window("") is None
    whole.check("")
    with pytest.raises(PartitionError, match="'2013': it is not partitioned, and its one key is ''"):
        whole.check("2013")
    assert whole.read(["", "old"]).unknown == ("old",)


@pytest.mark.parametrize(
    "partitions",
    [Unpartitioned(), Static(["a"]), Dynamic("c"), Product(Static(["a"]), Dynamic("c")), Weekly("2012-12-31")],
)
def test_now_has_a_zone(partitions: Partitions) -> None:
    with pytest.raises(ValueError, match="now must be an aware datetime"):
        partitions.keys(DynamicKeys(), now=datetime(2014, 1, 1))


def test_very_many_partitions_are_ranges() -> None:
    """A set of 100,000 keeps a few numbers; a broken one a bit for each."""
    known = DynamicKeys()
    known.add("customers", (f"c{number}" for number in range(100_000)))
    for partitions in (
        Static(f"c{number}" for number in range(100_000)),
        Dynamic("customers"),
        Hourly("2013", "2024-06", timezone="Europe/Berlin"),
    ):
        keys = partitions.keys(known, now=datetime(2025, 1, 1, tzinfo=UTC))
        assert len(keys) >= 100_000
        ordinals = keys.ordinals()
        assert ordinals._edges == (0, len(keys))
        assert len(str(keys)) < 60
    both = Product(Static(map(str, range(300))), Daily("2013", "2014")).keys(now=NOW)
    assert len(both) == 109_500
    assert len(both.grid().bands) == 1
