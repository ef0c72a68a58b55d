"""A folder with a file of workflows, and the command in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from tests.cli.command import Command, nursery


@pytest.fixture(scope="session", autouse=True)
def _the_nursery_closes() -> Iterator[None]:
    yield
    if nursery.cache_info().currsize:
        nursery().close()


@pytest.fixture(scope="session", autouse=True)
def _the_command_line_is_built_once() -> Iterator[None]:
    """All commands and their options, for those inside this process: it takes longer than most of the commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    shutil.copy(Path(__file__).parent / "work.py", tmp_path / "work.py")
    return Command(tmp_path)


@pytest.fixture
def nobody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands inside this process need not wait long for somebody who takes up what they ask for."""
    monkeypatch.setattr("engine.cli.control._TAKEN_UP_SECONDS", 0.05)
