"""`gate`: what was found of all runs, folded as it comes, and told to a person or a program."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from msgspec import Struct, field, to_builtins

from engine import Diagnosis, Gate, RunSummary, Verdict
from engine.cli.bar import Bar
from engine.cli.gate_runs import FEW_RUNS, Hands, check, workflows_of
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import counted
from engine.cli.summary import diagnosis_view
from engine.cli.targets import Target
from engine.cli.words import FINAL
from eventstore import EventStore, SystemClock
from eventstore.urls import shown_url

__all__ = ["Findings", "gate", "progress"]

_KINDS_MAX: Final = 1_000
"""Kinds of breaks that are kept apart; more are counted only."""
_KINDS_SHOWN: Final = 10
_RUNS_SHOWN: Final = 5


class Kind(Struct):
    """Runs that break in the same way: the same workflow, at the same place of the code. One diagnosis for all."""

    workflow: str
    diagnosis: Diagnosis
    count: int = 0
    runs: list[str] = field(default_factory=list)  # the first of them


class Findings(Struct):
    """What was found so far."""

    replayed: int = 0
    closed: int = 0  # of those, runs that have ended
    broken: int = 0
    ahead: int = 0  # fit, and would take decisions at once
    ahead_runs: list[str] = field(default_factory=list)  # the first of them
    # Runs not replayed, by the workflow that is not there, and the version of it that they are on.
    unknown: dict[tuple[str, str], int] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    uncounted: int = 0  # breaks of further kinds

    def take(self, verdict: Verdict) -> None:
        """One run more."""
        if not verdict.known:
            self.leave_out(verdict.workflow, verdict.workflow_version)
            return
        self.replayed += 1
        self.closed += verdict.status in FINAL
        if verdict.diagnosis is not None:
            self.broken += 1
            self._sort(verdict, verdict.diagnosis)
        elif verdict.ahead:
            self.ahead += 1
            self.ahead_runs += [verdict.run] if len(self.ahead_runs) < _RUNS_SHOWN else []

    def leave_out(self, workflow: str, version: str) -> None:
        """One run that is not replayed, of a workflow that is not there."""
        key = workflow, version
        self.unknown[key] = self.unknown.get(key, 0) + 1

    def _sort(self, verdict: Verdict, diagnosis: Diagnosis) -> None:
        key = _place(verdict.workflow, diagnosis)
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= _KINDS_MAX:
                self.uncounted += 1
                return
            kind = self.kinds[key] = Kind(verdict.workflow, diagnosis)
        kind.count += 1
        kind.runs += [verdict.run] if len(kind.runs) < _RUNS_SHOWN else []


def _place(workflow: str, diagnosis: Diagnosis) -> str:
    """What breaks of one kind have in common; arguments and ids are each run's own."""
    if not diagnosis.differences:
        words = "".join("#" if letter.isdigit() else letter for letter in diagnosis.message)
        return f"{workflow}\0{diagnosis.reason}\0{words}"
    sites = "\0".join(
        f"{each.recorded.partition('(')[0]}\0{each.recorded_site}\0{each.decided_site}"
        for each in diagnosis.differences[:3]
    )
    return f"{workflow}\0{diagnosis.reason}\0{sites}"


async def gate(
    store: EventStore, target: Target, output: Output, *, url: str, closed: int, processes: int | None
) -> Exit:
    """Replay them all, and say what was found."""
    findings, bar = Findings(), Bar(output, SystemClock())

    def take(verdict: Verdict) -> None:
        findings.take(verdict)
        bar.tell(findings.replayed, partial(progress, findings))
        if output.json and verdict.diagnosis is not None:
            output.document(_document(verdict))

    async with Gate(store, workflows_of(target)) as here:
        with bar:
            async for verdict in _verdicts(here, target, findings, url=url, closed=closed, processes=processes):
                take(verdict)
            async for verdict in _shown(here, findings, closed=closed):
                take(verdict)
    if output.json:
        output.document(_sums(findings, bar.seconds))
    else:
        _tell(output, findings, target, url, bar.seconds)
    return Exit.SUSPENDED if findings.broken else Exit.COMPLETED


