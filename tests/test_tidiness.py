"""The canary of `conftest.py`: tests that leak are planted, and must fail; tidy ones must not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

PLANTED = """
import asyncio, threading
import pytest

async def test_leaks_a_task():
    asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)

class TestInClass:
    async def test_leaks_a_task(self):
        asyncio.create_task(asyncio.sleep(3600))

def test_leaks_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

@pytest.fixture
async def beside():
    task = asyncio.create_task(asyncio.sleep(3600))
    yield
    task.cancel()
    await asyncio.wait([task])

async def test_tidy(beside):
    assert await asyncio.to_thread(lambda: 1) == 1

def test_tidy_without_a_loop():
    asyncio.run(asyncio.sleep(0))
"""


def test_what_leaks_fails_and_what_is_tidy_passes(tmp_path: Path) -> None:
    conftest, shortened = re.subn(
        r"THREAD_END_SECONDS = [\d.]+", "THREAD_END_SECONDS = 0.2", (HERE / "conftest.py").read_text()
    )
    assert shortened == 1
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:anyio", "-rE", str(tmp_path)]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False).stdout
    failed = set(re.findall(r"^ERROR \S*test_planted\.py::(\S+)", out, re.MULTILINE))
    assert failed == {"test_leaks_a_task", "TestInClass::test_leaks_a_task", "test_leaks_a_thread"}, out
    assert "5 passed, 3 errors" in out, out
