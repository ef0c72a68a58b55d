"""The memory store keeps every promise of the port."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eventstore.conformance import CHECKS, Check, MemoryHarness, StoreHarness, name_of


@pytest.fixture
async def harness() -> AsyncIterator[StoreHarness]:
    harness = MemoryHarness()
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: StoreHarness) -> None:
    await check(harness)
