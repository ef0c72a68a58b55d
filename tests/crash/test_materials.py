"""Materializing, killed with SIGKILL at chosen places: the same versions, each published once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 180.0
PLACES = (
    "computing",
    "computing a part",
    "checking",
    "before publishing",
    "after publishing",
    "before starting",
    "after starting",
    "before ending",
    "after ending",
)


def materialized(folder: Path, *places: str) -> tuple[dict[str, Any], int]:
    """What was published in the end, and how many processes were killed on the way."""
    folder.mkdir(exist_ok=True)
    killed = 0
    while True:
        process = subprocess.run(
            [sys.executable, "-m", "tests.crash.materials", str(folder), *places],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        if process.returncode == -signal.SIGKILL:
            killed += 1
            assert killed <= len(places), "killed again"
            continue
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout), killed


@pytest.mark.parametrize("places", [PLACES[:3], PLACES[3:7], PLACES[7:]], ids=lambda places: places[0])
def test_the_same_versions_as_without(places: tuple[str, ...], tmp_path: Path) -> None:
    expected, _ = materialized(tmp_path / "undisturbed")
    assert {len(versions) for versions in expected.values()} == {1}
    assert materialized(tmp_path / "killed", *places) == (expected, len(places))
    computed = Counter((tmp_path / "killed" / "computed").read_text().splitlines())
    assert set(computed) == {"base", "parts[a]", "parts[b]", "parts[c]", "whole"}
    assert max(computed.values()) <= 1 + len(places)
    if places == PLACES[7:]:  # everything was published
        assert set(computed.values()) == {1}
