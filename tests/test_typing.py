"""What type checkers make of the public API, each run once over `tests/typing`: see decision 9."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "typing"
SECONDS_MAX = 120
CHECKERS = ("mypy", "basedpyright")


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@cache
def errors_of(checker: str) -> dict[str, dict[int, str]]:
    """By file: line and message."""
    files = [str(path.relative_to(ROOT)) for path in sorted(FOLDER.glob("*.py"))]
    found: dict[str, dict[int, str]] = {Path(name).name: {} for name in files}
    if checker == "mypy":
        said = run("mypy", "--strict", "--no-error-summary", "--hide-error-context", *files)
        for name, line, message in re.findall(r"^(\S+?):(\d+): error: (.*)$", said, re.MULTILINE):
            found[Path(name).name][int(line)] = message
    else:
        said = run("basedpyright", "--outputjson", "--level", "error", "--pythonpath", sys.executable, *files)
        for each in json.loads(said)["generalDiagnostics"]:
            found[Path(each["file"]).name][each["range"]["start"]["line"] + 1] = each["message"]
    return found


def lines_marked(name: str) -> set[int]:
    lines = (FOLDER / name).read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("  # wrong")}


@pytest.mark.parametrize("checker", CHECKERS)
def test_types_are_inferred_and_what_is_mistyped_is_refused(checker: str) -> None:
    assert errors_of(checker)["fine.py"] == {}
    found = errors_of(checker)["wrong.py"]
    marked = lines_marked("wrong.py")
    assert len(marked) > 25
    assert {number: found[number] for number in found.keys() - marked} == {}, "refused, and should not be"
    assert marked - found.keys() == set(), "accepted, and should not be"


def test_every_public_generic_is_asked_about() -> None:
    import engine

    text = (FOLDER / "fine.py").read_text()
    generics = {name for name in engine.__all__ if getattr(getattr(engine, name), "__parameters__", ())}
    assert {"Task", "Workflow", "Signal", "Request", "RunHandle", "ChildHandle"} <= generics
    assert {name for name in generics | {"Call"} if not re.search(rf"\b{name}\[", text)} == set()
