"""The tests that docs/testing.md shows, from the first to the last. They are written as a reader would write them."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from math import inf

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Signal, State, task, testing, workflow
from engine.errors import RunFailedError
from engine.testing import assert_history, assert_never_ran, assert_order, assert_ran, events, explore, given, history
from tests.architecture.source import ROOT
from tests.testing.test_explorer import load_example

approve = Signal("approve", bool)
phase = State("phase", str, initial="new")


@task(stop=stop_after_attempt(3), wait=wait_fixed(60))
async def charge(customer: str, cents: int = 100) -> str:
    """Calls the bank."""
    raise NotImplementedError


@task
async def ship(customer: str) -> str:
    """Calls the warehouse."""
    raise NotImplementedError


@workflow
async def order(customer: str) -> str:
    """Charges, waits three days for somebody to approve, ships."""
    receipt = await charge(customer)
    await phase.publish("charged")
    try:
        async with asyncio.timeout(3 * 86_400):
            approved = await approve.receive()
    except TimeoutError:
        approved = False
    return f"{receipt}, {await ship(customer)}" if approved else "not approved"


async def test_an_order_that_nobody_approves() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, returns="receipt 1")
        assert await lab.run(order("ann")) == "not approved"
        assert lab.now == datetime(2026, 1, 4, tzinfo=UTC)  # three days after the lab's beginning


async def test_an_order_that_is_approved() -> None:
    async with testing.engine(order, only_fakes=True) as lab:
        lab.fake(charge, returns="receipt 1")
        lab.fake(ship, returns="parcel 1")
        run = await lab.start(order("ann"))
        await lab.turn(days=2, hours=23)
        assert await run.read(phase) == "charged"
        await run.signal(approve, True)
        assert await lab.result(run) == "receipt 1, parcel 1"


async def test_a_bank_that_is_down() -> None:
    async with testing.engine(order) as lab:
        bank = lab.fake(charge, outcomes=[ConnectionError("down"), ConnectionError("still down"), "receipt 1"])
        await lab.run(order("ann"))
        assert [call.attempt for call in bank.calls] == [1, 2, 3]
        assert len(bank.keys) == 1  # all attempts of one call have the same idempotency key
        lab.fake(charge, raises=ConnectionError("down"))
        with pytest.raises(RunFailedError, match="ConnectionError: down"):
            await lab.run(order("ben"))


async def test_other_fakes() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, side_effect=lambda customer, cents=100: f"{cents} cents of {customer}")
        lab.fake(charge("ben"), takes=inf)  # for just these arguments: a call that never ends
        lab.fake(ship, returns="parcel 1", takes=3_600)  # an hour on the lab's clock
        assert await lab.run(order("ann"), signals=[approve.message(True)]) == "100 cents of ann, parcel 1"
        with pytest.raises(testing.Stuck, match="order/charge#1 is running"):
            await lab.run(order("ben"))


async def test_time_that_passes_by_itself() -> None:
    async with testing.engine(order) as lab, lab.auto():
        lab.fake(charge, returns="receipt 1")
        first, second = await lab.start(order("ann")), await lab.start(order("ben"))
        assert await asyncio.gather(first.result(), second.result()) == ["not approved", "not approved"]


async def test_a_crash_while_the_bank_is_called() -> None:
    async with testing.engine(order) as lab:
        bank = lab.fake(charge, returns="receipt 1", takes=10)
        run = await lab.start(order("ann"))
        await lab.crash()
        assert await lab.result(lab.engine.run(run.id)) == "not approved"
        assert len(bank.calls) == 2
        assert len(bank.keys) == 1


def test_what_the_workflow_decides() -> None:
    run = given(order("ann"))
    run.then(charge("ann"))
    run.task(charge).returns("receipt 1")
    run.then(events.timer_started(seconds=3 * 86_400))
    run.signal(approve, True)
    run.then(ship("ann"))
    run.task(ship).returns("parcel 1")
    run.then(events.run_completed("receipt 1, parcel 1"))


def test_what_the_workflow_decides_when_things_go_wrong() -> None:
    run = given(order("ann"))
    run.task(charge).raises(ConnectionError("down")).then(events.run_failed(ConnectionError))
    run = given(order("ann"))
    run.task(charge).returns("receipt 1").time(days=3).then(events.run_completed("not approved"))


async def test_what_stands_in_the_history() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, outcomes=[ConnectionError("down"), "receipt 1"])
        run = await lab.start(order("ann"))
        await lab.result(run)
        told = await history(run)
        assert_ran(told, charge("ann"), times=1, attempts=2)
        assert_never_ran(told, ship)
        assert_order(told, charge, events.timer_started())
        assert_history(
            told, [charge, events.completed(charge, "receipt 1"), events.timer_fired(), events.run_completed()]
        )


async def test_nothing_makes_a_difference() -> None:
    def prepare(lab: testing.Lab) -> None:
        lab.fake(charge, returns="receipt 1")
        lab.fake(ship, returns="parcel 1")

    report = await explore(order("ann"), signals=[approve.message(True)], prepare=prepare)
    report.raise_for_findings()


# -- what the page shows of reports and failures ----------------------------------------------------------------------


def shown() -> list[str]:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    return re.findall(r"^```text\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["counts twice", "order of answers"])
async def test_the_page_shows_reports_as_they_are(name: str) -> None:
    wrong, _ = await load_example().examine(name)  # a world of its own: other tests leave letters in theirs
    findings = wrong.text().partition("\n\n")[2]
    assert findings in shown(), findings


def test_the_page_shows_a_failure_as_it_is() -> None:
    example = load_example()
    run = given(example.quotes(["a"]))
    with pytest.raises(AssertionError) as caught:
        run.then(example.quote("b"))
    assert str(caught.value) in shown(), str(caught.value)
