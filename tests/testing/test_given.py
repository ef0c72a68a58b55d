"""Histories told by hand: what the workflow decides, and what is said when it decides otherwise."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from engine import durable, workflow
from engine.errors import HoldfastError, NotRecordable
from engine.testing import events, given
from tests.testing.shop import approve, both, charge, daily, order, pack, parent, phase, price, ship


def test_a_run_is_told_what_happened_and_says_what_it_wants() -> None:
    run = given(order("ann"))
    run.then(charge("ann"))
    run.task(charge).returns("paid").then(events.timer_started(seconds=3 * 86_400), events.published(phase, "charged"))
    run.signal(approve, True).then(ship("ann"))
    run.task(ship("ann")).returns("shipped").then(events.run_completed("paid, shipped"))
    assert run.decides(events.run_completed())
    assert not run.decides(ship)


def test_time_fires_timers() -> None:
    run = given(order("ann"))
    run.task(charge).returns("paid").then()
    with pytest.raises(HoldfastError, match=r"no timer is due by 2026-01-03"):
        run.time(days=2)
    run.time(days=3).then(events.run_completed("not approved"))
    run = given(daily(3), at=datetime(2030, 1, 1, tzinfo=UTC))
    for day in range(3):
        run.time(days=1).then(pack("x" * day))
        run.task(pack).returns(day)
    run.then(events.run_completed([0, 1, 2]))


def test_calls_are_told_apart_by_arguments_and_by_number() -> None:
    run = given(both("ann")).then(charge("ann", 1), charge("ann", 2))
    run.task(charge("ann", 2)).returns("two").then()
    run.task(charge).raises(LookupError("no")).then(events.run_failed(LookupError))
    run = given(both("ann"))
    run.task(charge, number=2).returns("two")
    assert [seen.name for seen in run.history if seen.type == "TaskCompleted"] == ["charge"]
    with pytest.raises(HoldfastError, match=r"waits for 1 calls of task 'charge', not for 2"):
        run.task(charge, number=2)


def test_children_requests_and_cancellation() -> None:
    run = given(parent(["ann", "ben"])).then(order("ann"), order("ben"))
    run.child(order("ben")).returns("done")
    run.child(order).raises(ValueError).then(events.run_failed())
    run = given(quoting())
    with pytest.raises(HoldfastError, match="refuses .*: ValueError: nothing to sell"):
        run.request(price, "")
    run.request(price, "shoes").then(events.answered(5))
    run.cancel("enough").then(events.run_cancelled())
    with pytest.raises(HoldfastError, match="has ended with RunCancelled"):
        run.cancel()


@workflow
async def quoting() -> None:
    def check(what: str) -> None:
        if not what:
            raise ValueError("nothing to sell")

    async with price.serve(len, validator=check):
        await anyio.sleep_forever()


@workflow
async def chosen() -> str:
    return str(durable.uuid4())


def test_it_is_the_same_each_time_and_takes_no_time() -> None:
    assert given(chosen()).history[-1].payload == given(chosen()).history[-1].payload
    began = time.perf_counter()
    for _ in range(100):
        given(order("ann")).task(charge).returns("paid").signal(approve, False).then(
            events.run_completed("not approved")
        )
    assert time.perf_counter() - began < 5


def test_what_is_not_of_its_type_is_refused() -> None:
    run = given(order("ann"))
    with pytest.raises(NotRecordable):
        run.task(charge).returns(5)  # type: ignore[arg-type]
    with pytest.raises(NotRecordable):
        run.signal(approve, "yes")  # type: ignore[arg-type]
    with pytest.raises(HoldfastError, match="a call of a workflow"):
        given(charge("ann"))


def test_a_failure_shows_both_in_two_columns_with_call_sites() -> None:
    run = given(both("ann"))
    with pytest.raises(AssertionError) as caught:
        run.then(charge("ann", 1), ship("ann"), pack)
    text = str(caught.value)
    assert re.search(r"^  expected +\|  decided$", text, re.M)
    assert re.search(
        r"^  scheduled charge\(customer='ann', cents=1\) +\|  TaskScheduled charge .* at shop.py:\d+$", text, re.M
    )
    assert re.search(
        r"^  ! scheduled ship\(what='ann'\) +\|  TaskScheduled charge .*\"cents\":2.* at shop.py:\d+$", text, re.M
    )
    assert re.search(r"^  ! scheduled pack +\|  \(nothing\)$", text, re.M)
    with pytest.raises(AssertionError, match=r"! \(nothing\) +\|  TaskScheduled charge"):
        given(both("ann")).then(charge("ann", 1))


def test_what_nobody_waits_for_cannot_be_told() -> None:
    run: Any = given(order("ann"))
    with pytest.raises(
        HoldfastError, match=r"waits for 0 calls of task 'ship' with \{'what': 'x'\}.*\n  order/charge#1"
    ):
        run.task(ship("x"))
