"""The conformance suite of the store port: whoever passes every check is a store.

Each check is a coroutine function that takes a `StoreHarness` with an empty store behind it, and raises when a promise
of `eventstore.port` is not kept. The suite promises to use nothing but the port and the harness; it deliberately does
not know any store but memory's, any test runner, or anything of this project's own tests. With pytest (pytest-asyncio
in auto mode):

    import pytest

    from eventstore.conformance import CHECKS, Check, StoreHarness, name_of

    @pytest.fixture
    async def harness(tmp_path):
        harness = MyHarness(tmp_path)
        yield harness
        await harness.aclose()

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_conformance(check: Check, harness: StoreHarness) -> None:
        await check(harness)

`MemoryHarness` is an example of a harness. What a store does not have (`EventStore.capabilities`) is checked to be
refused.
"""

from __future__ import annotations

import sys
from pkgutil import iter_modules

if (_pytest := sys.modules.get("pytest")) is not None:  # before the checks are imported: their asserts then show values
    _pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from eventstore.conformance.checks import CHECKS, name_of
from eventstore.conformance.harness import Check, MemoryHarness, StoreHarness, TurnedClock

__all__ = ["CHECKS", "Check", "MemoryHarness", "StoreHarness", "TurnedClock", "name_of"]
