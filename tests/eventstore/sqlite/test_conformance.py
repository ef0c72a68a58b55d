"""The shipped suite, against SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstore.conformance import CHECKS, Check, name_of
from eventstore.sqlite import WritesOn
from tests.eventstore.sqlite.harness import SqliteHarness


@pytest.fixture
async def harness(tmp_path: Path, writes_on: WritesOn) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path, writes_on)
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: SqliteHarness) -> None:
    await check(harness)
