"""`python -m benchmarks.peers`: Holdfast beside DBOS, Prefect and Dagster, in one command. See the README beside this file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import environments
from benchmarks.peers.crashes import DEADLINE_SECONDS, all_crashes
from benchmarks.peers.peers import PEERS
from benchmarks.peers.speed import measure
from benchmarks.peers.table import report


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Holdfast and its peers, compared.")
    parser.add_argument(
        "--folder", type=Path, help="where environments are made and kept, and databases written (default: temporary)"
    )
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="which (default: all)")
    parser.add_argument("--only", choices=("speed", "crashes"), help="one of the two parts (default: both)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each speed is measured (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the sizes, for a quick look (default 1)")
    parser.add_argument("--runs", type=int, default=40, help="runs of each crash program (default 40)")
    parser.add_argument("--jobs", type=int, default=2, help="crash runs at a time (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="for the moments of the kills (default 0)")
    parser.add_argument("--results", type=Path, help="also write what was measured to this file, as JSON")
    parser.add_argument(
        "--show", type=Path, metavar="RESULTS", help="print the tables of such a file again; nothing is run"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environments, measure, print."""
    given = options(arguments)
    if given.show:
        print(report(json.loads(given.show.read_text(encoding="utf-8"))), end="")
        return
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder, prefix="peers-")))
        results = run(given, given.folder.resolve() if given.folder else temporary, temporary.resolve())
    if given.results:
        given.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(report(results), end="")


def run(given: argparse.Namespace, keep: Path, folder: Path) -> dict[str, Any]:
    """All that was asked for, as it is written to a file."""
    needed = dict.fromkeys(PEERS[name].environment for name in given.peers)
    pythons = {name: environments.make(keep, name) for name in needed}
    load = [round(os.getloadavg()[0], 2)]
    with contextlib.ExitStack() as stack:
        settings = {
            name: stack.enter_context(environments.surroundings(name, python, folder))
            for name, python in pythons.items()
        }
        speed: dict[str, Any] = {}
        crashes: dict[str, Any] = {}
        if given.only != "crashes":
            speed = measure(given.peers, pythons, settings, folder, rounds=given.rounds, scale=given.scale)
        if given.only != "speed":
            found = all_crashes(
                given.peers, pythons, settings, folder, runs=given.runs, jobs=given.jobs, seed=given.seed
            )
            crashes = {
                program: {name: dataclasses.asdict(each) for name, each in of.items()} for program, of in found.items()
            }
    load.append(round(os.getloadavg()[0], 2))
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}",
        "load": load,
        "versions": {name: environments.versions(python, name) for name, python in pythons.items()},
        "deadline_seconds": DEADLINE_SECONDS,
        "speed": speed,
        "crashes": crashes,
    }


if __name__ == "__main__":
    sys.exit(main())
