"""Order, closures and cycles of a graph, against code that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.assets.graph import Graph

NAMES = [f"n{number}" for number in range(12)]
Edges = dict[str, list[str]]


@st.composite
def acyclic(draw: st.DrawFn) -> Edges:
    """Each upstream of what comes later, and given in any order."""
    edges = {
        name: draw(st.lists(st.sampled_from(NAMES[:place]), max_size=4)) if place else []
        for place, name in enumerate(NAMES)
    }
    return {name: edges[name] for name in draw(st.permutations(NAMES))}


any_graph = st.fixed_dictionaries({name: st.lists(st.sampled_from(NAMES), max_size=2) for name in NAMES})


@given(acyclic())
def test_the_order_has_everything_behind_what_it_is_made_from(edges: Edges) -> None:
    graph = Graph(edges)
    assert graph.cycle == ()
    assert sorted(graph.order) == sorted(NAMES)
    place = {name: number for number, name in enumerate(graph.order)}
    assert all(place[other] < place[name] for name, others in edges.items() for other in others)


def naive(edges: Edges, names: set[str], steps: int | None) -> set[str]:
    reached = set(names)
    for _ in range(len(edges) if steps is None else steps):
        reached |= {other for name in reached for other in edges[name]}
    return reached


@given(any_graph, st.sets(st.sampled_from(NAMES)), st.none() | st.integers(0, 4))
def test_closures(edges: Edges, names: set[str], steps: int | None) -> None:
    graph = Graph(edges)
    down = {name: [each for each in edges if name in edges[each]] for name in edges}
    assert graph.above(names, steps=steps) == naive(edges, names, steps)
    assert graph.below(names, steps=steps) == naive(down, names, steps)


@given(any_graph)
def test_a_cycle_is_a_path_that_ends_where_it_began(edges: Edges) -> None:
    graph = Graph(edges)
    on_cycle = {name for name in edges for other in edges[name] if name in naive(edges, {other}, None)}
    assert bool(graph.cycle) == bool(on_cycle)
    if graph.cycle:
        assert graph.cycle[0] == graph.cycle[-1]
        assert all(one in edges[two] for one, two in zip(graph.cycle, graph.cycle[1:], strict=False))
    above_cycle = {name for name in edges if naive(edges, {name}, None) & on_cycle}
    assert set(graph.order) == set(edges) - above_cycle


def test_the_order_is_otherwise_the_one_that_was_given() -> None:
    assert Graph({"c": [], "a": [], "b": []}).order == ("c", "a", "b")
    assert Graph({"late": ["a"], "a": [], "b": ["a", "a"]}).order == ("a", "late", "b")


def test_a_long_chain_and_a_wide_fan() -> None:
    chain = Graph({f"n{n}": [f"n{n - 1}"] if n else [] for n in range(50_000)})
    assert chain.order[-1] == "n49999"
    assert len(chain.above(["n49999"])) == 50_000
    ring = Graph({f"n{n}": [f"n{(n - 1) % 50_000}"] for n in range(50_000)})
    assert len(ring.cycle) == 50_001


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        Graph({"a": ["b"]})
