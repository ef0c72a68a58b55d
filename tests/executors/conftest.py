"""The memory store's world, for engines that run their tasks in processes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.runtime.worlds import MemoryWorld


@pytest.fixture
async def memory() -> AsyncIterator[MemoryWorld]:
    made = MemoryWorld()
    yield made
    await made.aclose()
