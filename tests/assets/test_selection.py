"""Selections: each form, the algebra against a naive model, and the place in each refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.assets.definition import AssetSpec
from engine.assets.graph import Graph
from engine.assets.selection import World, select
from engine.errors import AssetError

SPECS = {
    spec.key: spec
    for spec in [
        AssetSpec(key="raw/orders", tags={"daily": "", "tier": "1"}, group="ingest", owners=("ann",)),
        AssetSpec(key="raw/customers", tags={"tier": "2"}, group="ingest", owners=("ben@example.com",)),
        AssetSpec(key="orders", tags={"tier": "1"}, group="sales", owners=("ann", "team:data")),
        AssetSpec(key="customers", group="sales"),
        AssetSpec(key="report", group="Sales reports"),
        AssetSpec(key="figures", group="Sales reports"),  # made together with the report
        AssetSpec(key="2024"),
    ]
}
UPSTREAM = {
    "raw/orders": [],
    "raw/customers": [],
    "orders": ["raw/orders"],
    "customers": ["raw/customers"],
    "report": ["orders", "customers"],
    "2024": ["report"],
}
ALL = set(UPSTREAM)


def node_of(key: str) -> str:
    return "report" if key == "figures" else key


WORLD = World(specs=SPECS, node_of=node_of, graph=Graph(UPSTREAM), stale=lambda: {"orders", "report"})


def chosen(*texts: str) -> set[str]:
    return set(select(texts, WORLD))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ALL),
        ("  ", ALL),
        ("*", ALL),
        ("orders", {"orders"}),
        ("figures", {"report"}),
        ("+orders", {"orders", "raw/orders"}),
        ("orders+", {"orders", "report", "2024"}),
        ("+orders+", {"raw/orders", "orders", "report", "2024"}),
        ("1+report", {"report", "orders", "customers"}),
        ("0+report", {"report"}),
        ("raw/orders+1", {"raw/orders", "orders"}),
        ("2+2024+7", {"2024", "report", "orders", "customers"}),
        ("2024", {"2024"}),
        ("key:raw/*", {"raw/orders", "raw/customers"}),
        ("raw/*", {"raw/orders", "raw/customers"}),
        ("*orders", {"raw/orders", "orders"}),
        ("raw/*+1", {"raw/orders", "raw/customers", "orders", "customers"}),
        ("tag:daily", {"raw/orders"}),
        ("tag:tier", {"raw/orders", "raw/customers", "orders"}),
        ("tag:tier=1", {"raw/orders", "orders"}),
        ("tag:tier=1+", {"raw/orders", "orders", "report", "2024"}),
        ("group:sales", {"orders", "customers"}),
        ("group:Sales?reports", {"report"}),
        ("owner:ann", {"raw/orders", "orders"}),
        ("owner:team:data", {"orders"}),
        ("owner:ben@*", {"raw/customers"}),
        ("stale", {"orders", "report"}),
        ("stale+", {"orders", "report", "2024"}),
        ("group:sales,stale", {"orders"}),
        ("group:sales,+report,tag:tier", {"orders"}),
        ("orders customers", {"orders", "customers"}),
        ("* !group:sales", ALL - {"orders", "customers"}),
        ("!+orders", ALL - {"orders", "raw/orders"}),
        ("!orders !customers", ALL - {"orders", "customers"}),
        ("!orders orders", set()),
        ("!group:sales,stale", ALL - {"orders"}),
    ],
)
def test_each_form(text: str, expected: set[str]) -> None:
    assert chosen(text) == expected


def test_several_texts_are_one() -> None:
    assert chosen("+orders", "customers !orders") == {"raw/orders", "customers"}
    assert chosen() == ALL
    assert chosen("", "!orders") == ALL - {"orders"}


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("order", 1, "'order' is no asset. Did you mean 'orders'?"),
        ("  +ordres", 4, "Did you mean 'orders'?"),
        ("orders,,stale", 8, "nothing stands there"),
        ("orders,", 8, "nothing stands there"),
        ("orders !", 9, "nothing stands there"),
        ("group:sales,!orders", 13, "a ! stands before a whole word"),
        ("orders colour:red", 8, "'colour:red' means nothing"),
        ("+orders+x", 1, "'+orders+x' means nothing"),
        ("++orders", 1, "means nothing"),
        ("+", 1, "means nothing"),
        ("stale,group:", 7, "lacks what comes behind the colon"),
        ("group:slaes", 1, "means no asset. Did you mean 'sales'?"),
        ("tag:tier=3", 1, "means no asset. Did you mean 'tier=2'?"),
        ("owner:bob", 1, "means no asset. There are ann, ben@example.com, team:data."),
        ("key:nothing/*", 1, "means no asset"),
        ("9999999999+orders", 1, "is no number of steps"),
        ("\x00", 1, "is no asset"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(text: str, place: int, said: str) -> None:
    with pytest.raises(AssetError) as raised:
        chosen(text)
    assert said in str(raised.value)
    assert str(raised.value).endswith(f"at character {place} of the selection {text!r}")


TERMS = {
    text: frozenset(chosen(text))
    for text in [
        "orders",
        "+report",
        "raw/orders+",
        "1+2024",
        "tag:tier",
        "tag:tier=1",
        "group:sales",
        "owner:ann",
        "stale",
        "*",
    ]
}
word = st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.booleans(), word), max_size=5), st.randoms())
def test_the_algebra(words: list[tuple[bool, list[str]]], random: object) -> None:
    text = " ".join(("!" if minus else "") + ",".join(terms) for minus, terms in words)
    plus = [frozenset.intersection(*map(TERMS.__getitem__, terms)) for minus, terms in words if not minus]
    less = [frozenset.intersection(*map(TERMS.__getitem__, terms)) for minus, terms in words if minus]
    assert chosen(text) == (set().union(*plus) if plus else ALL) - set().union(*less)
    assert chosen(*text.split()) == chosen(text)


@given(st.text(alphabet="ordes+,!: *?[2tag=\n", max_size=12))
def test_any_text_means_something_or_is_refused(text: str) -> None:
    try:
        assert chosen(text) <= ALL
    except AssetError:
        pass
