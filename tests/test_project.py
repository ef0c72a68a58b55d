"""What the project says of itself: README's commands, links between documents, and numbered decisions."""

from __future__ import annotations

import ast
import os
import re
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


def test_readme_samples_are_python() -> None:
    samples = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert samples
    for sample in samples:
        ast.parse(sample)


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


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
