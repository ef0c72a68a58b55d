"""The shape of the house, enforced: floors, purity, clocks, state, sizes, names, dependencies, optional leaves.

The rules are in `architecture/rules.py`, the tables they read in `architecture/table.py`. Every rule is itself tested
on planted sources: each of `BROKEN` must be reported by exactly its rule, none of `FINE` by any.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping

import pytest

from tests.architecture import rules, table
from tests.architecture.source import ROOT, Module, project, within

HEAD = '"""A planted module."""\n\nfrom __future__ import annotations\n\n'
PROJECT = project()


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: rules.Rule) -> None:
    assert PROJECT
    broken = sorted(set(rule(PROJECT)))
    assert not broken, "\n" + "\n".join(broken)


# ------------------------------------------------------------------------------------------------ canaries

_METHODS = "\n".join(f"    def m{n}(self) -> None:\n        self.n = {n}" for n in range(table.CLASS_METHODS + 1))
_LONG = "def long() -> None:\n" + "    long()\n" * table.FUNCTION_LINES
_DEEP = "engine.core.planted"

BROKEN: list[tuple[rules.Rule, str, str]] = [
    (rules.every_module_has_a_room, "engine.attic", HEAD),
    (rules.imports_go_down, "engine.errors", HEAD + "import engine.core\n"),
    (rules.imports_go_down, _DEEP, HEAD + "from engine.runtime import worker\n"),
    (rules.imports_go_down, _DEEP, HEAD + "from engine import runtime\n"),
    (rules.imports_go_down, _DEEP, HEAD + "from ..tasks import planted\n"),
    (rules.imports_go_down, _DEEP, HEAD + "import eventstore\n"),
    (rules.imports_go_down, _DEEP, HEAD + "def late() -> None:\n    from engine import Engine\n"),
    (rules.imports_go_down, _DEEP, HEAD + "import importlib\nimportlib.import_module('engine.runtime')\n"),
    (
        rules.imports_go_down,
        _DEEP,
        HEAD + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engine.tasks\n",
    ),
    (rules.imports_go_down, "engine.workflows", HEAD + "from engine.tasks import Task\n"),
    (rules.imports_go_down, "engine.runtime.planted", HEAD + "from engine.cli import main\n"),
    (rules.imports_go_down, "engine.audit.planted", HEAD + "from engine.assets import asset\n"),
    (rules.imports_go_down, "engine", HEAD + "from engine.testing import crash\n"),
    (
        rules.deciding_and_remembering_do_not_meet,
        "eventstore.planted",
        HEAD + "from engine.errors import HoldfastError\n",
    ),
    (rules.deciding_and_remembering_do_not_meet, "engine.tasks", HEAD + "import engine.core\nimport eventstore\n"),
    (rules.upper_floors_use_what_a_user_can_import, "engine.cli.planted", HEAD + "import engine\n"),
    (rules.upper_floors_use_what_a_user_can_import, "engine.cli.planted", HEAD + "from engine.runtime import x\n"),
    (rules.upper_floors_use_what_a_user_can_import, "engine.cli.planted", HEAD + "from engine import runtime\n"),
    (rules.upper_floors_use_what_a_user_can_import, "engine.cli.planted", HEAD + "from engine import secret\n"),
    (rules.upper_floors_use_what_a_user_can_import, "engine.testing.planted", HEAD + "from eventstore import port\n"),
    (rules.public_modules_say_what_they_export, "engine", HEAD + "from engine.errors import TaskError\n"),
    (rules.public_modules_say_what_they_export, "engine", HEAD + "__all__ = [n for n in dir()]\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "import random\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from random import random\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from random import Random\nchance = Random()\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from threading import Lock\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from uuid import uuid4\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "import logging\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "import os.path\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from concurrent.futures import Future\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "def f() -> None:\n    import socket\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "def f() -> object:\n    return open('x')\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "def f(x: object) -> int:\n    return id(x)\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "print('x')\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "import asyncio\nasyncio.run(None)\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "from asyncio import to_thread\n"),
    (rules.the_core_is_pure, _DEEP, HEAD + "import sys\nsys.stderr.write('x')\n"),
    (rules.one_module_reads_the_clock, "eventstore.planted", HEAD + "import time\nnow = time.time_ns()\n"),
    (rules.one_module_reads_the_clock, "eventstore.planted", HEAD + "import time as t\nclock = t.monotonic\n"),
    (rules.one_module_reads_the_clock, "eventstore.planted", HEAD + "from time import perf_counter as p\np()\n"),
    (rules.one_module_reads_the_clock, "engine.cli.planted", HEAD + "import datetime\ndatetime.datetime.now()\n"),
    (rules.one_module_reads_the_clock, "engine.cli.planted", HEAD + "from datetime import datetime as d\nd.utcnow()\n"),
    (rules.one_module_reads_the_clock, "engine.cli.planted", HEAD + "from datetime import date\ndate.today()\n"),
    (rules.nobody_reads_the_environment, "engine.cli.planted", HEAD + "import os\nx = os.environ['HOME']\n"),
    (rules.nobody_reads_the_environment, "engine.cli.planted", HEAD + "import os\nx = os.getenv('HOME')\n"),
    (rules.nobody_reads_the_environment, "engine.cli.planted", HEAD + "from os import environ\n"),
    (rules.modules_hold_no_state, "eventstore.planted", HEAD + "engines = {}\n"),
    (rules.modules_hold_no_state, "eventstore.planted", HEAD + "_seen: set[str] = set()\n"),
    (
        rules.modules_hold_no_state,
        "eventstore.planted",
        HEAD + "from collections import deque\nif True:\n    last = deque()\n",
    ),
    (
        rules.modules_hold_no_state,
        "eventstore.planted",
        HEAD + "from typing import Final\nKNOWN: Final = {}\ndef add(n: str) -> None:\n    KNOWN[n] = 1\n",
    ),
    (
        rules.modules_hold_no_state,
        "eventstore.planted",
        HEAD + "KNOWN = []\ndef add(n: str) -> None:\n    KNOWN.append(n)\n",
    ),
    (rules.modules_hold_no_state, "eventstore.planted", HEAD + "n = 0\ndef up() -> None:\n    global n\n    n = 1\n"),
    (rules.names_say_something, "engine.cli.utils", HEAD),
    (rules.names_say_something, "engine.cli.lease_manager", HEAD),
    (rules.names_say_something, "eventstore.planted", HEAD + "class StreamManager:\n    n = 1\n"),
    (rules.names_say_something, "eventstore.planted", HEAD + "def run_activity() -> int:\n    return 1\n"),
    (rules.modules_are_small, "eventstore.planted", HEAD + "N = 1\n" * table.MODULE_LINES),
    (rules.modules_are_small, "eventstore.planted", HEAD + "N = 1\n" * table.MODULE_LINES_STOP),
    (rules.functions_are_short, "eventstore.planted", HEAD + _LONG),
    (rules.functions_are_short, "eventstore.planted", HEAD + "async " + _LONG),
    (rules.classes_are_small, "eventstore.planted", HEAD + "class Big:\n" + _METHODS),
    (rules.modules_open_with_what_they_are, "eventstore.planted", "from __future__ import annotations\n"),
    (rules.modules_open_with_what_they_are, "eventstore.planted", ""),
    (rules.annotations_are_lazy, "eventstore.planted", '"""Planted."""\n\ndef f() -> int:\n    return 1\n'),
    (rules.annotations_are_lazy, "eventstore.planted", '"""Planted."""\n\nN: int = 1\n'),
    (rules.dependencies_stay_in_their_rooms, "engine.runtime.planted", HEAD + "import typer\n"),
    (rules.dependencies_stay_in_their_rooms, "engine.runtime.planted", HEAD + "def f() -> None:\n    import rich\n"),
    (rules.dependencies_stay_in_their_rooms, "engine.runtime.planted", HEAD + "from aiosqlite import connect\n"),
    (rules.dependencies_stay_in_their_rooms, _DEEP, HEAD + "from anyio.abc import TaskGroup\n"),
    (rules.dependencies_stay_in_their_rooms, _DEEP, HEAD + "import numpy as np\n"),
    (rules.dependencies_stay_in_their_rooms, "eventstore.planted", HEAD + "import tenacity\n"),
    (rules.dependencies_stay_in_their_rooms, "eventstore.planted", HEAD + "import pickle\n"),
    (rules.nothing_is_run_from_text, "eventstore.planted", HEAD + "def f(x: str) -> object:\n    return eval(x)\n"),
    (rules.nothing_is_run_from_text, "eventstore.planted", HEAD + "import builtins\nbuiltins.exec('x = 1')\n"),
    (rules.nothing_is_run_from_text, "engine.cli.planted", HEAD + "import yaml\nyaml.load('x')\n"),
    (rules.nothing_is_run_from_text, "engine.cli.planted", HEAD + "from os import system\nsystem('x')\n"),
    (
        rules.imports_are_plain,
        "engine.runtime.planted",
        HEAD + "import importlib\nimportlib.import_module('a' + 'b')\n",
    ),
    (rules.imports_are_plain, "engine.runtime.planted", HEAD + "from engine.errors import *\n"),
]

FINE: list[tuple[str, str]] = [
    ("engine.core.planted", HEAD + "import asyncio\nfrom random import Random\n\nfrom engine.errors import TaskError\n\n"
     "def f(seed: int, xs: list[int]) -> Random:\n    xs.append(seed)\n    return Random(seed)\n"),
    ("engine.runtime.planted", HEAD + "import time\n\nimport anyio\nfrom tenacity import stop_after_attempt\n\n"
     "from engine.core import loop\nfrom engine.errors import TaskError\nfrom eventstore import Commit\n\n"
     "def f() -> None:\n    time.sleep(1)\n"),
    ("engine.cli.planted", HEAD + "import importlib\n\nimport rich\nimport typer\n\nfrom engine import Engine, errors\n"
     "from engine.cli import other\nfrom engine.errors import TaskError\nfrom eventstore import NewEvent\n\n"
     "def f(target: str) -> object:\n    return importlib.import_module(target)\n"),
    ("eventstore.clock", HEAD + "import time\nfrom datetime import UTC, datetime\n\nprint(time.time(), datetime.now(UTC))\n"),
    ("eventstore.planted", HEAD + "from datetime import datetime\nfrom typing import Final\n\n_ORDER: Final = ['a']\nsome: Final = {1}\n"
     "__all__ = ['f']\n\n\ndef f(at: float) -> list[object]:\n    some = [datetime.fromtimestamp(at)]\n"
     "    some.append(_ORDER)\n    return some\n"),
]  # fmt: skip

FACE = Module("engine", HEAD + "from engine.runtime import Engine\n\n__all__ = ['Engine']\n", is_package=True)
STORE = Module("eventstore", HEAD + "__all__ = ['Commit', 'NewEvent']\n", is_package=True)
ERRORS = Module("engine.errors", HEAD + "__all__ = ['TaskError']\n")


def _planted(name: str, source: str) -> Mapping[str, Module]:
    """A small house with a face, a store, errors, and the planted module in it."""
    return {each.name: each for each in (FACE, STORE, ERRORS, Module(name, source))}


@pytest.mark.parametrize(("rule", "name", "source"), BROKEN)
def test_a_rule_reports_what_breaks_it(rule: rules.Rule, name: str, source: str) -> None:
    reported = list(rule(_planted(name, source)))
    assert reported
    assert all(each.startswith(name) for each in reported)


@pytest.mark.parametrize(("name", "source"), FINE, ids=[name for name, _ in FINE])
def test_no_rule_reports_what_is_fine(name: str, source: str) -> None:
    modules = _planted(name, source)
    without_tables = (rule for rule in rules.RULES if rule is not rules.exceptions_are_needed)
    assert [each for rule in without_tables for each in rule(modules)] == []


def test_every_rule_has_a_canary() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(rules.RULES) - {rules.exceptions_are_needed}


def test_exceptions_without_a_case_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = _planted("eventstore.planted", HEAD + "class Small:\n    n = 1\n")
    monkeypatch.setattr(table, "LONG_MODULES", {"eventstore.planted": "no", "eventstore.gone": "no"})
    monkeypatch.setattr(table, "MANY_METHODS", {"eventstore.planted:Small": "no", "eventstore.gone:Big": "no"})
    monkeypatch.setattr(table, "MODULE_STATE", {"eventstore.planted:n": "no", "eventstore.gone:n": "no"})
    assert len(list(rules.exceptions_are_needed(modules))) == 6


def test_an_exception_in_the_table_silences_its_case_only(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HEAD + "one = []\ntwo = []\n" + "N = 1\n" * table.MODULE_LINES + "class Big:\n" + _METHODS
    modules = _planted("eventstore.planted", source)
    monkeypatch.setattr(table, "MODULE_STATE", {"eventstore.planted:one": "planted"})
    monkeypatch.setattr(table, "LONG_MODULES", {"eventstore.planted": "planted"})
    monkeypatch.setattr(table, "MANY_METHODS", {"eventstore.planted:Big": "planted"})
    assert [each for each in rules.modules_hold_no_state(modules) if "`two`" not in each] == []
    assert len(list(rules.modules_hold_no_state(modules))) == 1
    assert not list(rules.modules_are_small(modules))
    assert not list(rules.classes_are_small(modules))
    assert not list(rules.exceptions_are_needed(modules))


# ------------------------------------------------------------------------------------------------ optional leaves

_BLOCKED = """
import sys

