"""Transactional tasks where there is no database: fakes stand in for them, and without one a test is told what to do."""

from __future__ import annotations

from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Transaction, task, testing, workflow
from engine.testing import Bounds, assert_ran, explore, given, history

rows: list[tuple[str, int]] = []


@task(effect="transactional", stop=stop_after_attempt(3), wait=wait_fixed(60))
def book(tx: Transaction, order: str, amount: int = 1) -> int:
    raise AssertionError("there is no transaction in a lab")


@workflow
async def shop() -> int:
    return await book("o-1") + await book("o-2", amount=5)


async def test_a_fake_takes_the_arguments_without_the_transaction() -> None:
    async with testing.engine(shop) as lab:
        fake = lab.fake(book, side_effect=lambda order, amount=1: len(order) + amount)
        lab.fake(book("o-2", 5), outcomes=[ConnectionError("not now"), 100])
        assert await lab.run(shop()) == 104
        assert [call.text() for call in fake.calls] == ["book(order='o-1', amount=1)"]
        assert [(call.attempt, call.arguments) for call in lab.calls(book("o-2", 5))] == [
            (1, {"order": "o-2", "amount": 5}),
            (2, {"order": "o-2", "amount": 5}),
        ]


async def test_without_a_fake_the_test_is_told_what_to_do() -> None:
    words = (
        r"book\(order='o-1', amount=1\) was begun .* lab.fake\(book, returns=...\), for it is transactional .*fn\(tx"
    )
    with pytest.raises(testing.UnfakedTask, match=words):
        async with testing.engine(shop) as lab:
            await lab.run(shop())
    with pytest.raises(testing.UnfakedTask, match=words):
        await explore(shop(), bounds=Bounds(schedules=5))


async def test_the_explorer_crashes_around_the_fake() -> None:
    booked: dict[str, int] = {}

    def book_in_memory(order: str, amount: int = 1) -> int:
        booked[order] = amount
        return sum(booked.values())

    def prepare(lab: Any) -> None:
        lab.fake(book, side_effect=book_in_memory)

    report = await explore(shop(), prepare=prepare, outside=[booked], bounds=Bounds(schedules=40))
    assert (report.outcome.status, report.findings) == ("completed", ())


def test_a_history_told_by_hand() -> None:
    given(shop()).task(book("o-1")).returns(1).then(book("o-2", amount=5))


async def test_and_asserted() -> None:
    async with testing.engine(shop) as lab:
        lab.fake(book, returns=2)
        run = await lab.start(shop())
        assert await lab.result(run) == 4
        assert_ran(await history(run), book("o-2", 5), times=1)