async def _verdicts(
    gate: Gate, target: Target, findings: Findings, *, url: str, closed: int, processes: int | None
) -> AsyncIterator[Verdict]:
    """Of all runs: found here, or by other processes where there are many. The others are counted in `findings`."""
    runs = gate.runs(closed=closed)
    first: list[RunSummary] = []
    while len(first) <= FEW_RUNS and (run := await anext(runs, None)) is not None:
        first.append(run)

    async def all_of_them() -> AsyncIterator[RunSummary]:
        async for each in _behind(first, runs):
            key = each.workflow, each.workflow_version
            if key in findings.unknown or not gate.knows(*key):
                findings.leave_out(*key)  # one that is shown meanwhile is for afterwards, with all of its runs
            else:
                yield each

    many = len(first) > FEW_RUNS if processes is None else processes > 1
    if many:
        hands = Hands(target.text, url, processes or os.cpu_count() or 1)
        async for verdict in hands.check(all_of_them()):
            yield verdict
        for teacher in hands.teachers:
            await check(gate, teacher)
        return
    async for each in all_of_them():
        if (verdict_ := await check(gate, each.id)) is not None:
            yield verdict_


async def _shown(gate: Gate, findings: Findings, *, closed: int) -> AsyncIterator[Verdict]:
    """Of workflows that are made while others run: known since a run has shown them."""
    while shown := {key for key in findings.unknown if gate.knows(*key)}:
        for key in shown:
            del findings.unknown[key]
        async for run in gate.runs(closed=closed):
            if (run.workflow, run.workflow_version) in shown and (again := await check(gate, run.id)) is not None:
                yield again


async def _behind(first: list[RunSummary], rest: AsyncIterator[RunSummary]) -> AsyncIterator[RunSummary]:
    for each in first:
        yield each
    async for each in rest:
        yield each


# ------------------------------------------------------------------------------------------------ what is said


def progress(findings: Findings, rate: float) -> str:
    """How far it is; `rate`: runs in a second."""
    return f"replayed {findings.replayed:,} runs ({rate:,.0f}/s), {findings.broken:,} break"


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "run": verdict.run,
        "workflow": verdict.workflow,
        "status": verdict.status,
        "version": verdict.version,
        "fits": False,
        "diagnosis": to_builtins(verdict.diagnosis),
    }


def _sums(findings: Findings, seconds: float) -> dict[str, Any]:
    return {
        "replayed": findings.replayed,
        "closed": findings.closed,
        "fit": findings.replayed - findings.broken,
        "break": findings.broken,
        "ahead": findings.ahead,
        "not_in_target": {_of(*key): count for key, count in findings.unknown.items()},
        "seconds": round(seconds, 3),
    }


def _tell(output: Output, findings: Findings, target: Target, url: str, seconds: float) -> None:
    for kind in list(findings.kinds.values())[:_KINDS_SHOWN]:
        output.line(
            f"{kind.workflow}: {counted(kind.count, 'run')} {_verb(kind.count, 'break')}:"
            f" {_names(kind.runs, kind.count)}"
        )
        output.show(diagnosis_view(kind.diagnosis))
        output.line("")
    left = sum(kind.count for kind in list(findings.kinds.values())[_KINDS_SHOWN:]) + findings.uncounted
    if left:
        output.line(f"and {counted(left, 'run')} more that {_verb(left, 'break')} in other ways; --json names each")
    ended = f", {findings.closed:,} of them ended" if findings.closed else ""
    output.line(
        f"replayed {counted(findings.replayed, 'run')} of {shown_url(url)} with {target.text} in {seconds:.1f} s{ended}"
    )
    fit = findings.replayed - findings.broken
    output.line(f"  {fit:,} {_verb(fit, 'fit')}, {findings.broken:,} {_verb(findings.broken, 'break')}")
    if findings.ahead:
        output.line(
            f"  {findings.ahead:,} of those that fit {_verb(findings.ahead, 'decide')} something new as soon as this"
            f" code has them: {_names(findings.ahead_runs, findings.ahead)}"
        )
    for key, count in sorted(findings.unknown.items()):
        runs = f"{counted(count, 'run')} of workflow {_of(*key)}"
        output.line(f"  not replayed: {runs}, which {target.text} does not have")


def _of(workflow: str, version: str) -> str:
    return f"{workflow} in version {version}" if version else workflow


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb


def _names(shown: list[str], count: int) -> str:
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return ", ".join(shown) + more
