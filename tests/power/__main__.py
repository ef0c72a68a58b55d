"""Crash images: ``python -m tests.power --images N --jobs 2 [--seed S] [--json] [--keep FOLDER]``.

What a real workload on a SQLite store writes, syncs, truncates, creates and removes is recorded by strace. From that, images
are built of what a power cut could have left on the disk at any moment (`disk`): what was synced is there, of the rest any
part, torn, in any order; also of cuts while an image was recovered and went on. Each is opened and held against what was
acknowledged by then (`check`). Prints how many, of which kinds, how fast; exits with 1 when one is wrong, and saves it:
``python -m tests.power --check FOLDER`` opens it again. ``--canaries`` plants bugs, each of which must be found.

One image in four is opened and written by `SqliteStore`, the others by SQLite alone; one in eight is asked for its
`integrity_check`, all for a `quick_check` behind a write. On three in a hundred an engine lives on: every run ends as it
would have (`engine_check`). One round in ten is of `synchronous=FULL`, one of NORMAL: there what was acknowledged may be lost,
and nothing may be half. Exits with 2 when there is no strace, or it may not trace.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.power import canaries
from tests.power.engine_check import EngineRound, live_on
from tests.power.jobs import cut
from tests.power.rounds import Report, Round, check, load, run_round
from tests.power.trace import NoRecorder, check_recorder

CANARY_IMAGES = 600


def shown(report: Report, seconds: float) -> Iterator[str]:
    rate = report.images / seconds
    yield f"{report.images:,} different images of {report.recordings} recordings in {seconds:,.0f} s: {rate:.0f}/s"
    yield f"recorded operations: {report.operations:,}; answers that were held against images: {report.acknowledged:,}"
    for what, counts in (("kinds", report.kinds), ("cut while", report.moments), ("opened by", report.checked)):
        yield f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    for fault, place in zip(report.faults, report.saved, strict=True):
        yield f"WRONG: {fault}"
        yield f"       python -m tests.power --check {place}"
    yield f"wrong: {len(report.faults)}"


def plant_all(seed: int) -> int:
    """Each canary must be found; how many were not."""
    missed = 0
    for name, what in canaries.ALL.items():
        of = EngineRound if name in canaries.OF_VALUES else Round
        with tempfile.TemporaryDirectory() as scratch:
            report, _ = run_round(seed, CANARY_IMAGES, Path(scratch), name, of=of)
        found = f"found in image {report.images}: {report.faults[0]}" if report.faults else "NOT FOUND"
        missed += not report.faults
        print(f"{name} ({what}): {found}", flush=True)
    return missed


def check_saved(place: Path) -> int:
    image, journal, of = load(place)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "image"
        if of == EngineRound.of:
            wrong = live_on(folder, image, journal)
        else:
            wrong = [
                f"{'SqliteStore' if through_store else 'sqlite3'}: {fault}"
                for through_store in (False, True)
                for fault in check(folder, image, journal, through_store=through_store)
            ]
    print(*wrong or ["nothing is wrong"], sep="\n")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next has the next")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()) / "holdfast-power", help="for images that fail"
    )
    parser.add_argument("--canaries", action="store_true")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="open an image that was saved")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write a small recording, of an engine if its name says so; `test_power.py` reads two",
    )
    options = parser.parse_args()
    if options.check:
        return check_saved(options.check)
    try:
        check_recorder()
    except NoRecorder as missing:
        print(missing, file=sys.stderr)
        return 2
    if options.record:
        of = EngineRound if "engine" in options.record.name else Round
        with tempfile.TemporaryDirectory() as scratch:
            of(options.seed, Path(scratch), options.keep, commits=4).record().write(options.record)
        return 0
    if options.canaries:
        return int(plant_all(options.seed) > 0)
    began = time.monotonic()
    report = cut(options.images, options.jobs, options.seed, options.keep)
    seconds = time.monotonic() - began
    if options.json:
        known = {name: getattr(report, name) for name in report.__dataclass_fields__}
        print(json.dumps({"seed": options.seed, "seconds": round(seconds, 1), **known}))
    else:
        print(*shown(report, seconds), sep="\n")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
