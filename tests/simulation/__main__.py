"""``python -m tests.simulation --seeds 1000 --jobs 2``: see the package."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time

import msgspec

SHOWN_MAX = 3
"""Failing seeds that are made small and shown in full; of the others, what is broken."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=None, help="begin no more seeds after that")
    parser.add_argument("--seed", type=int, default=None, help="replay this one, and make it small if it fails")
    parser.add_argument("--scenario", default=None, help="play this one, as a report printed it")
    parser.add_argument("--json", action="store_true", help="print one object instead of text")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without its processes
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts iterate by their hashes
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment)
    from tests.simulation.scenarios import Scenario, scenario_of
    from tests.simulation.trying import report_of

    if given.scenario is not None:
        text = report_of(msgspec.json.decode(given.scenario, type=Scenario), small=False)
    elif given.seed is not None:
        text = report_of(scenario_of(given.seed))
    else:
        return _try(given)
    print(text)
    return int("BROKEN" in text)


def _try(given: argparse.Namespace) -> int:
    from tests.simulation.scenarios import scenario_of
    from tests.simulation.trying import Tried, report_of, try_seeds

    began = time.monotonic()
    end = float("inf") if given.minutes is None else began + given.minutes * 60

    told: set[int] = set()

    def progress(tried: Tried) -> None:
        for found in tried.found:
            if found.seed not in told:
                told.add(found.seed)
                print(f"seed {found.seed} failed: {found.broken[0][0]}", file=sys.stderr, flush=True)
        if not given.json and sys.stderr.isatty():
            print(f"\r{tried.seeds:,} seeds, {len(tried.found)} failed", end="", file=sys.stderr, flush=True)

    tried = try_seeds(
        given.first, given.seeds, jobs=given.jobs, go_on=lambda: time.monotonic() < end, progress=progress
    )
    tried.found.sort(key=lambda found: found.seed)
    if given.json:
        print(json.dumps({**msgspec.to_builtins(tried), "real_seconds": round(time.monotonic() - began, 1)}))
        return int(bool(tried.found))
    for number, found in enumerate(tried.found):
        print(f"\nseed {found.seed} failed; replay it with: python -m tests.simulation --seed {found.seed}")
        for what, text in found.broken:
            print(f"  {what}: {text.splitlines()[0][:300]}")
        if number < SHOWN_MAX:
            print(report_of(scenario_of(found.seed)))
    faults, checks = sum(tried.faults.values()), sum(tried.checks.values())
    print(f"{tried.seeds:,} seeds in {time.monotonic() - began:,.0f} s, {len(tried.found)} failed")
    print(f"simulated: {tried.seconds:,.0f} s, {tried.steps:,} callbacks, {tried.commits:,} commits")
    print(f"faults injected: {faults:,} ({_listed(tried.faults)})")
    print(f"invariants checked: {checks:,} ({_listed(tried.checks)})")
    return int(bool(tried.found))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
