"""How many end right: each program is started, killed at a random moment, resumed as that peer says, and judged.

The moment is drawn from the time that an undisturbed run takes (the median of three, which must be right themselves). A
run that had ended before the kill came is not counted: it is made again with another moment.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.children import Child
from benchmarks.peers.judge import Verdict, effects_of, judge
from benchmarks.peers.peers import PEERS, Peer

DEADLINE_SECONDS = 30
READY_SECONDS = 120
UNDISTURBED = 3
TRIES = 10


@dataclass
class Crashes:
    """What became of the runs of one program on one peer."""

    verdicts: list[Verdict] = field(default_factory=list)
    undisturbed_seconds: float = 0.0
    undisturbed_right: bool = True
    missed: int = 0  # kills that came too late, made again

    def count(self, outcome: str) -> int:
        return sum(verdict.outcome == outcome for verdict in self.verdicts)

    @property
    def again(self) -> int:
        """Runs in which a completed task ran again."""
        return sum(bool(verdict.ran_again) for verdict in self.verdicts)


class Trial:
    """One peer and one program: where its processes run and what they find."""

    def __init__(self, peer: Peer, program: str, python: Path, env: Mapping[str, str], folder: Path) -> None:
        self._peer = peer
        self._program = program
        self._python = python
        self._env = dict(env)
        self._folder = folder

    def undisturbed(self, number: int) -> tuple[Verdict, float]:
        """A run that nobody kills, and its seconds."""
        folder = self._new(f"undisturbed-{number}")
        with self._child(folder) as child:
            child.said("ready", timeout=READY_SECONDS)
            started = time.monotonic()
            result = child.said("result", timeout=DEADLINE_SECONDS)
            seconds = time.monotonic() - started
        return self._judged(folder, result, "it did not end"), seconds

    def killed(self, name: str, after: float) -> Verdict | None:
        """A run that is killed so many seconds after it was ready, and resumed; None if it had ended by then."""
        folder = self._new(name)
        with self._child(folder) as child:
            if child.said("ready", timeout=READY_SECONDS) is None:
                return Verdict("failed", (), "it did not begin")
            if child.said("result", timeout=after) is not None:
                return None
            if child.ended(timeout=0):
                return Verdict("failed", (), f"it ended before it was killed: {self._last_error(folder)}")
        with self._child(folder) as child:
            result = child.said("result", timeout=DEADLINE_SECONDS)
            gave_up = result is None and child.ended(timeout=0.5)
        return self._judged(folder, result, self._last_error(folder) if gave_up else None)

    def _new(self, name: str) -> Path:
        folder = self._folder / f"{self._peer.name}-{self._program}-{name}"
        folder.mkdir()
        return folder

    def _child(self, folder: Path) -> Child:
        arguments = {"name": self._peer.crash_programs[self._program]}
        env = {**self._env, "PEERS_EFFECTS": str(folder / "effects")}
        return Child(self._python, self._peer.program, "program", folder, arguments, env)

    def _judged(self, folder: Path, result: str | None, error: str | None) -> Verdict:
        path = folder / "effects"
        effects = effects_of(path.read_text(encoding="utf-8")) if path.exists() else []
        return judge(self._program, effects, result=result, error=error if result is None else None)

    def _last_error(self, folder: Path) -> str:
        lines = (folder / "program.stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it ended without a result"


def crash(
    peer: Peer, program: str, python: Path, env: Mapping[str, str], folder: Path, *, runs: int, jobs: int, seed: int
) -> Crashes:
    """So many runs of one program on one peer, each killed once; `jobs` of them at a time."""
    found = Crashes()
    trial = Trial(peer, program, python, env, folder)
    undisturbed = [trial.undisturbed(number) for number in range(UNDISTURBED)]
    found.undisturbed_right = all(verdict.outcome == "right" for verdict, _ in undisturbed)
    found.undisturbed_seconds = statistics.median(seconds for _, seconds in undisturbed)
    chance = random.Random(f"{seed} {peer.name} {program}")
    moments = [[chance.uniform(0, found.undisturbed_seconds) for _ in range(TRIES)] for _ in range(runs)]
    lock = threading.Lock()

    def one(number: int) -> Verdict:
        for attempt, after in enumerate(moments[number]):
            verdict = trial.killed(f"{number}-{attempt}", after)
            if verdict is not None:
                return verdict
            with lock:
                found.missed += 1
        return Verdict("failed", (), f"it had ended before each of {TRIES} kills")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            found.verdicts = list(pool.map(one, range(runs)))
        except BaseException:  # interrupted: the runs that have not begun must not hold it up
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def all_crashes(
    names: list[str],
    pythons: Mapping[str, Path],
    settings: Mapping[str, Mapping[str, str]],
    folder: Path,
    *,
    runs: int,
    jobs: int,
    seed: int,
) -> Iterator[tuple[str, str, Crashes]]:
    """Program, peer, and what became of its runs; one after the other."""
    for name in names:
        peer = PEERS[name]
        for program in peer.crash_programs:
            python, env = pythons[peer.environment], settings[peer.environment]
            started = time.monotonic()
            crashes = crash(peer, program, python, env, folder, runs=runs, jobs=jobs, seed=seed)
            yield program, name, crashes
            print(
                f"{name}, {program}: {crashes.count('right')} of {runs} right in {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
