"""`prune`, `forget`: what would go, shown and asked about, and what went."""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from msgspec import Struct
from rich.table import Table

from engine import Due, Engine, Retention
from engine.audit import Pruning
from engine.audit import prune as prune_policies
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import amount, counted
from engine.cli.tables import table_of
from engine.errors import RunPrunedError
from eventstore import EventStore

__all__ = ["asked", "forget", "is_asking", "prune_due"]

_SAMPLE_RUNS: Final = 3
_SAMPLE_EVENTS: Final = 500
"""Of each group, to say about how much there is."""


class _Group(Struct):
    """What is due of the runs of one workflow that ended alike."""

    due: str
    runs: int = 0
    events: int = 0
    sampled: int = 0  # events that were read
    bytes: int = 0  # what they have
    sampled_runs: int = 0

    @property
    def about(self) -> int:
        """How many bytes all of them have, by those that were read."""
        return round(self.bytes / self.sampled * self.events) if self.sampled else 0


_Groups = dict[tuple[str, str, str], _Group]


async def prune_due(
    store: EventStore, output: Output, policy: Retention, *, limit: int | None, yes: bool, by: str, reason: str
) -> Exit:
    """Show what is due by a policy, ask, and do it."""
    groups, more = await _look(store, policy, limit)
    total = sum(each.runs for each in groups.values())
    if not output.json:
        if not total:
            output.line("nothing is due: no run that has ended fits")
            return Exit.COMPLETED
        output.show(_table(groups))
        if more:
            output.line(f"… and more, behind --limit {limit}")
    question = f"take {'the values of ' if policy.keep is None else ''}{counted(total, 'run')} away for good?"
    done = None
    if total and asked(output, question, yes=yes):
        done = await prune_policies(store, [policy], by=by, reason=reason, limit=limit)
    if output.json:
        output.document(_document(groups, done, more=more))
    elif done is None:
        output.line("nothing was taken away" + ("" if is_asking(output) else "; --yes does it"))
    else:
        for line in _said(done):
            output.line(line)
    return Exit.DOES_NOT_VERIFY if done is not None and done.tampered else Exit.COMPLETED


async def _look(store: EventStore, policy: Retention, limit: int | None) -> tuple[_Groups, bool]:
    groups: _Groups = {}
    seen = 0
    async with Engine(store) as engine:
        async for due in engine.due([policy]):
            if limit is not None and seen >= limit:
                return groups, True
            seen += 1
            group = groups.setdefault((due.workflow, due.status, due.due), _Group(due.due))
            group.runs += 1
            group.events += due.events
            if group.sampled_runs < _SAMPLE_RUNS:
                await _sample(engine, due, group)
    return groups, False


async def _sample(engine: Engine, due: Due, group: _Group) -> None:
    group.sampled_runs += 1
    async for event in engine.run(due.id).events():
        group.sampled += 1
        group.bytes += len(event.payload or b"") + (0 if due.due == "payloads" else len(event.header))
        if group.sampled >= _SAMPLE_EVENTS * group.sampled_runs:
            return


def _table(groups: _Groups) -> Table:
    table = table_of("workflow", "status", "what goes", ">runs", ">events", ">bytes, about")
    for (workflow, status, due), group in sorted(groups.items()):
        what = "values" if due == "payloads" else "the rest of it" if status == "pruned" else "history"
        table.add_row(workflow, status, what, f"{group.runs:,}", f"{group.events:,}", amount(group.about))
    return table


def is_asking(output: Output) -> bool:
    """Whether there is somebody to ask."""
    return not output.json and output.live and sys.stdin.isatty()


def asked(output: Output, question: str, *, yes: bool) -> bool:
    """Whether it is to be done: said so before, or now by whoever sits there."""
    return yes or (is_asking(output) and typer.confirm(question))


def _said(done: Pruning) -> list[str]:
    lines: list[str] = []
    if done.runs:
        lines.append(f"{counted(done.runs, 'run')} pruned: {done.events:,} events; their places and digests stay")
    if done.forgetful:
        lines.append(f"{done.payloads:,} values of {counted(done.forgetful, 'run')} destroyed; their digests stay")
    lines += [f"{each.id} is left as it is: {each.reason}" for each in done.reasons]
    if done.left > len(done.reasons):
        lines.append(f"… and {done.left - len(done.reasons):,} more are left as they are")
    return lines or ["nothing was left to take away: somebody else has done it"]


def _document(groups: _Groups, done: Pruning | None, *, more: bool) -> dict[str, Any]:
    return {
        "done": done is not None,
        "groups": [
            {
                "workflow": workflow or None,
                "status": status,
                "due": due,
                "runs": group.runs,
                "events": group.events,
                "bytes_about": group.about,
            }
            for (workflow, status, due), group in sorted(groups.items())
        ],
        "more": more,
        "runs_pruned": 0 if done is None else done.runs,
        "events_pruned": 0 if done is None else done.events,
        "runs_forgetful": 0 if done is None else done.forgetful,
        "payloads_destroyed": 0 if done is None else done.payloads,
        "left": [] if done is None else [{"run": each.id, "reason": each.reason} for each in done.reasons],
    }


async def forget(
    store: EventStore,
    output: Output,
    run_id: str,
    *,
    versions: tuple[int, ...],
    children: bool,
    yes: bool,
    by: str,
    reason: str,
) -> Exit:
    """Show how much a run would forget, ask, and do it."""
    async with Engine(store) as engine:
        count = size = 0
        if await engine.run(run_id).status() == "pruned":
            raise RunPrunedError(run_id)
        async for event in engine.run(run_id).events():
            if event.payload is not None and (not versions or event.version in versions):
                count, size = count + 1, size + len(event.payload)
        below = " and those of its child runs" if children else ""
        shown = f"run {run_id} has {counted(count, 'value')}, {amount(size)}{below}"
        if not output.json:
            output.line(shown)
        do = asked(output, "destroy them for good?", yes=yes)
        done = None
        if do:
            done = await engine.destroy_payloads(run_id, versions=versions, children=children, by=by, reason=reason)
    if output.json:
        output.document({"run": run_id, "values": count, "bytes": size, "done": do, "destroyed": done or 0})
    elif done is None:
        output.line("nothing was destroyed" + ("" if is_asking(output) else "; --yes does it"))
    else:
        output.line(f"{done:,} destroyed; the digests stay, and what remains verifies")
    return Exit.COMPLETED
