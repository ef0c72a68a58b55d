"""``python -m tests.fuzz [TARGET...] [--minutes M] [--jobs J]``: coverage-guided fuzzing of everything that decodes bytes.

Each target (default: all) gets its share of M minutes in a process of its own. What broke is written to
``tests/fuzz/corpus/TARGET/``, where the default tests replay it from then on, and the command exits with 1.
``--replay FILE`` runs a target on one file. Needs atheris: ``pip install -e ".[fuzz]"``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.check import CORPUS, kept, problem
from tests.fuzz.targets import TARGETS

_RUNS = re.compile(r"Done (\d+) runs")


def fuzz(name: str, seconds: int) -> tuple[str, int, list[Path], str]:
    """The target, how many inputs it was given, what broke it, and how."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, crash = Path(folder, "seeds"), Path(folder, "crash")
        seeds.mkdir()
        crash.mkdir()
        for number, data in enumerate([*TARGETS[name].seeds, *(data for _, data in kept(name))]):
            (seeds / f"{number}").write_bytes(data)
        ours = [sys.executable, "-m", "tests.fuzz.here", name, folder, str(seconds)]
        done = subprocess.run(ours, capture_output=True, text=True, errors="replace", check=False)
        runs = _RUNS.search(done.stderr)
        found = []
        for path in crash.glob("*"):
            data = path.read_bytes()
            target = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            found.append(target)
        said = "" if done.returncode == 0 else "\n".join(done.stdout.splitlines()[-12:] + done.stderr.splitlines()[-4:])
        return name, int(runs[1]) if runs else 0, found, said


def main(names: list[str], minutes: float, jobs: int) -> int:
    """Fuzz these, and say what came of it."""
    seconds = max(1, round(minutes * 60 * jobs / len(names)))
    begun, broken = time.monotonic(), 0
    inputs: dict[str, int] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for name, runs, found, said in pool.map(lambda each: fuzz(each, seconds), names):
            inputs[name] = runs
            print(f"{name}: {runs:,} inputs{', BROKEN' if said else ''}", flush=True)
            if said:
                broken += 1
                print(said)
            for path in found:
                print(f"  {path}")
    taken = round(time.monotonic() - begun)
    print(json.dumps({"inputs": sum(inputs.values()), "targets": len(names), "broken": broken, "seconds": taken}))
    return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--replay", type=Path, help="run one target on this file")
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        sys.exit(f"tests.fuzz has no target {', '.join(sorted(unknown))}; it has {', '.join(TARGETS)}")
    if given.replay is not None:
        wrong = [problem(name, given.replay.read_bytes()) for name in given.targets or TARGETS]
        print("\n".join(filter(None, wrong)) or "holds")
        sys.exit(1 if any(wrong) else 0)
    try:
        import atheris  # noqa: F401 - whether it is there
    except ImportError:
        sys.exit('tests.fuzz needs atheris, which is not installed: pip install -e ".[fuzz]" (CPython 3.11 to 3.13)')
    sys.exit(main(given.targets or list(TARGETS), given.minutes, given.jobs))
