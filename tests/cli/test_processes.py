"""Tasks in worker processes, of a FILE.py given to the command: the file is found by its path, whatever it is called."""

from __future__ import annotations

import pytest

from tests.cli.command import Command

FLOW = """
import os
from engine import task, workflow
from neighbour import DOUBLE

@task(executor="processes")
def heavy(n: int) -> list[int]:
    print("computing", flush=True)
    return [n * DOUBLE, os.getpid()]

@task
def here() -> int:
    return os.getpid()

@workflow
async def flow() -> list[int]:
    n, there = await heavy(21)
    return [n, int(there != await here())]

if __name__ == "__main__":
    raise SystemExit("it was started as a program")
"""


@pytest.mark.parametrize("name", ["flow.py", "calendar.py", "my-flow.py"])
def test_a_file_is_found_by_its_path(name: str, holdfast: Command) -> None:
    (holdfast.folder / name).write_text(FLOW)
    (holdfast.folder / "neighbour.py").write_text("DOUBLE = 2\n")
    ended = holdfast("run", name, "--json", fresh=True)
    assert ended.code == 0, ended
    assert ended.json()["result"] == [42, 1]
    assert "computing" in ended.err
