"""The tables: ratios of speed, with Holdfast as 1, and how the killed runs ended; what is not claimed says why.

A ratio is made within one round, of two measurements that stand beside each other in time; what is shown is the median
of the rounds. More is faster, in every row.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.peers import PEERS, PROGRAM_WORDS, PROGRAMS, WORKLOAD_WORDS, WORKLOADS
from benchmarks.peers.speed import BY_HAND, Measured

ORIGIN = "holdfast"
OUTCOMES = ("right", "wrong", "failed", "never")
OUTCOME_WORDS = {"right": "right", "wrong": "wrong", "failed": "failed", "never": "never ended"}

RIGHT = """\
* Right: the run ends before its deadline, with a result that the program has when nobody kills it, and whatever acted
  on a choice or on joined values never began with another value than the one in the result.
* Wrong: it ends as a success, but not right. Failed: it ends with an error. Never ended: not within {deadline} s of its
  resumption.
* Again (beside the outcome; such a run may end right): a task ran again that had completed, which means that a task
  which was given its value had begun already. One whose body ended, but was not recorded, may run again anywhere."""


def ratios(values: Sequence[float | None], origin: Sequence[float | None], *, seconds: bool) -> list[float]:
    """How many times as fast as the origin, round by round; rounds in which one of them did not end are left out."""
    pairs = [(value, of) for value, of in zip(values, origin, strict=True) if value and of]
    return [of / value if seconds else value / of for value, of in pairs]


def speed_cell(values: Sequence[float | None], origin: Sequence[float | None], unit: str) -> str:
    """The median ratio, and the median number in its unit."""
    made = ratios(values, origin, seconds=unit == "s")
    if not made:
        return "did not end"
    number = statistics.median(value for value in values if value)
    return f"{short(statistics.median(made))} ({short(number)} {unit})"


def short(number: float) -> str:
    """Two significant digits, more only before the point."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def speed_table(measured: Measured) -> str:
    """Workloads down, peers across."""
    columns = [name for name in (BY_HAND, *PEERS) if any(name in measured[workload] for workload in WORKLOADS)]
    lines = [["", *(title(name) for name in columns)]]
    for workload in WORKLOADS:
        words, unit = WORKLOAD_WORDS[workload]
        found = measured[workload]
        origin = found.get(ORIGIN)
        if origin is None:
            continue
        lines.append([words, *(speed_cell(found[name], origin, unit) if name in found else "-" for name in columns)])
    return markdown(lines)


def crash_table(crashes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Programs down, peers across; under it, why what is not claimed is not."""
    columns = [name for name in PEERS if any(name in found for found in crashes.values())]
    reasons: list[str] = []
    lines = [["", *(title(name) for name in columns)]]
    for program in PROGRAMS:
        cells = [crash_cell(name, program, crashes.get(program, {}).get(name), reasons) for name in columns]
        lines.append([PROGRAM_WORDS[program], *cells])
    notes = "\n".join(f"[{number}] not claimed: {reason}." for number, reason in enumerate(reasons, 1))
    return markdown(lines) + (f"\n\n{notes}" if notes else "")


def crash_cell(name: str, program: str, found: Mapping[str, Any] | None, reasons: list[str]) -> str:
    """How many of the runs ended how; a reason that is new gets the next number."""
    reason = PEERS[name].not_claimed.get(program)
    claim = ""
    if reason is not None:
        if reason not in reasons:
            reasons.append(reason)
        claim = f"not claimed [{reasons.index(reason) + 1}]"
    if found is None:
        return claim or "-"
    counted = counts(found)
    return f"{claim}: {counted}" if claim else counted


def counts(found: Mapping[str, Any]) -> str:
    """Outcomes that occurred, and runs in which a completed task ran again."""
    outcomes = [verdict["outcome"] for verdict in found["verdicts"]]
    parts = [
        f"{outcomes.count(each)} {OUTCOME_WORDS[each]}" for each in OUTCOMES if each == "right" or each in outcomes
    ]
    again = sum(bool(verdict["ran_again"]) for verdict in found["verdicts"])
    return ", ".join(parts + ([f"{again} again"] if again else []))


def title(name: str) -> str:
    """What stands over a column."""
    return BY_HAND if name == BY_HAND else PEERS[name].title


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; the first line is its head."""
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest])


def report(results: Mapping[str, Any]) -> str:
    """All that is printed, from what was measured."""
    load = results["load"]
    parts = [
        f"{results['date']}, {results['machine']}, load {min(load)} to {max(load)}.",
        "\n".join(f"* {title(name)}: {found}" for name, found in results["versions"].items()),
        *_speed(results["speed"]),
        *_crashes(results["crashes"], results["deadline_seconds"]),
    ]
    return "\n\n".join(parts) + "\n"


def _speed(measured: Measured) -> list[str]:
    if not measured:
        return []
    rounds = max(len(each) for found in measured.values() for each in found.values())
    shown = [peer for peer in PEERS.values() if any(peer.name in found for found in measured.values())]
    return [
        f"Times as fast as Holdfast (more is faster; median of {rounds} rounds), and what was measured:",
        speed_table(measured),
        "\n".join(f"* {peer.title}: {peer.durability}. Sizes: {sizes(peer.sizes)}." for peer in shown),
    ]


def _crashes(crashes: Mapping[str, Mapping[str, Mapping[str, Any]]], deadline: float) -> list[str]:
    if not crashes:
        return []
    runs = max(len(found["verdicts"]) for each in crashes.values() for found in each.values())
    return [
        f"Of {runs} runs each, killed (kill -9) at a random moment and resumed:",
        crash_table(crashes),
        RIGHT.format(deadline=deadline),
    ]


def sizes(of: Mapping[str, int]) -> str:
    """The sizes of a peer's workloads, in words."""
    return f"{of['steps']} steps, {of['many']} runs, fan-out of {of['fan_out']}, resume of {of['resume']} steps"
