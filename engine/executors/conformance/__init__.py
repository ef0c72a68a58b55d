"""The conformance suite of the executor port: whoever passes every check is a place where attempts may run.

Each check is a coroutine function that takes an `ExecutorHarness`, and raises when a promise of `engine.executors.port`
is not kept. The suite uses nothing but the port and the harness, and knows no test runner. Work and check talk through
the attempt's contact alone (heartbeats one way, notices the other), so the work may be anywhere that can import
`engine`. With pytest (pytest-asyncio in auto mode):

    import pytest

    from engine.executors.conformance import CHECKS, Check, ExecutorHarness, name_of

    @pytest.fixture
    async def harness():
        harness = ExecutorHarness(MyExecutor)  # called with a number of slots
        yield harness
        await harness.aclose()

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_conformance(check: Check, harness: ExecutorHarness) -> None:
        await check(harness)
"""

from __future__ import annotations

import sys
from pkgutil import iter_modules

if (_pytest := sys.modules.get("pytest")) is not None:  # before the checks are imported: their asserts then show values
    _pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from engine.executors.conformance.checks import CHECKS, name_of
from engine.executors.conformance.harness import Check, ExecutorHarness

__all__ = ["CHECKS", "Check", "ExecutorHarness", "name_of"]
