"""Worlds, as the tests of the shell have them."""

from __future__ import annotations

from tests.runtime.conftest import memory, sqlite, world, worlds

__all__ = ["memory", "sqlite", "world", "worlds"]
