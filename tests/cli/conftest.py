"""A folder with a file of workflows, and the command in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.command import Command


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    shutil.copy(Path(__file__).parent / "work.py", tmp_path / "work.py")
    return Command(tmp_path)
