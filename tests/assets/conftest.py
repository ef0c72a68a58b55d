"""Worlds of the shell's tests, and an empty record of what was made."""

from __future__ import annotations

import pytest

from tests.assets.shop import made
from tests.runtime.conftest import memory, sqlite, world, worlds

__all__ = ["memory", "sqlite", "world", "worlds"]


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    made.clear()
