"""How fast: each workload in a process of its own, peers in turn within each round, the same rows by hand beside them.

What is timed is from the first start of a run to its result, with the engine open: starting Python, importing and
opening are not in it. The exception is resuming: from starting the process that resumes to the first new step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peers.children import Child
from benchmarks.peers.peers import PEERS, STEPS_OF_MANY, WORKLOADS, Peer

LONGEST_SECONDS = 600
BY_HAND = "by hand"

Measured = dict[str, dict[str, list[float | None]]]
"""Workload, then peer, then a number for each round: a rate, or seconds for resuming. None: it did not end."""


def measure(
    names: Sequence[str],
    pythons: Mapping[str, Path],
    settings: Mapping[str, Mapping[str, str]],
    folder: Path,
    *,
    rounds: int,
    scale: float,
) -> Iterator[Measured]:
    """All that is measured so far, after each round. `scale` makes the sizes smaller, for a look."""
    measured: Measured = {workload: {} for workload in WORKLOADS}
    for number in range(rounds):
        for workload in WORKLOADS:
            for name in names:
                peer = PEERS[name]
                if workload not in peer.sizes:
                    continue
                where = folder / f"speed-{number}-{workload}-{name}"
                where.mkdir()
                python, env = pythons[peer.environment], settings[peer.environment]
                found = one(peer, workload, python, env, where, size=max(2, round(peer.sizes[workload] * scale)))
                measured[workload].setdefault(name, []).append(found)
                if name == "holdfast" and workload != "resume":
                    by_hand = _by_hand(workload, python, where, size=max(2, round(peer.sizes[workload] * scale)))
                    measured[workload].setdefault(BY_HAND, []).append(by_hand)
                    print(f"round {number + 1}: {workload}, {BY_HAND}: {by_hand}", file=sys.stderr, flush=True)
                print(f"round {number + 1}: {workload}, {name}: {found}", file=sys.stderr, flush=True)
        yield measured


def one(peer: Peer, workload: str, python: Path, env: Mapping[str, str], folder: Path, *, size: int) -> float | None:
    """One number of one peer."""
    if workload == "resume":
        return _resume(peer, python, env, folder, size=peer.sizes[workload])
    arguments = {**peer.options, "count": size}
    if workload == "many":
        arguments |= {"count": STEPS_OF_MANY, "runs": size}
        arguments |= {} if peer.at_once is None else {"at_once": peer.at_once}
    with Child(python, peer.program, workload, folder, arguments, env) as child:
        seconds = child.said("seconds", timeout=LONGEST_SECONDS)
    return None if seconds is None else size / seconds


def _resume(peer: Peer, python: Path, env: Mapping[str, str], folder: Path, *, size: int) -> float | None:
    """A run of so many steps dies in the one in the middle; from starting the next process to that step's body."""
    arguments = {**peer.options, "count": size}
    dying = {**env, "PEERS_STOP_AT": f"{size // 2} die"}
    with Child(python, peer.program, "stopped", folder, arguments, dying) as child:
        if not child.ended(timeout=LONGEST_SECONDS):
            return None
    started = time.time()
    going_on = {**env, "PEERS_STOP_AT": f"{size // 2} say"}
    with Child(python, peer.program, "stopped", folder, arguments, going_on) as child:
        reached = child.said("reached", timeout=LONGEST_SECONDS)
        child.ended(timeout=LONGEST_SECONDS)
    return None if reached is None else reached - started


def _by_hand(workload: str, python: Path, folder: Path, *, size: int) -> float | None:
    """The rows that Holdfast has just written there, written again by hand."""
    with Child(
        python, PEERS["holdfast"].program, "by_hand", folder, {"workload": workload, "count": size}, {}
    ) as child:
        per_second: float | None = child.said("per_second", timeout=LONGEST_SECONDS)
    return per_second
