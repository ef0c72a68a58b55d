"""One word, one meaning: every fixed word is in the glossary, and so is every public name that is a thing of ours."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.architecture.source import ROOT, Module, project

FIXED = """
workflow, run, task, attempt, branch, call, event, history, fact, decision, note, turn, replay, instance, signal, request,
timer, child run, fork, rerun, retry, stream, version, position, message, mailbox, alarm, lease, fencing token, projection,
view, checkpoint, seal, asset, partition, materialization, check, backfill, schedule, sensor, code version, data version,
pool, rate, worker, executor
"""
"""The words that the design fixes (DESIGN section 3)."""

WORDS = [word.strip() for word in FIXED.split(",")]


@cache
def text() -> str:
    return (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def rows(page: str) -> dict[str, tuple[str, str]]:
    """word -> (meaning, not)."""
    found = re.findall(r"^\| \*\*(.+?)\*\* \| (.*?) \|(.*)\|$", page, re.MULTILINE)
    assert len(found) == len({word for word, _, _ in found}), "a word has two rows"
    return {word: (meaning, wrong.strip()) for word, meaning, wrong in found}


def missing_names(modules: dict[str, Module], page: str) -> list[str]:
    """Exported names, exceptions aside, whose glossary row is missing: as code, or as the word itself."""
    errors = {name for module in modules.values() if module.name.endswith(".errors") for name in module.exported or ()}
    words = {word.lower().replace(" ", "") for word in rows(page)}
    missing = []
    for package in ("engine", "eventstore"):
        for name in sorted((modules[package].exported or frozenset()) - errors):
            if name.startswith("__") or name.lower().replace("_", "") in words:
                continue
            if not re.search(rf"`[^`]*\b{re.escape(name)}\b[^`]*`", page):
                missing.append(f"{package}.{name}")
    return missing


@pytest.mark.parametrize("word", WORDS)
def test_a_fixed_word_has_its_row(word: str) -> None:
    meaning, _ = rows(text())[word]
    assert len(meaning) > 10


def test_no_word_is_also_what_it_is_not() -> None:
    """A word may be ruled out for one thing and stand for another, but never for itself."""
    for word, (_, wrong) in rows(text()).items():
        assert word not in [each.strip() for each in re.sub(r"\(.*?\)", "", wrong).split(",")]


def test_every_public_name_is_explained() -> None:
    assert missing_names(project(), text()) == [], "add a row to docs/glossary.md, or name it in the row it belongs to"


def test_one_public_name_is_one_thing() -> None:
    import engine.audit
    import engine.errors
    import engine.executors
    import engine.testing
    import eventstore

    faces = (engine, engine.audit, engine.errors, engine.executors, engine.testing, eventstore)
    found: dict[str, set[int]] = {}
    for face in faces:
        for name in face.__all__:
            found.setdefault(name, set()).add(id(getattr(face, name)))
    # That is one thing, too: tasks do not know the store, so it is said once more, and a test holds the two to each other.
    assert {name for name, things in found.items() if len(things) > 1} == {"Transaction"}


def test_a_name_without_a_row_is_noticed() -> None:
    modules = {
        "engine": Module("engine", "__all__ = ['Wormhole', 'Run', 'Broken', '__version__']", is_package=True),
        "engine.errors": Module("engine.errors", "__all__ = ['Broken']"),
        "eventstore": Module("eventstore", "__all__ = ['Commit', 'Chute']", is_package=True),
    }
    page = "| **run** | one execution | job |\n| **step** | one atomic step, a `Commit` | |\n| **x** | a Wormhole | |\n"
    assert missing_names(modules, page) == ["engine.Wormhole", "eventstore.Chute"]
