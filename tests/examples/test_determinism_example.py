"""The example of docs/determinism.md, run as a reader would, and the page itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.architecture.source import ROOT


def test_each_part_of_it_says_what_it_should() -> None:
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "examples/determinism.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    parts = dict(re.findall(r"^-- (\w[\w ]*)\n(.*?)(?=^-- |\Z)", outcome.stdout, re.MULTILINE | re.DOTALL))
    assert list(parts) == ["found", "right", "stopped", "broken off"]
    assert parts["found"].count("in workflow 'careless': write ") == 4
    assert parts["right"].count(" is lucky\n") == 1
    assert "cannot reach outside (open)" in parts["stopped"]
    for part in ("workflow 'spinning'", "determinism.py:", "a turn has taken", "was broken off", "is suspended"):
        assert part in parts["broken off"]


def test_the_page_names_what_there_is() -> None:
    page = (ROOT / "docs" / "determinism.md").read_text(encoding="utf-8")
    for name in ("DeterminismError", "ForbiddenInWorkflow", "TurnSlow", "turn_seconds", "# deterministic: "):
        assert name in page
