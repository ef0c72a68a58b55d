"""A folder with a file of workflows, and the command in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command, nursery


@pytest.fixture(scope="session", autouse=True)
def _the_nursery_closes() -> Iterator[None]:
    yield
    if nursery.cache_info().currsize:
        nursery().close()


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    shutil.copy(Path(__file__).parent / "work.py", tmp_path / "work.py")
    return Command(tmp_path)


@pytest.fixture
def nobody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands inside this process need not wait long for somebody who takes up what they ask for."""
    monkeypatch.setattr("engine.cli.control._TAKEN_UP_SECONDS", 0.05)
