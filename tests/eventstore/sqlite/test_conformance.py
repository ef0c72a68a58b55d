"""The shipped suite, against SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstore.conformance import CHECKS, Check, name_of
from tests.eventstore.sqlite.harness import SqliteHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path)
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: SqliteHarness) -> None:
    await check(harness)
