"""Each effect contract under kill -9 between the effect and its record; effects are counted outside the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


def runs_until_done(folder: Path, contract: str, kill: str) -> tuple[str, int]:
    """What the run returned, and how many processes were killed on the way."""
    killed = 0
    while True:
        process = subprocess.run(
            [sys.executable, "-m", "tests.crash.contracts", contract],
            cwd=ROOT,
            env={**os.environ, "CONTRACTS_FOLDER": str(folder), "CONTRACTS_KILL": kill},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        if process.returncode == -signal.SIGKILL:
            killed += 1
            assert killed < 3, "killed again"
            continue
        assert process.returncode == 0, process.stderr
        return process.stdout.strip(), killed


@pytest.mark.parametrize(
    ("contract", "kill", "result", "effects"),
    [
        ("idempotent", "behind", "done by attempt 2", 2),
        ("idempotent", "before", "done by attempt 2", 1),
        ("at_most_once", "behind", "interrupted", 1),
        ("at_most_once", "before", "interrupted", 0),
        ("reconcile", "behind", "found", 1),
        ("reconcile", "before", "done by attempt 2", 1),
    ],
)
def test_killed_between_effect_and_record(contract: str, kill: str, result: str, effects: int, tmp_path: Path) -> None:
    assert runs_until_done(tmp_path, contract, kill) == (result, 1)
    path = tmp_path / "effects"
    keys = path.read_text().splitlines() if path.exists() else []
    assert len(keys) == effects
    assert len(set(keys)) <= 1, "one call, one key"


def test_killed_while_asking_too(tmp_path: Path) -> None:
    """Behind the effect, and then once more while the outside is asked."""
    env = {**os.environ, "CONTRACTS_FOLDER": str(tmp_path)}
    command = [sys.executable, "-m", "tests.crash.contracts", "reconcile"]
    dead = subprocess.run(command, cwd=ROOT, env={**env, "CONTRACTS_KILL": "behind"}, check=False, timeout=60)
    assert dead.returncode == -signal.SIGKILL
    assert runs_until_done(tmp_path, "reconcile", "asking") == ("found", 1)
    assert len((tmp_path / "effects").read_text().splitlines()) == 1
