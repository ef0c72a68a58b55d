"""`FairQueue` against a slow model that says what it means; and that it keeps nobody out, and nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runtime.queues import FairQueue

PRIORITIES = st.integers(-2, 2)
KEYS = st.sampled_from(["a", "b", "c", ""])
PUSH = st.tuples(PRIORITIES, KEYS)
STEPS = st.lists(st.one_of(PUSH, st.just("pop"), st.just("pop")), max_size=120)


@dataclass
class Slow:
    """The same in the words of the page: whoever waits has a turn, counted in its priority, of its key."""

    waiting: list[tuple[int, int, int]] = field(default_factory=list)  # priority, turn, arrival
    arrived: int = 0
    served: dict[int, int] = field(default_factory=dict)  # by priority: the turn that is served
    turns: dict[tuple[int, str], int] = field(default_factory=dict)  # the last turn that a key has taken

    def push(self, priority: int, key: str) -> int:
        turn = max(self.served.get(priority, 0), self.turns.get((priority, key), 0)) + 1
        self.turns[priority, key] = turn
        self.arrived += 1
        self.waiting.append((priority, turn, self.arrived))
        return self.arrived

    def pop(self) -> int:
        best = self.waiting[0]
        for each in self.waiting:
            if each[0] > best[0] or (each[0] == best[0] and each[1:] < best[1:]):
                best = each
        self.waiting.remove(best)
        self.served[best[0]] = best[1]
        if not self.waiting:
            self.served, self.turns = {}, {}
        return best[2]


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_is_the_slow_one(steps: list[object]) -> None:
    queue: FairQueue[int] = FairQueue()
    slow = Slow()
    for step in steps:
        if step == "pop":
            if slow.waiting:
                assert queue.pop() == slow.pop()
            else:
                with pytest.raises(IndexError):
                    queue.pop()
        else:
            priority, key = step  # type: ignore[misc]
            entry = slow.push(priority, key)
            queue.push(entry, priority=priority, key=key)
        assert len(queue) == len(slow.waiting)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(KEYS, st.booleans()), min_size=1, max_size=80))
def test_nobody_waits_for_more_than_one_of_each_other_key(steps: list[tuple[str, bool]]) -> None:
    """Whoever comes first in the line of its key waits for at most one of every other key, and a round before."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    waiting: dict[str, list[int]] = {}
    since: dict[tuple[str, int], dict[str, int]] = {}  # served of other keys since it stood first of its key
    for number, (key, popped) in enumerate(steps):
        queue.push((key, number), key=key)
        line = waiting.setdefault(key, [])
        line.append(number)
        if len(line) == 1:
            since[key, number] = {}
        if not popped:
            continue
        got, entry = queue.pop()
        assert waiting[got].pop(0) == entry, "in order within a key"
        since.pop((got, entry))
        for other, counts in since.items():
            if other[0] != got:
                counts[got] = counts.get(got, 0) + 1
                assert counts[got] <= 2, f"{got} was served {counts[got]} times before {other}"
        if waiting[got]:
            since[got, waiting[got][0]] = {}


def test_ten_thousand_of_one_key_before_one_of_another() -> None:
    queue: FairQueue[str] = FairQueue()
    for n in range(10_000):
        queue.push(f"big-{n}", key="big")
    for _ in range(50):
        queue.pop()
    queue.push("small", key="small")
    assert "small" in [queue.pop(), queue.pop()]


def test_a_low_priority_newcomer_is_not_behind_what_a_high_one_was_served() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("old", key="a")
    for n in range(100):
        queue.push(f"urgent-{n}", priority=1, key="b")
    for _ in range(100):
        queue.pop()
    queue.push("new", key="c")
    assert [queue.pop(), queue.pop()] == ["old", "new"]


def test_entries_are_not_compared() -> None:
    queue: FairQueue[object] = FairQueue()
    for _ in range(10):
        queue.push(object())
    for _ in range(10):
        queue.pop()


def test_a_queue_that_is_never_empty_forgets_keys_that_are_gone() -> None:
    """Keys are ids of runs: an engine that is busy for a year sees very many, and remembers those that wait."""
    queue: FairQueue[int] = FairQueue()
    queue.push(0, key="run-0")
    for n in range(1, 10_000):
        queue.push(n, key=f"run-{n}", priority=n % 3)
        queue.push(n, key=f"run-{n}", priority=n % 3)
        queue.pop()
        queue.pop()
    assert len(queue) == 1
    assert sum(len(getattr(queue, name)) for name in ("_last", "_turns", "_entries")) < 200
