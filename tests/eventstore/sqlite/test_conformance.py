"""The shipped suite, against SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("eventstore.conformance")

from eventstore.conformance import CHECKS, Check, name_of  # noqa: E402
from tests.eventstore.sqlite.harness import SqliteHarness  # noqa: E402


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path)
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: SqliteHarness) -> None:
    await check(harness)
