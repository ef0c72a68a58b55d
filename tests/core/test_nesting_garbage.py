"""What a large turn has made counts as old at once; what others have frozen stays frozen."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from engine.core import nesting
from engine.core.events import RunStarted
from engine.core.instance import Instance
from engine.workflows.definition import workflow


@workflow
async def holding(count: int) -> int:
    """Makes so many objects that only a collection looks at, and has them to its end."""
    made: list[Any] = [[] for _ in range(count)]
    return len(made)


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    assert gc.isenabled()
    was_frozen = gc.get_freeze_count() > 0  # by who runs the tests, say
    gc.unfreeze()
    gc.collect()
    yield
    gc.unfreeze()
    if was_frozen:
        gc.freeze()


def large_turn() -> bool:
    """Runs a workflow of one large turn, and says whether what it has made is old behind it."""
    instance = Instance(holding, "one", tables=None)
    kept: list[Any] = []

    def around(work: Any) -> None:
        work()
        kept.extend([] for _ in range(3 * nesting.LARGE_TURN))

    instance.around = around
    instance.deliver(RunStarted(at=1, workflow="holding", seed="0" * 32), b'{"count":1}')
    assert instance.outcome is not None
    return any(each is kept[-1] for each in gc.get_objects(generation=2))


def test_what_a_large_turn_has_made_is_old_at_once() -> None:
    assert large_turn()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_has_its_way_once_much_has_aged_unseen() -> None:
    """Each time, nothing would ever be collected: that sets back the counts after which the collector looks further."""
    turns = 2 * nesting.AGED_MAX // (3 * nesting.LARGE_TURN)
    assert not all(large_turn() for _ in range(turns))
    gc.collect()
    assert large_turn()


def test_nothing_of_it_escapes_a_full_collection() -> None:
    class Node:
        other: Any = None

    gone: list[int] = []
    instance = Instance(holding, "one", tables=None)
    kept: list[Any] = []

    def around(work: Any) -> None:
        work()
        node = Node()
        node.other = node
        weakref.finalize(node, gone.append, 1)
        kept.extend([] for _ in range(3 * nesting.LARGE_TURN))

    instance.around = around
    instance.deliver(RunStarted(at=1, workflow="holding", seed="0" * 32), b'{"count":1}')
    gc.collect()
    assert gone == [1]


def test_what_somebody_has_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    assert not large_turn()
    assert gc.get_freeze_count() == frozen


def test_nobody_collects_where_collecting_is_off() -> None:
    gc.disable()
    try:
        assert not large_turn()
        assert not gc.isenabled()
    finally:
        gc.enable()
