"""Checks: what the work returns or raises comes back."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.executors.conformance.harness import ExecutorHarness, all_free, failure_of, result_of
from engine.executors.conformance.works import Odd
from engine.tasks import CompletedLater


async def a_result_comes_back(harness: ExecutorHarness) -> None:
    """Whatever JSON holds."""
    executor = harness.open()
    values: tuple[Any, ...] = (None, True, 0, -1.5, "", "ü\U0001f600", [], {"a": [1, {"b": None}]})
    for value in values:
        assert await result_of(executor, harness.guest("echo", value)) == value
        await all_free(executor)


async def a_large_value_comes_back_whole(harness: ExecutorHarness) -> None:
    """As large as a history takes them, there and back."""
    executor = harness.open()
    value = "0123456789abcde\n" * 15_000
    assert await result_of(executor, harness.guest("echo", value)) == value


async def an_exception_comes_back(harness: ExecutorHarness) -> None:
    """As itself, or described so that it can be rebuilt."""
    executor = harness.open()
    error = await failure_of(executor, harness.guest("fail", "ValueError"))
    assert type(error) is ValueError
    assert error.args == ("wrong", 7)
    await all_free(executor)
    odd = await failure_of(executor, harness.guest("fail", "Odd"))
    assert type(odd) is Odd
    assert str(odd) == "strange"


async def an_exception_keeps_its_cause(harness: ExecutorHarness) -> None:
    """Down the chain."""
    executor = harness.open()
    error = await failure_of(executor, harness.guest("fail", "caused"))
    assert type(error) is LookupError
    assert type(error.__cause__) is KeyError
    assert error.__cause__.args == ("missing",)


async def whatever_is_raised_is_an_outcome(harness: ExecutorHarness) -> None:
    """What ends programs, coroutines and threads elsewhere ends the attempt here, and the place goes on."""
    executor = harness.open()
    for kind, type_ in (
        ("SystemExit", SystemExit),
        ("KeyboardInterrupt", KeyboardInterrupt),
        ("GeneratorExit", GeneratorExit),
        ("CancelledError", asyncio.CancelledError),
    ):
        error = await failure_of(executor, harness.guest("fail", kind))
        assert isinstance(error, type_) or isinstance(error.__cause__, type_), repr(error)
        await all_free(executor)
        assert await result_of(executor, harness.guest("echo", kind)) == kind
        await all_free(executor)


async def a_task_that_is_handed_out_is_no_failure(harness: ExecutorHarness) -> None:
    """`attempt().later()` ends the attempt, and says so."""
    executor = harness.open()
    assert isinstance(await failure_of(executor, harness.guest("hand_out")), CompletedLater)
    await all_free(executor)
