"""``python -m tests.linear [--minutes M] [--processes P] [--seed S]``: rounds of several processes on one SQLite file, whose
recorded operations must be linearizable.

Commits that expect a version and consume mail, heads, readings, sends, claims, fenced writes and permits. A round that is
not explained by any order is printed with its seed, and its history is kept; exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from eventstore.urls import open_store
from tests.linear.checker import Op, not_linearizable
from tests.linear.client import set_up


def recorded(folder: Path, processes: int, seed: int, *, seconds: float, operations: int) -> list[Op]:
    """What clients in so many processes saw of a store of their own."""
    url = f"sqlite:///{folder / 'store.db'}"

    async def begin() -> None:
        store = await open_store(url)
        try:
            await set_up(store)
        finally:
            await store.aclose()

    asyncio.run(begin())
    files = [folder / f"p{number}" for number in range(processes)]
    started = [
        subprocess.Popen([sys.executable, "-m", "tests.linear.client", url, file, f"{file.name}.", str(seed), str(seconds), str(operations)])
        for file in files
    ]  # fmt: skip
    codes = [process.wait() for process in started]
    assert not any(codes), f"seed {seed}: a client ended with {codes}"
    return [op for file in files for op in msgspec.json.decode(file.read_bytes(), type=list[Op])]


def main(minutes: float, processes: int, seed: int) -> int:
    begun = time.monotonic()
    rounds = operations = overlapping = 0
    while time.monotonic() - begun < minutes * 60:
        with tempfile.TemporaryDirectory(prefix="linear-") as folder:
            ops = recorded(Path(folder), processes, seed + rounds, seconds=10.0, operations=400)
        wrong = not_linearizable(ops)
        if wrong is not None:
            kept = Path(tempfile.gettempdir(), f"linear-{seed + rounds}.json")
            kept.write_bytes(msgspec.json.encode(ops))
            print(f"seed {seed + rounds}: {wrong}\nthe history is in {kept}")
            return 1
        rounds += 1
        operations += len(ops)
        ends = sorted((op.start, op.end or op.start) for op in ops)
        overlapping += sum(one[1] > other[0] for one, other in zip(ends, ends[1:], strict=False))
    print(
        json.dumps(
            {
                "rounds": rounds,
                "operations": operations,
                "begun while another was under way": overlapping,
                "seconds": round(time.monotonic() - begun),
            }
        )
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(main(given.minutes, given.processes, given.seed))
