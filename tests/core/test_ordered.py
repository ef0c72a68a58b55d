"""The ordered set is a set in everything but its order; `install` changes nothing outside of workflows."""

from __future__ import annotations

import asyncio
import operator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import workflow
from engine.core.ordered import OrderedSet, WorkflowSet, install
from tests.core.cases import work
from tests.core.cases_gather import two
from tests.core.harness import World, ending, play

ITEMS = st.lists(st.integers(0, 12), max_size=8)

CHANGES: dict[str, Any] = {
    "add": lambda s, xs: s.add(len(xs)),
    "discard": lambda s, xs: s.discard(len(xs)),
    "remove": lambda s, xs: s.remove(len(xs)) if len(xs) in s else None,
    "clear": lambda s, _xs: s.clear(),
    "update": lambda s, xs: s.update(xs, reversed(xs)),
    "update itself": lambda s, _xs: s.update(s),
    "difference_update": lambda s, xs: s.difference_update(xs),
    "difference_update itself": lambda s, _xs: s.difference_update(s),
    "intersection_update": lambda s, xs: s.intersection_update(xs),
    "symmetric_difference_update": lambda s, xs: s.symmetric_difference_update(xs),
    "symmetric_difference_update itself": lambda s, _xs: s.symmetric_difference_update(s),
    "|=": lambda s, xs: operator.ior(s, set(xs)),
    "&=": lambda s, xs: operator.iand(s, set(xs)),
    "-=": lambda s, xs: operator.isub(s, set(xs)),
    "^=": lambda s, xs: operator.ixor(s, set(xs)),
}
ANSWERS: dict[str, Any] = {
    "union": lambda s, xs: s.union(xs),
    "difference": lambda s, xs: s.difference(xs),
    "intersection": lambda s, xs: s.intersection(xs),
    "symmetric_difference": lambda s, xs: s.symmetric_difference(xs),
    "|": lambda s, xs: s | frozenset(xs),
    "&": lambda s, xs: s & set(xs),
    "-": lambda s, xs: s - set(xs),
    "^": lambda s, xs: s ^ set(xs),
    "from the right |": lambda s, xs: set(xs) | s,
    "from the right -": lambda s, xs: set(xs) - s,
    "copy": lambda s, _xs: s.copy(),
    "==": lambda s, xs: (s == set(xs), set(xs) == s, s != frozenset(xs)),
    "<=": lambda s, xs: (s <= set(xs), s < set(xs), s >= set(xs), s.issubset(xs), s.issuperset(xs), s.isdisjoint(xs)),
    "in": lambda s, xs: [x in s for x in xs],
    "len": lambda s, _xs: (len(s), bool(s)),
}


@settings(max_examples=150, deadline=None)
@given(ITEMS, st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), ITEMS), max_size=6), ITEMS)
def test_it_is_a_set(start: list[int], changes: list[tuple[str, list[int]]], others: list[int]) -> None:
    ordered, plain = OrderedSet(start), set(start)
    for name, items in changes:
        CHANGES[name](ordered, items)
        CHANGES[name](plain, items)
        assert ordered == plain
        assert len(list(ordered)) == len(plain), "the two copies agree"
        assert set(ordered) == plain
    for name, ask in ANSWERS.items():
        assert ask(ordered, others) == ask(plain, others), name
    while plain:
        taken = ordered.pop()
        plain.remove(taken)
    with pytest.raises(KeyError):
        ordered.pop()
    with pytest.raises(KeyError):
        ordered.remove(99)


@given(ITEMS, ITEMS)
@settings(max_examples=50, deadline=None)
def test_it_iterates_in_order_of_insertion(first: list[int], second: list[int]) -> None:
    ordered = OrderedSet(first)
    ordered.update(second)
    expected = list(dict.fromkeys([*first, *second]))
    assert list(ordered) == expected
    assert list(ordered.copy()) == expected
    assert list(ordered | set()) == expected
    assert list(ordered - {5}) == [x for x in expected if x != 5]
    assert [ordered.pop() for _ in expected] == expected


def test_it_shows_itself_as_a_set() -> None:
    assert repr(OrderedSet([2, 1])) == "{2, 1}"
    assert repr(OrderedSet()) == "set()"
    assert isinstance(OrderedSet(), set)
    with pytest.raises(TypeError):
        hash(OrderedSet())
    with pytest.raises(TypeError):
        _ = OrderedSet() | [1]


def test_outside_a_workflow_the_name_means_the_builtin() -> None:
    module = ModuleType("somewhere")
    install(module)
    install(module)
    exec(
        "made = set([1, 2]); none = set(); checked = isinstance({1}, set), isinstance([], set); generic = set[int]",
        module.__dict__,
    )  # noqa: S102
    assert type(module.made) is set
    assert type(module.none) is set
    assert module.checked == (True, False)
    assert module.generic == set[int]
    assert issubclass(OrderedSet, WorkflowSet)


async def test_inside_an_ordinary_loop_asyncio_has_builtin_sets() -> None:
    done, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0)) for _ in range(3)])
    assert type(done) is set
    assert type(pending) is set
    assert len({hash(asyncio.gather(asyncio.sleep(0))) for _ in range(3)}) >= 1
    await asyncio.sleep(0)


def test_inside_a_workflow_asyncio_has_ordered_ones() -> None:
    @workflow
    async def waits() -> list[str]:
        done, pending = await asyncio.wait([asyncio.ensure_future(work(label)) for label in "ab"])
        return [type(done).__name__, type(pending).__name__]

    assert ending(play(World(waits()))) == ("completed", b'["OrderedSet","OrderedSet"]')


def test_a_builtin_set_of_coroutines_is_refused_with_advice() -> None:
    @workflow
    async def waits() -> str:
        coros = {two("a"), two("b")}
        try:
            for earliest in asyncio.as_completed(coros):
                await earliest
        except TypeError as error:
            return str(error)
        finally:
            for coro in coros:
                coro.close()
        return "taken"

    status, payload = ending(play(World(waits())))
    assert status == "completed"
    assert b"hand asyncio a list (or tasks) instead" in payload


def test_a_builtin_set_of_calls_or_tasks_has_an_order() -> None:
    @workflow
    async def waits() -> list[str]:
        calls = {work(label) for label in "abcdef"}
        tasks = {asyncio.create_task(two(label)) for label in "abcdef"}
        order = [await earliest for earliest in asyncio.as_completed(calls)]
        await asyncio.wait(tasks)
        return order + [task.result() for task in tasks]

    assert len({str(play(World(waits()))) for _ in range(5)}) == 1
