"""``python -m tests.kills [--kills N] [--jobs J] [--seed S] [--once]``: trials until so many processes were killed.

Prints how often each point was reached, how many processes were killed, failed and stopped, and how many checks were made.
Exits with 1 if what must hold did not (the trial's seed is printed, and ``--seed S --once`` runs it again, as far as the
timing of processes lets it), or if a point was never reached. Needs strace, and the right to trace.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from tests.kills.lives import Outcome, count_calls, trial
from tests.kills.points import POINTS

EVERY_POINT_FROM = 500
"""Kills from which on every point must have been reached."""
NAMES = (*(point.name for point in POINTS), "kill at random", "stopped past its lease")


def main(kills: int, jobs: int, seed: int, *, once: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        calls = count_calls(Path(folder))
    print("calls of an undisturbed life:", json.dumps({" ".join(key): number for key, number in sorted(calls.items())}))
    begun, said_at = time.monotonic(), 0.0
    all_ = Outcome(seed)
    trials = 0
    broken: list[Outcome] = []
    under_way: set[Future[Outcome]] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while under_way or (all_.kills < kills and not broken and not (once and trials)):
            while len(under_way) < jobs and all_.kills < kills and not broken and not (once and trials):
                under_way.add(pool.submit(trial, seed + trials, calls))
                trials += 1
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for outcome in (each.result() for each in done):
                all_.kills += outcome.kills
                all_.failures += outcome.failures
                all_.stops += outcome.stops
                all_.checks += outcome.checks
                all_.reached += outcome.reached
                if outcome.broken:
                    broken.append(outcome)
                    print(f"seed {outcome.seed}: {outcome.broken}", flush=True)
            if time.monotonic() - said_at > 30:
                said_at = time.monotonic()
                print(f"{trials} trials, {all_.kills} kills, {all_.failures} failed calls", flush=True)
    missing = [name for name in NAMES if not all_.reached[name]]
    print(
        json.dumps(
            {
                "trials": trials,
                "kills": all_.kills,
                "failed calls": all_.failures,
                "stopped": all_.stops,
                "checks": all_.checks,
                "broken": [outcome.seed for outcome in broken],
                "seconds": round(time.monotonic() - begun),
                "reached": {name: all_.reached[name] for name in NAMES},
                "never reached": missing,
            },
            indent=1,
        )
    )
    return 1 if broken or (missing and kills >= EVERY_POINT_FROM) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--once", action="store_true", help="only the trial of that seed")
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("tests.kills hits system calls with strace, which is not on PATH (Debian: apt-get install strace)")
    sys.exit(main(arguments.kills, arguments.jobs, arguments.seed, once=arguments.once))
