"""`python -m benchmarks.peers`: Holdfast beside DBOS, Prefect and Dagster. See the README beside this file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import signal
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
    add = parser.add_argument
    add(
        "--folder",
        type=Path,
        help="where environments are kept and databases written (default: temporary, all removed)",
    )
    add("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="which (default: all)")
    add("--only", choices=("speed", "crashes"), help="one of the two parts (default: both)")
    add("--rounds", type=int, default=3, help="times that each speed is measured (default 3)")
    add("--scale", type=float, default=1.0, help="part of the sizes, for a quick look (default 1)")
    add("--runs", type=int, default=40, help="runs of each crash program (default 40)")
    add("--jobs", type=int, default=2, help="crash runs at a time (default 2)")
    add("--seed", type=int, default=0, help="for the moments of the kills (default 0)")
    add("--results", type=Path, help="a file for what is measured, JSON; one that is there is gone on with")
    add("--show", type=Path, metavar="RESULTS", help="print the tables of such a file again; nothing is run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environments, measure, print."""
    given = options(arguments)
    if given.show:
        print(report(json.loads(given.show.read_text(encoding="utf-8"))), end="")
        return
    # A server and processes of the peers are running meanwhile: they are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        if given.folder:
            given.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder, prefix="peers-"))).resolve()
        results = run(given, given.folder.resolve() if given.folder else temporary, temporary)
    print(report(results), end="")


def run(given: argparse.Namespace, keep: Path, folder: Path) -> dict[str, Any]:
    """All that was asked for, and what the file of results had before; written there whenever there is more of it."""
    needed = dict.fromkeys(PEERS[name].environment for name in given.peers)
    pythons = {name: environments.make(keep, name) for name in needed}
    results: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}",
        "load": [],
        "versions": {name: environments.versions(python, name) for name, python in pythons.items()},
        "deadline_seconds": DEADLINE_SECONDS,
        "speed": {},
        "crashes": {},
    }
    if given.results and given.results.exists():
        results = together(json.loads(given.results.read_text(encoding="utf-8")), results)

    def save() -> None:
        results["load"].append(round(os.getloadavg()[0], 2))
        if given.results:
            given.results.write_text(json.dumps(results, indent=1), encoding="utf-8")

    save()
    with contextlib.ExitStack() as stack:
        around = {name: environments.surroundings(name, python, folder) for name, python in pythons.items()}
        settings = {name: stack.enter_context(each) for name, each in around.items()}
        if given.only != "crashes":
            for measured in measure(given.peers, pythons, settings, folder, rounds=given.rounds, scale=given.scale):
                results["speed"] = measured
                save()
        if given.only != "speed":
            for program, name, found in all_crashes(
                given.peers, pythons, settings, folder, runs=given.runs, jobs=given.jobs, seed=given.seed
            ):
                results["crashes"].setdefault(program, {})[name] = dataclasses.asdict(found)
                save()
    return results


def together(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Results that go on with those of a file: what is measured now replaces what was. Other versions are refused."""
    for name, found in now["versions"].items():
        if earlier["versions"].get(name, found) != found:
            raise SystemExit(
                f"the results in the file are of {earlier['versions'][name]}, and what would be measured is {found}:"
                " give another file with --results"
            )
    return {
        **now,
        "load": earlier["load"],
        "versions": {**earlier["versions"], **now["versions"]},
        "speed": earlier["speed"],
        "crashes": earlier["crashes"],
    }


if __name__ == "__main__":
    main()
