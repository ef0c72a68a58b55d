"""A program that writes to a storage and dies at one call to the system after the other: ``dying.py FOLDER``.

For each step a child of this process writes a value, and is gone (as by kill -9: nothing is cleaned up) when it comes to
that step. Printed, one JSON line a step: what the next to open the folder finds, and whether writing again works.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.errors import StorageMissing
from engine.storage import Storage, places

CALLS = ("open", "fsync", "utime", "replace", "mkdir", "unlink")
VALUE = {"a": list(range(1000))}


def counted(fn: Any, die_at: int, steps: list[str]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        steps.append(fn.__name__)
        if len(steps) == die_at:
            os._exit(9)
        return fn(*args, **kwargs)

    return call


def child(folder: Path, die_at: int) -> None:
    steps: list[str] = []
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), die_at, steps))
    write = places.Draft.write

    def half(draft: Any, data: Any) -> int:
        steps.append("write")
        if len(steps) == die_at:
            write(draft, data[: len(data) // 2])
            os._exit(9)
        return write(draft, data)

    places.Draft.write = half  # type: ignore[method-assign]
    Storage(folder).blocking.write(VALUE)
    os._exit(0)


def main() -> None:
    root = Path(sys.argv[1])
    expected = Storage(root / "expected").blocking.write(VALUE)
    for die_at in range(1, 100):
        folder = root / str(die_at)
        if (pid := os.fork()) == 0:
            child(folder, die_at)
        died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        storage = Storage(folder).blocking
        try:
            found = "whole" if storage.read(expected) == VALUE else "WRONG"
        except StorageMissing:
            found = "missing"
        before = len(list(folder.rglob("*.part")))
        for draft in folder.rglob("*.part"):
            os.utime(draft, (0, 0))
        again = Storage(folder).blocking
        assert again.write(VALUE) == expected
        line = {
            "died": died,
            "found": found,
            "drafts": before,
            "again": again.read(expected) == VALUE,
            "left": sorted(each.name for each in folder.rglob("*") if each.is_file()),
        }
        print(json.dumps(line))
        if not died:
            return


if __name__ == "__main__":
    main()
