"""The benchmarks work: each runs at a tiny size, as a user would run it, and prints JSON of the documented shape.

Nothing is asserted about time or memory; a busy machine must not fail a suite.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source import ROOT

FOLDER = ROOT / "benchmarks"
TINY = {
    "sequential": ["--steps", "5", "--on-loop", "1", "--rounds", "2"],
    "many_runs": [
        "--runs", "4", "--tasks", "2", "--processes", "2", "--gc-threshold", "900", "--on-loop", "1", "--rounds", "2",
    ],
    "fan_out": ["--tasks", "10", "--processes", "2", "--on-loop", "0", "--rounds", "1"],
    "replay": ["--tasks", "10", "--rounds", "2"],
    "long_history": ["--tasks", "12", "--epochs", "3", "--rounds", "2"],
    "start_up": ["--rounds", "1", "--runs", "2"],
    "dispatch": ["--tasks", "4", "--microseconds", "10", "--slots", "1", "--rounds", "2"],
    "limits": ["--tasks", "10", "--milliseconds", "1", "--slots", "2", "--runs", "2", "--rounds", "1"],
    "backpressure": ["--tasks", "10", "--children", "4", "--window", "2", "--rounds", "1"],
    "proof": ["--events", "26", "--rounds", "2"],
    "partitions": ["--partitions", "400", "--rounds", "2"],
    "asset_graph": ["--assets", "30", "--rounds", "2"],
    "sleeping": ["--runs", "4", "--rounds", "1", "--idle-seconds", "0"],
    "recovery": ["--runs", "4", "--tasks", "2", "--rounds", "1"],
    "opening": ["--runs", "10", "--rounds", "1"],
    "signals": ["--signals", "10", "--singly", "2", "--rounds", "1"],
    "log_size": ["--tasks", "10", "--rounds", "1"],
}  # fmt: skip
MEASURED = {
    "sequential": {"engine_steps_per_second", "raw_commits_per_second"},
    "many_runs": {"rows", "engine_rows_per_second", "engine_runs_per_second", "raw_rows_per_second"},
    "fan_out": {
        "engine_rows_per_second", "raw_rows_per_second", "growth", "exponent_of_seconds", "exponent_of_memory_bytes",
    },
    "replay": {"steps", "fan_out"},
    "long_history": {"events", "rebuilt", "by_hand_seconds", "in_epochs", "snapshot_of_the_fold"},
    "start_up": {
        "import_engine_milliseconds", "import_engine_milliseconds_limit", "import_engine_within_limit",
        "import_bare_milliseconds", "import_dependencies_milliseconds", "extras_imported", "used_file_bytes", "open",
    },
    "dispatch": {"processes", "threads", "coroutines", "first_process_milliseconds"},
    "limits": {
        "seconds_pool_over_slots", "seconds_pool_over_plain", "seconds_slots_over_plain",
        "seconds_unreached_pool_over_none", "seconds_unreached_rate_over_none", "milliseconds_per_task_of_many_runs",
    },
    "backpressure": {"gathered", "window", "children"},
    "proof": {
        "verified_events_per_second", "by_hand_events_per_second", "verify_peak_bytes", "by_hand_peak_bytes",
        "verify_peak_bytes_of_a_tenth", "first_seal_seconds", "next_seal_milliseconds",
    },
    "partitions": {
        "partitions_of_each", "plan_milliseconds", "by_hand_milliseconds", "plan_broken_milliseconds",
        "by_hand_broken_milliseconds", "list_milliseconds", "look_up_milliseconds", "read_recorded_milliseconds",
    },
    "sleeping": {"engine", "engine_all_cached", "raw"},
    "recovery": {"recovered_runs_per_second", "new_runs_per_second", "open_milliseconds"},
    "opening": {"open_milliseconds", "first_result_milliseconds"},
    "signals": {"together_signals_per_second", "singly_signals_per_second", "raw_rows_per_second"},
    "log_size": {"steps", "fan_out", "limit_bytes_per_task"},
    "asset_graph": {
        "define_select_order_milliseconds", "declare_milliseconds", "wire_milliseconds", "select_milliseconds",
        "order_milliseconds", "by_hand_milliseconds", "graph_and_order_milliseconds", "code_versions_milliseconds",
        "plan_milliseconds", "expand_milliseconds", "exponent_of_seconds",
    },
}  # fmt: skip
AIMS = {
    "sequential": {"at_least": 0.4},
    "many_runs": {"at_least": 0.1},
    "fan_out": {"at_least": 0.15},
    "replay": {"at_most": 4.0},
    "long_history": {"at_most": 4.0},
    "dispatch": {"at_most": 1.5},
    "limits": {"at_most": 2.0},
    "backpressure": {"at_most": 0.25},
    "proof": {"at_most": 4.0},
    "partitions": {"at_most": 0.1},
    "asset_graph": {"at_most": 60.0},
    "opening": {"at_most": 2.0},
    "log_size": {"at_most": 1.0},
}
SPREAD = {"median", "min", "max", "measured"}


def run(script: str, *arguments: str, directory: Path) -> str:
    """What the script prints; a warning would be an error."""
    outcome = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / script, *arguments, "--directory", directory],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    return outcome.stdout


def spreads(found: Any) -> list[dict[str, Any]]:
    """Every spread in a part of a report, however deep."""
    if isinstance(found, list):
        return [each for item in found for each in spreads(item)]
    if not isinstance(found, dict):
        return []
    if SPREAD <= found.keys():
        return [found]
    return [each for item in found.values() for each in spreads(item)]


@pytest.mark.parametrize("name", TINY)
def test_prints_its_report(name: str, tmp_path: Path) -> None:
    (line,) = run(f"{name}.py", *TINY[name], "--json", directory=tmp_path).splitlines()
    report = json.loads(line)
    assert report.keys() == {"benchmark", "question", "ratio", "ratio_of", "aim", "parameters", "measured", "machine"}
    assert report["benchmark"] == name
    assert report["question"].endswith("?")
    assert report["aim"] == AIMS.get(name)
    options = [option[2:].replace("-", "_") for option in TINY[name][::2]]
    assert report["parameters"] == dict(zip(options, map(int, TINY[name][1::2])))
    assert report["measured"].keys() == MEASURED[name]
    assert report["machine"].keys() == {"cpus", "load", "system", "python", "sqlite", "file_system"}
    found = spreads(report)
    assert report["ratio"] in found
    for each in found:
        assert each["min"] <= each["median"] <= each["max"]
        assert len(each["measured"]) == report["parameters"]["rounds"]
    assert list(tmp_path.iterdir()) == []  # its databases are gone


def test_sizes_of_a_report_are_those_that_were_asked_for(tmp_path: Path) -> None:
    report = json.loads(run("many_runs.py", *TINY["many_runs"], directory=tmp_path))
    # RunStarted, then TaskScheduled, TaskStarted and TaskCompleted for each task, then RunCompleted
    assert report["measured"]["rows"] == 4 * (1 + 3 * 2 + 1)


def test_bytecodes_are_counted_by_package_and_by_function(tmp_path: Path) -> None:
    total, *lines = run("bytecodes.py", "many_runs", "--units", "2", "--top", "200", directory=tmp_path).splitlines()
    assert re.fullmatch(r"[\d,]+ bytecodes and [\d,]+ calls of Python functions for each", total)
    assert any(line.endswith("%  engine/runtime") for line in lines)
    assert any(
        re.fullmatch(r" +[\d,]+ +[\d,]+ +[\d.]+  Turns.take  engine/runtime/turns.py:\d+", line) for line in lines
    )
    assert list(tmp_path.iterdir()) == []


def test_every_benchmark_is_tested_and_described() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py") if "publish(" in path.read_text(encoding="utf-8")} - {"report"}
    assert scripts == set(TINY)
    assert (
        set(re.findall(r"^\| \[`(\w+)\.py`\]", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
        == scripts
    )


def test_run_all_runs_all() -> None:
    source = (FOLDER / "run_all.py").read_text(encoding="utf-8")
    (names,) = re.findall(r"^BENCHMARKS = \((.*?)^\)$", source, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r'"(\w+)"', names)) == set(TINY)
