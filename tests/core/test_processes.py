"""The same history in every process and under every Python: whatever the hash seed, wherever objects lie in memory.

`digests.py` runs every workflow of `test_crash.py` and prints digests; here it is run in many processes, under this
interpreter and under the others that are found: `python3.11`, `python3.12` and `python3.13` on PATH, and those that the
environment variable HOLDFAST_TEST_PYTHONS names (paths, separated as PATH is). One that cannot import the dependencies
is skipped, and says so.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("digests.py")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PROBE = "import sys, anyio, msgspec; print('%d.%d' % sys.version_info[:2])"

Digests = dict[str, list[str]]


def digests(*args: str, python: str = sys.executable, hash_seed: str = "0") -> Digests:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [python, "-W", "error", str(PROGRAM), *args]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: Digests = json.loads(done.stdout)
    assert len(found) > 80
    return found


@functools.cache
def here() -> Digests:
    return digests("0")


def differing(one: Digests, other: Digests, column: int) -> list[str]:
    return [name for name in one if name in other and one[name][column] != other[name][column]]


def test_every_process_writes_the_same_history() -> None:
    for junk, seed in (("1000", "1"), ("12345", "random")):
        assert differing(here(), digests(junk, hash_seed=seed), 0) == []


def test_canary_without_ordered_sets_processes_differ() -> None:
    """What the ordered sets are for: without them, awaitables in sets come in the order of their addresses."""
    for attempt in range(4):  # chance: two processes may agree on an order, but not again and again
        one, other = (digests(str(junk + attempt), "--unordered") for junk in (100, 2000))
        differ = differing(one, other, 0)
        raw_coroutines = {name for name in differ if name.startswith("as_completed")}
        scopes = {name for name in differ if name.startswith("anyio")}
        if raw_coroutines and scopes:
            return
    pytest.fail(f"no difference was seen: {sorted(differ)}")


@functools.cache
def interpreters() -> dict[str, str]:
    """Version to path, of those that can import the dependencies."""
    named = os.environ.get("HOLDFAST_TEST_PYTHONS", "").split(os.pathsep)
    found = {}
    for candidate in [*named, *(shutil.which(f"python{version}") for version in VERSIONS)]:
        if candidate:
            probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
            if probe.returncode == 0:
                found.setdefault(probe.stdout.strip(), candidate)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_writes_the_same_history(version: str) -> None:
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        assert differing(here(), digests("31", hash_seed="2"), 1) == []
        return
    if version not in interpreters():
        pytest.skip(f"no Python {version} that imports anyio and msgspec on PATH or in HOLDFAST_TEST_PYTHONS")
    theirs = digests("0", "--crash=as_completed_async_for", python=interpreters()[version], hash_seed="3")
    assert differing(here(), theirs, 1) == []
    if version >= "3.13":
        assert "as_completed_async_for" in theirs
