"""Where the interpreter's work goes: the bytecodes that a unit of work takes, by package and by function.

On a shared machine seconds say little, and instructions counted by valgrind differ by some hundredths from one count
to the next. Bytecodes are nearly exact: what a change of a function saves shows in that function's line. They say
nothing of what C code does behind them (SQLite, hashes, memory), of caches, of the disk, or of threads that wait for
each other.

    python benchmarks/bytecodes.py many_runs     # for each run of five tasks, one after the other
    python benchmarks/bytecodes.py fan_out       # for each task of a fan-out
    python benchmarks/bytecodes.py sequential    # for each step of one run

Every thread is counted. The work is done at two sizes; what is printed is the difference, over the difference of the
sizes, so that what is paid once drops out. Counting takes more than a hundred times as long as the work itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from workloads import fan_out_seconds, many_runs_seconds, steps_seconds

Work = Callable[[Path, int], Coroutine[Any, Any, float]]

KINDS: dict[str, tuple[Work, int]] = {
    "many_runs": (lambda store, size: many_runs_seconds(store, runs=size, tasks=5), 40),
    "fan_out": (lambda store, size: fan_out_seconds(store, count=size), 300),
    "sequential": (lambda store, size: steps_seconds(store, count=size), 60),
}
_ROOT = Path(__file__).parent.parent


class Counts:
    """Of one piece of work, by function: bytecodes executed in it, in it and in what it calls, and how often it was
    called (a coroutine at each time that it goes on).
    """

    def __init__(self) -> None:
        self.own: Counter[CodeType] = Counter()
        self.inclusive: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        """See `sys.settrace`: called at each call."""
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code = frame.f_code
        self.calls[code] += 1
        around: set[CodeType] = set()
        caller: FrameType | None = frame
        while caller is not None:
            around.add(caller.f_code)
            caller = caller.f_back

        def count(_frame: FrameType, event: str, _argument: Any) -> Any:
            if event == "opcode":
                self.own[code] += 1
                self.inclusive.update(around)
            return count

        return count


def counted(work: Work, directory: Path, size: int) -> Counts:
    """What so much of it takes."""
    counts = Counts()
    threading.settrace(counts)
    sys.settrace(counts)
    try:
        asyncio.run(work(directory / f"{size}.db", size))
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Bytecodes for each unit of work, by package and by function.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--units", type=int, default=0, help="the smaller of the two sizes; the other is twice that")
    parser.add_argument("--top", type=int, default=40, help="functions to list")
    parser.add_argument("--directory", type=Path, default=None, help="where the databases are written")
    given = parser.parse_args(arguments)
    work, units = KINDS[given.kind]
    units = given.units or units
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        asyncio.run(work(directory / "warm.db", units))
        less, more = (counted(work, directory, size) for size in (units, 2 * units))
    own, inclusive, calls = (
        {code: (amount - getattr(less, which)[code]) / units for code, amount in getattr(more, which).items()}
        for which in ("own", "inclusive", "calls")
    )
    packages: defaultdict[str, float] = defaultdict(float)
    for code, amount in own.items():
        packages[str(_place(code).parent)] += amount
    total = sum(own.values())
    print(f"{total:,.0f} bytecodes and {sum(calls.values()):,.0f} calls of Python functions for each")
    for package, amount in sorted(packages.items(), key=lambda item: -item[1])[:8]:
        print(f"{amount:9,.0f}  {amount / total:4.0%}  {package}")
    print(f"{'own':>9} {'inclusive':>9} {'calls':>6}")
    for code in sorted(own, key=own.__getitem__, reverse=True)[: given.top]:
        where = f"{_place(code)}:{code.co_firstlineno}"
        print(f"{own[code]:9,.0f} {inclusive[code]:9,.0f} {calls[code]:6,.1f}  {code.co_qualname}  {where}")


def _place(code: CodeType) -> Path:
    """The file, from the project's root; of others the last two parts."""
    path = Path(code.co_filename)
    return path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else Path(*path.parts[-2:])


if __name__ == "__main__":
    main()
