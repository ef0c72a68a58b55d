"""What every benchmark prints: one JSON object of one shape, with what the machine is; and the options they share.

A number that was measured several times is given as median, minimum and maximum, because machines are noisy and a mean
hides it. A ratio is made within one round, of two measurements that stand beside each other in time, never of medians.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sqlite3
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

__all__ = ["ON_LOOP", "Aim", "Option", "Report", "Spread", "exponent", "options", "publish", "spread"]


class Spread(Struct, frozen=True):
    """A number measured several times."""

    median: float
    min: float
    max: float
    measured: tuple[float, ...]  # in the order of the rounds


class Aim(Struct, frozen=True, omit_defaults=True):
    """What the ratio should be; which of the two says whether more or less is better."""

    at_least: float | None = None
    at_most: float | None = None


class Machine(Struct, frozen=True):
    """Where the numbers come from: they mean little elsewhere."""

    cpus: int  # that this process may use
    load: float | None  # of the last minute, when the benchmark ended: what else the machine was doing
    system: str
    python: str
    sqlite: str
    file_system: str | None  # of the directory that was written to


class Option(Struct, frozen=True):
    """A size that can be given on the command line: tests make it small."""

    name: str
    default: int
    help: str


class Report(Struct, frozen=True, kw_only=True):
    """The object that is printed."""

    benchmark: str
    question: str
    ratio: Spread
    ratio_of: str  # what is divided by what
    aim: Aim | None = None
    parameters: dict[str, int]
    measured: dict[str, Any]  # the numbers behind the ratio, and beside it; names carry units
    machine: Machine


ON_LOOP: Final = Option("on_loop", 0, "1 to have the store write on the loop's own thread")
"""See `eventstore.sqlite.SqliteStore.open`."""


def spread(values: Iterable[float]) -> Spread:
    """Median, minimum and maximum of at least one value, to four significant digits."""
    rounded = tuple(float(f"{value:.4g}") for value in values)
    median = float(f"{statistics.median(rounded):.4g}")
    return Spread(median, min(rounded), max(rounded), rounded)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of a line through the logarithms: 1 when twice the size costs twice as much, 2 when four times."""
    slope = statistics.linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope
    return round(slope, 3)


def options(description: str, sizes: Sequence[Option], arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: the sizes, `--directory` and `--json`."""
    parser = argparse.ArgumentParser(description=description)
    for size in sizes:
        parser.add_argument(
            f"--{size.name.replace('_', '-')}",
            type=int,
            default=size.default,
            metavar="N",
            help=f"{size.help} (default {size.default:,})",
        )
    parser.add_argument(
        "--directory", type=Path, default=None, help="where databases are written (default: the temporary directory)"
    )
    parser.add_argument("--json", action="store_true", help="one line instead of indented")
    return parser.parse_args(arguments)


def publish(
    options: argparse.Namespace,
    *,
    benchmark: str,
    question: str,
    ratio: Iterable[float],
    ratio_of: str,
    aim: Aim | None = None,
    directory: Path,
    measured: dict[str, Any],
) -> Report:
    """Print the report as JSON, and return it."""
    report = Report(
        benchmark=benchmark,
        question=question,
        ratio=spread(ratio),
        ratio_of=ratio_of,
        aim=aim,
        parameters={name: value for name, value in vars(options).items() if type(value) is int},
        measured=measured,
        machine=_machine(directory),
    )
    text = msgspec.json.encode(report)
    sys.stdout.write((text if options.json else msgspec.json.format(text, indent=2)).decode() + "\n")
    return report


def _machine(directory: Path) -> Machine:
    affinity: Literal[False] | Any = getattr(os, "sched_getaffinity", False)  # Linux only
    return Machine(
        cpus=len(affinity(0)) if affinity else os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        file_system=_file_system(directory.resolve()),
    )


def _file_system(directory: Path) -> str | None:
    """The type of the file system that holds the directory, where the system says so."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    found = ("", "")
    for line in mounts.read_text().splitlines():
        _, mounted_at, kind, *_ = line.split()
        if len(mounted_at) >= len(found[0]) and directory.is_relative_to(mounted_at):
            found = (mounted_at, kind)
    return found[1] or None
