"""What the project says of itself: README's commands, links between documents, and numbered decisions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

COMMANDS = [
    'python3 -m venv .venv && .venv/bin/pip install -e ".[cli,examples]" && .venv/bin/holdfast run examples/flights.py',
    'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/pytest',
]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", text)
    return [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_has_the_commands_exactly(command: str) -> None:
    assert f"\n{command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_noticed() -> None:
    text = "[a](LICENSE) [b](docs/gone.md#x) [c](https://example.org/) [d](#here)"
    assert broken_links(ROOT / "README.md", text) == ["docs/gone.md"]


def test_readme_sample_runs_and_runs_again(tmp_path: Path) -> None:
    """As a reader would: saved to a file and run, twice. The second time finds the finished run under the same id."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "census.py").write_text(sample)
    lines = 0
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
        lines += len((ROOT / name).read_text(encoding="utf-8").splitlines())
    for _ in range(2):
        outcome = subprocess.run(
            [sys.executable, "-W", "error", "census.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (outcome.stdout, outcome.stderr) == (f"{lines} lines\n", "")


def test_decisions_are_numbered_listed_and_complete() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"^\| \[(\d{4})\]\((\S+)\)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [(path.name[:4], path.name) for path in pages]
    assert [int(number) for number, _ in listed] == list(range(1, len(pages) + 1))
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: ")
        for part in ("Status: ", "**Context.**", "**Decision.**", "**What else was looked at.**", "**What it costs.**"):
            assert part in text, f"{path.name} has no {part}"


def test_what_is_shown_to_users_is_type_checked() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        checked = set(tomllib.load(file)["tool"]["mypy"]["files"])
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert examples - checked == {"examples/flights.py"}, "but for what leans on libraries with types of their own"


def test_the_page_of_the_house_names_every_command_module_and_is_in_paragraphs() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| which commands are there.*$", text, re.MULTILINE)
    modules = {path.name for path in (ROOT / "engine" / "cli").glob("*_commands.py")}
    assert modules - set(re.findall(r"`(\w+\.py)`", row)) == set()
    assert re.findall(r"^[^\n]+\n(\*\*[A-Z][^*]*\*\*)", text, re.MULTILINE) == []


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_files_of_others_have_their_source_and_licence() -> None:
    notice = (ROOT / "examples" / "jaffle" / "NOTICE").read_text(encoding="utf-8")
    for word in ("github.com/dbt-labs/jaffle_shop_duckdb", "9b13827913b230a045b0a71736a00e2053fbcb16", "Apache-2.0"):
        assert word in notice


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
