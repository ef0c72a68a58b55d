"""The plugin for pytest, as somebody else's test run has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

from tests.architecture.source import ROOT

CONFTEST = """
pytest_plugins = ["engine.testing.pytest_plugin"]
"""
FIXTURES = """
    import pytest

    @pytest.fixture
    def schedules(request):
        return request.config.getoption("--holdfast-schedules") or 7
"""
TESTS = """
    import pytest

    from engine import task, workflow

    sums = {"all": 0}

    @task
    async def add(n: int) -> int:
        sums["all"] += n
        return n

    @workflow
    async def adding() -> int:
        return await add(1) + await add(2)

    async def test_lab(holdfast_lab):
        async with holdfast_lab(adding) as lab:
            fake = lab.fake(add, returns=5)
            assert await lab.run(adding(), id="run") == 10
            assert fake.keys
            print("seeded", lab.engine.message_id())

    @pytest.mark.holdfast(schedules=7)
    async def test_no_findings(holdfast_explorer, schedules):
        assert (await holdfast_explorer(adding())).played == schedules + 2

    async def test_findings(holdfast_explorer):
        await holdfast_explorer(adding(), outside=[sums])

    @pytest.mark.holdfast(sched=7)
    async def test_unknown(holdfast_explorer):
        pass
"""


def run_pytest(folder: Path, *options: str) -> str:
    (folder / "conftest.py").write_text(CONFTEST + textwrap.dedent(FIXTURES))
    (folder / "test_it.py").write_text(textwrap.dedent(TESTS))
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:anyio", "-p", "no:xdist", "--strict-markers", "-rA", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    outcome = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    return outcome.stdout + outcome.stderr


def seeded(output: str) -> str:
    found = re.search(r"seeded ([0-9a-f]+)", output)
    assert found is not None, output
    return found[1]


def test_fixtures_with_seed_and_bounds_from_marker_and_command_line(tmp_path: Path) -> None:
    usual = run_pytest(tmp_path)
    for line in (
        "PASSED test_it.py::test_lab",
        "PASSED test_it.py::test_no_findings",
        "FAILED test_it.py::test_findings",
    ):
        assert line in usual, usual
    assert "to see it again: explore" in usual
    assert "@pytest.mark.holdfast has no 'sched'" in usual
    again = run_pytest(tmp_path, "--holdfast-seed=0", "-k", "lab")
    other = run_pytest(tmp_path, "--holdfast-seed=7", "--holdfast-schedules=4", "-k", "lab or no_findings")
    assert "2 passed" in other, other
    assert seeded(usual) == seeded(again) != seeded(other)


def test_nothing_of_ours_is_loaded_by_whoever_did_not_ask() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert "pytest11" not in project.get("entry-points", {})
    code = "import sys, engine, engine.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
    code = "import sys, engine, engine.cli; sys.exit('engine.testing' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
