"""The suite itself: shipped, complete, and usable by others without this repository's tests or a test runner."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import uvloop

import eventstore.conformance
from eventstore.conformance import CHECKS, Check, MemoryHarness, StoreHarness, name_of
from eventstore.port import EventStore

FOLDER = Path(eventstore.conformance.__file__).parent


def test_it_needs_nothing_that_a_user_does_not_have() -> None:
    allowed = {"msgspec", "eventstore", *sys.stdlib_module_names}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path.name
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"


def test_every_function_that_could_be_a_check_is_one() -> None:
    """Nothing of the suite lies about unused: each coroutine function of a theme is a check or a private helper."""
    names = {name_of(check) for check in CHECKS}
    for path in FOLDER.glob("*.py"):
        if path.stem in ("__init__", "harness", "checks"):
            continue
        module = ast.parse(path.read_text(encoding="utf-8"))
        found = {node.name for node in module.body if isinstance(node, ast.AsyncFunctionDef)}
        public = {f"{path.stem}.{name}" for name in found if not name.startswith("_")}
        assert public, path.name
        assert public <= names
    assert len(names) == len(CHECKS)


def test_every_method_of_the_port_is_used() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py"))
    methods = [name for name in vars(EventStore) if not name.startswith("_")]
    assert len(methods) == 11  # ten, and `capabilities`
    for method in methods:
        assert f".{method}" in source, method


def test_the_memory_harness_is_a_harness() -> None:
    harness: StoreHarness = MemoryHarness()
    for name in vars(StoreHarness):
        if not name.startswith("_"):
            assert hasattr(harness, name)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_memory_under_uvloop(check: Check) -> None:
    async def run() -> None:
        harness = MemoryHarness()
        try:
            await check(harness)
        finally:
            await harness.aclose()

    uvloop.run(run())
