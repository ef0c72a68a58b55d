"""What tells two histories apart, and what does not."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from engine.core.differences import differences
from engine.core.events import RunStarted, TimerStarted


class Item(Struct):
    version: int
    event: Any
    payload: bytes | None = None


def a_timer(*, began: int, recorded: int, deadline: int, site: str = "w.py:1", within: int = 0) -> list[Item]:
    started = RunStarted(at=began, workflow="w", seed="", python="3.11", anyio="4", deadline=within)
    return [Item(1, started), Item(2, TimerStarted(at=recorded, id="w/timer#1", site=site, deadline=deadline))]


def test_a_timer_is_as_long_whenever_it_was_recorded() -> None:
    """Whoever took the run over records later what it was that the code had decided."""
    one = a_timer(began=5, recorded=5, deadline=15)
    later, longer = a_timer(began=105, recorded=108, deadline=115), a_timer(began=105, recorded=105, deadline=116)
    assert differences(one, later, ids=("a", "b")).rows == ()
    assert [row.alike for row in differences(one, longer, ids=("a", "b")).rows] == [False]


def test_what_is_left_until_a_deadline_is_no_difference() -> None:
    """Nobody's code has asked for that timer; how long it runs in a later epoch depends on the epochs before."""
    one, other = (a_timer(began=at, recorded=at, deadline=50, site="", within=50) for at in (5, 8))
    assert differences(one, other, ids=("a", "b")).rows == ()
