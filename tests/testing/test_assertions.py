"""Assertions on histories: what holds passes, what does not fails with the history in view."""

from __future__ import annotations

import pytest

from engine import testing
from engine.errors import HoldfastError
from engine.testing import History, assert_history, assert_never_ran, assert_order, assert_ran, events, history
from tests.testing.shop import approve, both, charge, converted, order, pack, parent, phase, rate, ship


async def ordered() -> History:
    async with testing.engine(order) as lab:
        lab.fake(charge, returns="paid")
        lab.fake(ship, outcomes=[ConnectionError("down"), "shipped"])
        run = await lab.start(order("ann"), signals=[approve.message(True)])
        await lab.result(run)
        return await history(run)


async def test_events_in_their_order() -> None:
    told = await ordered()
    assert_history(
        told,
        [
            events.started(order("ann")),
            events.signalled(approve, True),
            charge("ann"),
            events.attempted(charge, number=1),
            events.completed(charge, "paid"),
            events.published(phase, "charged"),
            events.scheduled(ship),
            events.event("AttemptFailed"),
            events.attempted(ship("ann"), number=2),
            events.completed(ship("ann"), "shipped"),
            events.run_completed("paid, shipped"),
        ],
    )
    assert_history(told.events, [charge, ship])
    with pytest.raises(
        AssertionError, match=r"2 of 2: 'scheduled charge' is not behind version \d+; the history is\n"
    ) as caught:
        assert_history(told, [ship, charge])
    assert "TaskScheduled ship" in next(line for line in str(caught.value).splitlines() if line.startswith(">"))


async def test_a_result_that_was_there_already() -> None:
    async with testing.engine(converted) as lab:
        fake = lab.fake(rate, returns=2)
        assert await lab.run(converted(10)) == 40
        run = await lab.start(converted(20))
        assert await lab.result(run) == 80
        told = await history(run)
        await lab.turn(days=1)
        again = await lab.start(converted(20))
        await lab.result(again)
        assert len(fake.calls) == 2
    assert_ran(told, rate("EUR"), times=2, attempts=0)
    assert_history(told, [rate, events.reused(rate("EUR"), 2), events.timer_fired(), events.reused(rate)])
    assert "TaskCompleted rate 2 [converted/rate#1] reused from run converted-" in told.text()
    with pytest.raises(AssertionError, match="'reused rate'"):
        assert_history(testing.given(converted(1)).task(rate).returns(2).history, [events.reused(rate)])


async def test_exactly_these() -> None:
    told = testing.given(both("ann")).history
    assert_history(told, [events.started(), charge("ann", 1), charge("ann", 2)], exactly=True)
    with pytest.raises(AssertionError, match="1 more events than expected"):
        assert_history(told, [events.started(), charge], exactly=True)
    with pytest.raises(AssertionError, match="'scheduled charge' is not the next event"):
        assert_history(told, [charge], exactly=True)


async def test_what_ran_and_how_often() -> None:
    told = await ordered()
    assert_ran(told, charge)
    assert_ran(told, charge("ann"), times=1, attempts=1)
    assert_ran(told, ship, attempts=2)
    assert_never_ran(told, pack)
    assert_never_ran(told, charge("ben"))
    with pytest.raises(AssertionError, match=r"not scheduled charge\(customer='ben', cents=100\)"):
        assert_ran(told, charge("ben"))
    with pytest.raises(AssertionError, match="scheduled ship 1 times, not 2"):
        assert_ran(told, ship, times=2)
    with pytest.raises(AssertionError, match="with 2 attempts, not 1"):
        assert_ran(told, ship, attempts=1)
    with pytest.raises(AssertionError, match="1 times, not 0"):
        assert_never_ran(told, charge)


async def test_one_before_the_other() -> None:
    told = await ordered()
    assert_order(told, charge, ship, events.run_completed())
    with pytest.raises(AssertionError, match="scheduled charge before 'scheduled ship' was over"):
        assert_order(told, ship, charge)
    with pytest.raises(AssertionError, match="not scheduled pack"):
        assert_order(told, charge, pack)
    run = testing.given(both("ann"))
    with pytest.raises(AssertionError, match="was over"):
        assert_order(run.history, charge("ann", 1), charge("ann", 2))


async def test_children_failures_and_handles() -> None:
    async with testing.engine(parent, order) as lab:
        lab.fake(charge, raises=LookupError("nobody"))
        run = await lab.start(parent(["ann"]))
        told = await history(run)
        assert_history(told, [order("ann"), events.failed(order), events.run_failed()])
        with pytest.raises(HoldfastError, match="read the history first"):
            assert_ran(run, charge)  # type: ignore[arg-type]
        run = await lab.start(order("ann"))
        assert_history(await history(run), [events.failed(charge, LookupError), events.run_failed(LookupError)])
