"""What a seed stands for: workers, runs with their programs and clients, and faults, as data that can be made smaller."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.simulation.drawing import draw
from tests.simulation.programs import kinds_of

__all__ = ["Burst", "Fault", "Repair", "Run", "Scenario", "Sweep", "count_of", "scenario_of", "text_of"]

TTL_SECONDS = 10.0
COUNTED = ("die before", "die after", "refuse", "lose reply")
TIMED = ("kill", "freeze", "stall", "restart", "step")


class Fault(Struct, frozen=True):
    """One thing that goes wrong, once."""

    kind: str
    slot: int  # of the worker, or of the client behind the workers
    at: float  # the number of the call of the store (of a commit, for deaths), or a time in seconds
    much: float = 0  # seconds: of a freeze, a stall or a step


class Repair(Struct, frozen=True):
    """What the client of a run does about it once it has ended."""

    kind: str  # reopen, rerun, fork or what-if
    behind: float  # seconds since its end, or since the end of what came of the repair before
    of: str = "run"  # or the last copy that was made of it, or a child
    part: float = 0  # of its history that a fork lives through; of its children, those before the one that it is of
    given: bool = False  # whether the fork is given the outcome that stands there, if one does


class Run(Struct, frozen=True):
    """One run and its client."""

    epochs: tuple[Any, ...]  # programs
    start_at: float
    signals: tuple[float, ...] = ()  # when each is sent
    first: int = 0  # how many are sent with the start, beside those
    takes: tuple[float, ...] = ()  # when each request is sent that the program takes by hand
    asks: tuple[tuple[float, int], ...] = ()  # when each is sent that it serves, and its argument
    child_asks: tuple[tuple[float, int], ...] = ()  # likewise, of each child: how long after it was seen
    reads: tuple[float, ...] = ()  # when somebody looks at what it has published
    cancel_at: float | None = None
    terminate_at: float | None = None
    pause: tuple[float, float] | None = None  # when it is paused and let go on
    children: tuple[float, float] | None = None  # likewise: those of its children that have not ended then
    delay: float | None = None  # seconds from its start until it may begin
    deadline: float | None = None  # seconds from its start until its code is asked to end
    key: str = ""  # of which one run at a time has begun
    on_conflict: str = "queue"  # what its client says of others with the key
    repairs: tuple[Repair, ...] = ()


class Burst(Struct, frozen=True):
    """Debounced calls with one key."""

    calls: tuple[float, ...]  # when each is made
    seconds: float
    longest: float | None
    callers: int = 1  # who make them in turn


class Sweep(Struct, frozen=True):
    """Something that is taken away of a run."""

    kind: str  # prune, or forget: its values
    at: float
    part: float  # of those that have ended, or have not, those before the one that it is of
    open: bool = False  # of those that have not, and are left as they are


class Scenario(Struct, frozen=True):
    """Everything that a play depends on, beside the code."""

    seed: int
    workers: int
    runs: tuple[Run, ...]
    faults: tuple[Fault, ...]
    order: str = "processes"  # fifo, processes or branches: see `loops`
    delays: str = "none"
    slots: int = 2  # of the pool
    tight: tuple[float, float, int] | None = None  # from when to when it has only so many
    rate: tuple[int, float] = (5, 1)  # starts in so many seconds
    cached: int = 100
    concurrency: int = 100
    skew: float = 0  # seconds between the clocks of two workers
    burst: Burst | None = None
    assets: bool = False  # whether a few are materialized beside the runs
    chunk: int = 1_000  # events of one commit at most: a larger step is several, and a crash may come between

    sweeps: tuple[Sweep, ...] = ()

    @property
    def sweeper(self) -> int:
        """The slot of whoever takes something away: behind the clients, and whoever wants assets."""
        return self.workers + len(self.runs) + 1

    @property
    def first_caller(self) -> int:
        """The slot of whoever debounces first."""
        return self.sweeper + 1

    @property
    def slots_all(self) -> int:
        """Of whoever has an engine."""
        return self.first_caller + (self.burst.callers if self.burst is not None else 0)


def scenario_of(seed: int) -> Scenario:
    """The same for the same seed, in every process."""
    chance = Random(f"scenario {seed}")
    workers = chance.choice([1, 2, 2, 3])
    runs = tuple(_run(chance) for _ in range(chance.choice([1, 1, 2, 2, 3])))
    if chance.random() < 0.2:
        runs = tuple(_single(chance, run) for run in (*runs, _run(chance)))
    worst = chance.choice([0, 3, 6, 12])
    faults = [_fault(chance, workers + len(runs), workers) for _ in range(chance.randint(0, worst))]
    drawn = Scenario(
        seed=seed,
        workers=workers,
        runs=runs,
        faults=tuple(faults),
        order=chance.choice(["fifo", "processes", "processes", "branches"]),
        delays=chance.choice(["none", "short", "short", "long"]),
        slots=chance.choice([1, 1, 2, 3]),
        tight=(*_pause(chance, 0), chance.choice([0, 1])) if chance.random() < 0.1 else None,
        rate=chance.choice([(1, 1), (1, 4), (2, 3), (5, 1)]),
        cached=chance.choice([0, 1, 100]),
        concurrency=chance.choice([1, 3, 100]),
        skew=chance.choice([0, 0, 0, 0.5, 4]),
        chunk=chance.choice([1, 3, 1_000, 1_000]),
        assets=chance.random() < 0.12,
        burst=_burst(chance) if chance.random() < 0.15 else None,
        sweeps=_sweeps(chance) if chance.random() < 0.15 else (),
    )
    if chance.random() < 0.1:
        return replace(drawn, faults=_storm(chance, workers))
    others = [*range(drawn.first_caller, drawn.slots_all), *([drawn.sweeper] if drawn.sweeps else [])]
    if others:
        more = [_fault_of(chance, chance.choice(others), 3) for _ in range(chance.choice([2, 4, 8]))]
        return replace(drawn, faults=(*drawn.faults, *more))
    return drawn


def _sweeps(chance: Random) -> tuple[Sweep, ...]:
    drawn = [
        Sweep(
            chance.choice(["prune", "prune", "forget"]),
            chance.random() * chance.choice([5, 20, 60]),
            chance.random(),
            chance.random() < 0.15,
        )
        for _ in range(chance.choice([1, 2, 4]))
    ]
    return tuple(sorted(drawn, key=lambda sweep: sweep.at))


def _burst(chance: Random) -> Burst:
    seconds = chance.choice([0.5, 2, 12])
    gaps = [chance.choice([0, 0.3, 0.9, 1, 1.5]) * seconds * chance.choice([1, chance.random()]) for _ in range(5)]
    calls = [chance.random() * 3]
    for gap in gaps[: chance.randint(1, 5)]:
        calls.append(calls[-1] + gap)
    return Burst(tuple(calls), seconds, chance.choice([None, seconds, 2 * seconds]), chance.choice([1, 1, 2]))


def _storm(chance: Random, workers: int) -> tuple[Fault, ...]:
    """Every worker dies every few commits, for a while: runs are suspects, tried alone, and parked."""
    every = chance.choice([1, 2, 3, 5])
    kinds = [chance.choice(["die before", "die after"]) for _ in range(8)]
    return tuple(Fault(kind, slot, every * n) for slot in range(workers) for n, kind in enumerate(kinds, 1))


def _run(chance: Random) -> Run:
    epochs = tuple(draw(chance, chance.choice([2, 4, 6, 9])) for _ in range(chance.choice([1, 1, 1, 2])))
    start = chance.random() * 3
    wanted = count_of("receive", epochs)
    asks = chance.randint(1, 4) if count_of("serve", epochs) or chance.random() < 0.05 else 0
    reads = chance.randint(1, 4) if count_of("publish", epochs) or count_of("mark", epochs) else 0
    takes = count_of("take", epochs)
    takes += chance.choice([0, 0, 1]) if takes else 0
    children = sum(count_of(kind, epochs) for kind in ("child", "spawn", "guide"))
    return Run(
        epochs=epochs,
        start_at=start,
        signals=_times(chance, start, wanted),
        first=chance.randint(1, 3) if chance.random() < 0.15 else 0,
        reads=_times(chance, start, reads),
        takes=_times(chance, start, takes),
        asks=tuple((at, chance.randint(-1, 7)) for at in _times(chance, start, asks)),
        child_asks=_child_asks(chance) if count_of("child", epochs) + count_of("spawn", epochs) else (),
        cancel_at=start + chance.random() * chance.choice([1, 20]) if chance.random() < 0.2 else None,
        terminate_at=start + chance.random() * chance.choice([1, 20]) if chance.random() < 0.12 else None,
        pause=_pause(chance, start) if chance.random() < 0.2 else None,
        children=_pause(chance, start) if chance.random() < 0.1 else None,
        delay=(delay := chance.choice([0, 0.5, 3, 25]) if chance.random() < 0.15 else None),
        deadline=(delay or 0) + chance.choice([0.5, 2, 10, 60]) if chance.random() < 0.15 else None,
        repairs=_repairs(chance, children=bool(children))
        if chance.random() < (0.7 if count_of("outage", epochs) else 0.3)
        else (),
    )


def _child_asks(chance: Random) -> tuple[tuple[float, int], ...]:
    return tuple(
        (chance.random() * chance.choice([0, 2, 10]), chance.randint(-1, 7)) for _ in range(chance.choice([0, 1, 3]))
    )


def _repairs(chance: Random, *, children: bool) -> tuple[Repair, ...]:
    drawn: list[Repair] = []
    for _ in range(chance.choice([1, 1, 2, 3, 4])):
        of = ["run", "run", *(["child"] * 2 if children else [])]
        of += ["copy"] * 3 if any(each.kind in ("rerun", "fork") for each in drawn) else []
        drawn.append(
            Repair(
                chance.choice(["reopen", "reopen", "rerun", "fork", "fork", "fork", "what-if"]),
                chance.choice([0, 0, 1, 15]),
                of=chance.choice(of),
                part=chance.random(),
                given=chance.random() < 0.5,
            )
        )
    return tuple(drawn)


def _single(chance: Random, run: Run) -> Run:
    """One of a few that exclude each other; or, seldom, one of none of them."""
    if chance.random() < 0.1:
        return run
    policy = chance.choice(["queue", "queue", "queue", "replace", "reject", "attach"])
    return replace(run, key="key", on_conflict=policy)


def _times(chance: Random, start: float, count: int) -> tuple[float, ...]:
    return tuple(sorted(start + chance.random() * chance.choice([1, 4, 30]) for _ in range(count)))


def count_of(kind: str, epochs: tuple[Any, ...]) -> int:
    """How many nodes of that kind its programs have."""
    return sum(kinds_of(program).count(kind) for program in epochs)


def _pause(chance: Random, start: float) -> tuple[float, float]:
    begin = start + chance.random() * 5
    return begin, begin + chance.random() * 20


def _fault(chance: Random, slots: int, workers: int) -> Fault:
    # Most befall workers; a client's store fails as well.
    return _fault_of(chance, chance.randrange(workers) if chance.random() < 0.75 else chance.randrange(slots))


def _fault_of(chance: Random, slot: int, calls: int = 100) -> Fault:
    """What befalls whoever is in that slot, who makes about so many calls."""
    kind = chance.choice(COUNTED * 2 + TIMED)
    if kind in COUNTED:
        longest = (4, 12, 25) if kind.startswith("die") else (6, 20, 100)  # half of the calls are no commits
        longest = longest if calls == 100 else (calls, 2 * calls, 4 * calls)
        return Fault(kind, slot, chance.randint(1, chance.choice(longest)))
    at = chance.random() * chance.choice([3, 10, 60])
    much = {
        "freeze": chance.choice([0.5, TTL_SECONDS - 1, TTL_SECONDS + 1, 30]),
        "stall": chance.choice([TTL_SECONDS - 1, TTL_SECONDS + 1, 30]),
        "step": chance.choice([-20, -1, 1, 20]),
        "kill": chance.choice([0, 1]),  # 1: nobody sees that it died, until its lease lapses
    }.get(kind, 0)
    return Fault(kind, slot, at, much)


def text_of(scenario: Scenario) -> str:
    """To be read."""
    machine = (
        f"{scenario.workers} worker(s), order {scenario.order}, delays {scenario.delays}, {scenario.slots} slot(s),"
        f" {scenario.rate[0]} start(s) in {scenario.rate[1]:g} s,"
        f" cached {scenario.cached}, concurrency {scenario.concurrency}, skew {scenario.skew:g} s,"
        f" commits of {scenario.chunk:,} events at most" + (", and assets" if scenario.assets else "")
    )
    lines = [machine]
    if scenario.tight is not None:
        lines.append("{2} slot(s) from {0:.3f} until {1:.3f}".format(*scenario.tight))
    if scenario.burst is not None:
        lines.append(f"debounced: {scenario.burst}")
    lines += [f"{sweep.kind} at {sweep.at:.3f}: {sweep}" for sweep in scenario.sweeps]
    for number, run in enumerate(scenario.runs):
        what = [f"run r{number}: started at {run.start_at:.3f} s"]
        what += [] if run.delay is None else [f"delayed by {run.delay:g} s"]
        what += [] if run.deadline is None else [f"to be done in {run.deadline:g} s"]
        what += [f"with the {run.key} ({run.on_conflict})"] if run.key else []
        what += [f"told {run.first} with its start"] if run.first else []
        what += [f"told at {at:.3f}" for at in run.signals]
        what += [f"looked at at {at:.3f}" for at in run.reads]
        what += [f"asked at {at:.3f}" for at in run.takes]
        what += [f"asked {value} at {at:.3f}" for at, value in run.asks]
        what += [f"its children asked {value} behind {seconds:.3f} s" for seconds, value in run.child_asks]
        what += [] if run.cancel_at is None else [f"cancelled at {run.cancel_at:.3f}"]
        what += [] if run.terminate_at is None else [f"terminated at {run.terminate_at:.3f}"]
        what += [] if run.pause is None else [f"paused at {run.pause[0]:.3f} until {run.pause[1]:.3f}"]
        if run.children is not None:
            what.append(f"its children paused at {run.children[0]:.3f} until {run.children[1]:.3f}")
        what += [_repair_text(repair) for repair in run.repairs]
        lines.append(", ".join(what))
        for program in run.epochs:
            lines += _program(program, "    ")
    lines += [_fault_text(scenario, fault) for fault in scenario.faults] or ["no faults"]
    return "\n".join(lines)


def _repair_text(repair: Repair) -> str:
    cut = f" at {repair.part:.0%}" if repair.kind in ("fork", "what-if") or repair.of == "child" else ""
    cut += " with an outcome" * (repair.given and repair.kind in ("fork", "what-if"))
    return f"then {repair.kind} of the {repair.of}{cut} behind {repair.behind:g} s"


def _fault_text(scenario: Scenario, fault: Fault) -> str:
    who = f"worker {fault.slot}" if fault.slot < scenario.workers else f"client {fault.slot - scenario.workers}"
    who = "sweeper" if fault.slot == scenario.sweeper else who
    who = f"caller {fault.slot - scenario.first_caller}" if fault.slot >= scenario.first_caller else who
    if fault.kind in COUNTED:
        return f"fault: {who}: {fault.kind} {'commit' if fault.kind.startswith('die') else 'call'} {fault.at:g}"
    return f"fault: {who}: {fault.kind} at {fault.at:.3f} s" + (f", {fault.much:g}" if fault.much else "")


def _program(program: Any, indent: str) -> list[str]:
    children = [part for part in program[2:] if isinstance(part, list)]
    own = [part for part in program[:] if not isinstance(part, list)]
    lines = [indent + " ".join(part if isinstance(part, str) else json.dumps(part) for part in own)]
    for child in children:
        lines += _program(child, indent + "  ")
    return lines