ALLOWED = {allowed!r}
OURS = {ours!r}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ALLOWED or top in OURS:
            return None
        if top.startswith("_sysconfigdata"):  # the interpreter's own, which zoneinfo reads; its name is of the platform
            return None
        raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
{imports}
foreign = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names) - set(BEFORE)
print(*sorted(foreign))
"""


def _import_blocked(imports: str, *, allowed: frozenset[str]) -> subprocess.CompletedProcess[str]:
    """Imports in a fresh interpreter where everything that is neither standard library, ours nor allowed is missing."""
    code = "import sys\nBEFORE = {name.partition('.')[0] for name in sys.modules}\n" + _BLOCKED.format(
        allowed=allowed, ours=table.PACKAGES, imports=imports
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=ROOT)


CORE = table.CORE_DEPENDENCIES | {"sniffio", "idna", "typing_extensions", "exceptiongroup"}
"""The core dependencies and what they themselves import."""


def test_it_imports_without_any_extra() -> None:
    outcome = _import_blocked("import engine, eventstore", allowed=CORE)
    assert outcome.returncode == 0, outcome.stderr
    loaded = set(outcome.stdout.split())
    assert set(table.PACKAGES) <= loaded
    assert loaded <= CORE | set(table.PACKAGES)


def test_the_blocker_blocks() -> None:
    outcome = _import_blocked("import typer", allowed=CORE)
    assert outcome.returncode != 0
    assert "typer is blocked" in outcome.stderr


def test_only_leaves_fail_without_their_extra() -> None:
    """Every other module, and not just the two packages' faces, imports without any extra."""
    extras = set(table.DEPENDENCIES) - table.CORE_DEPENDENCIES - set(sys.stdlib_module_names)
    leaves = {room for extra in extras for room in table.DEPENDENCIES[extra]}
    names = [name for name in PROJECT if not any(within(name, leaf) for leaf in leaves)]
    outcome = _import_blocked("\n".join(f"import {name}" for name in names), allowed=CORE)
    assert outcome.returncode == 0, outcome.stderr


# ------------------------------------------------------------------------------------------------ the project file


def _distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].replace("-", "_").lower()


def test_the_project_file_says_the_same() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)
    project = settings["project"]
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(table.PACKAGES)
    assert {_distribution(each) for each in project["dependencies"]} == table.CORE_DEPENDENCIES
    extras = project["optional-dependencies"]
    for extra in set(extras) - {"dbt", "dev", "examples", "fuzz", "test"}:  # those that nothing in the packages imports
        for requirement in extras[extra]:
            assert _distribution(requirement) in table.DEPENDENCIES, f"{extra}: {requirement} has no room"


def test_there_is_no_third_import_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == {*table.PACKAGES, "tests"}
    assert not list(ROOT.glob("*.py"))
    for name in table.PACKAGES:
        assert (ROOT / name / "py.typed").is_file()
