"""Worlds, as the tests of the shell have them, and a stage that is empty before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.language import hands
from tests.runtime.conftest import memory, sqlite, world, worlds

__all__ = ["memory", "sqlite", "world", "worlds"]


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    hands.clear()
    yield
    hands.clear()
