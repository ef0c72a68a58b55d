"""Fakes: what they answer, what they record, and what they refuse."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from engine import attempt, task, testing, workflow
from engine.errors import HoldfastError, NotRecordable, RunFailedError
from tests.testing.shop import approve, both, charge, daily, order, pack, ship


async def test_the_last_fake_counts_and_one_for_just_these_arguments_goes_before() -> None:
    async with testing.engine(both) as lab:
        exact = lab.fake(charge("ann", 2), returns="two")
        lab.fake(charge, returns="forgotten")
        lab.fake(charge, returns="any")
        assert await lab.run(both("ann")) == ["any", "two"]
        assert await lab.run(both("ben")) == ["any", "any"]
        assert [call.text() for call in exact.calls] == ["charge(customer='ann', cents=2)"]
        assert len(lab.calls()) == 4
        assert [call.arguments["cents"] for call in lab.calls(charge("ben", 2))] == [2]


async def test_defaults_count_as_given() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge("ann", cents=100), returns="by default")
        lab.fake(ship, returns="shipped")
        assert await lab.run(order("ann"), signals=[approve.message(True)]) == "by default, shipped"


async def test_one_outcome_for_each_attempt() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, returns="paid")
        fake = lab.fake(ship, outcomes=[ConnectionError("down"), ConnectionError, "shipped"])
        run = await lab.start(order("ann"), signals=[approve.message(True)])
        assert await lab.result(run) == "paid, shipped"
        assert [(call.attempt, type(call.error)) for call in fake.calls] == [
            (1, ConnectionError),
            (2, ConnectionError),
            (3, type(None)),
        ]
        assert fake.calls[-1].result == "shipped"
        assert len(fake.keys) == 1
        assert fake.calls[1].at - fake.calls[0].at == 60_000_000


async def test_what_a_fake_raises_fails_the_task() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, raises=LookupError("no such customer"))
        for _ in range(2):
            with pytest.raises(RunFailedError, match="LookupError: no such customer"):
                await lab.run(order("ann"))


async def test_a_side_effect_is_called_with_the_arguments_and_may_wait() -> None:
    async def paid(customer: str, cents: int = 100) -> str:
        await asyncio.sleep(0)
        return f"{customer} {cents} {attempt().number}"

    async with testing.engine(both, order) as lab:
        lab.fake(charge, side_effect=paid)
        assert await lab.run(both("ann")) == ["ann 1 1", "ann 2 1"]
        lab.fake(charge, side_effect=lambda customer, cents=100: customer * 2)
        assert await lab.run(both("x")) == ["xx", "xx"]


async def test_a_result_of_another_type_is_refused_at_once() -> None:
    async with testing.engine(order) as lab:
        with pytest.raises(NotRecordable, match="the result of task 'charge' is annotated str"):
            lab.fake(charge, returns=5)  # type: ignore[call-overload]
        with pytest.raises(NotRecordable):
            lab.fake(charge, outcomes=[ValueError(), 5])  # type: ignore[list-item]
        lab.fake(charge, side_effect=lambda customer, cents=100: 5)  # type: ignore[call-overload]
        with pytest.raises(RunFailedError, match="NotRecordable: the result of task 'charge'"):
            await lab.run(order("ann"))


async def test_a_fake_takes_time_on_the_clock_of_the_lab() -> None:
    async with testing.engine(order) as lab:
        lab.fake(charge, returns="paid", takes=7_200)
        before = lab.now
        run = await lab.start(order("ann"))
        await lab.turn(hours=1)
        assert (await run.state()).tasks["order/charge#1"].status == "running"
        await lab.turn(hours=1)
        assert (await run.state()).tasks["order/charge#1"].status == "completed"
        assert (lab.now - before).total_seconds() == 7_200


async def test_what_is_not_faked_is_the_task_itself_and_is_recorded_too() -> None:
    async with testing.engine(daily) as lab:
        assert await lab.run(daily(2)) == [0, 1]
        call = lab.calls(pack)[1]
        assert (call.task, call.arguments, call.result, call.faked) == ("pack", {"what": "x"}, 1, False)


async def test_only_fakes_names_the_task_that_has_none() -> None:
    with pytest.raises(testing.UnfakedTask, match=r"pack\(what=''\) was begun in run .* and has no fake"):
        async with testing.engine(daily, only_fakes=True) as lab:
            await lab.run(daily(1))
    with pytest.raises(testing.UnfakedTask):
        async with testing.engine(daily, only_fakes=True) as lab, lab.auto():
            await (await lab.start(daily(1))).result()


async def test_a_fake_that_says_nothing_or_too_much_is_refused() -> None:
    async with testing.engine(order) as lab:
        for answer in ({}, {"returns": "x", "raises": ValueError}, {"returns": "x", "takes": inf}):
            with pytest.raises(HoldfastError, match="one of returns="):
                lab.fake(charge, **answer)  # type: ignore[call-overload]
        with pytest.raises(HoldfastError, match="takes a task, or a call of one"):
            lab.fake(order, returns="x")  # type: ignore[call-overload]


async def test_a_fake_stands_in_wherever_its_task_would_run() -> None:
    """A place that the engine does not have, a worker process that would not find it: neither is asked for."""

    @task(executor="gpu")
    def train(rows: int) -> int:
        raise AssertionError("not here")

    @task(executor="processes")
    def crunch(rows: int) -> int:
        attempt().heartbeat(rows)
        return rows * 2

    @workflow
    async def training() -> int:
        return await train(await crunch(2))

    async with testing.engine(training) as lab:
        lab.fake(train, side_effect=lambda rows: rows + 1)
        assert await lab.run(training()) == 5
