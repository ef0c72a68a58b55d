"""`replay`: where the code of a run stands at an event of its history, for a person or a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import to_builtins
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from engine import BranchStack, Replayed, ReplayedDecision, StackFrame, replay_run
from engine.cli.debugging import Debugger, Left
from engine.cli.gate_runs import workflows_of
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.styles import MARKS, STYLES
from engine.cli.summary import diagnosis_view
from engine.cli.targets import Target
from eventstore import EventStore

__all__ = ["replay", "replayed_view"]

DECISIONS_SHOWN: Final = 20
"""The last decisions that are printed; `--json` has all."""
BRANCHES_SHOWN: Final = 50
"""Branches that are printed, likewise."""


async def replay(
    store: EventStore,
    target: Target,
    output: Output,
    run_id: str,
    *,
    to: int | None,
    stop: bool,
    breaks: Sequence[str],
) -> Exit:
    """Replay it, and say where it stands. `stop`: pdb is opened there; `breaks`: where it is opened on the way."""
    debugger = Debugger(stop=stop)
    for place in breaks:
        debugger.break_at(place, target.file)
    try:
        replayed = await replay_run(store, run_id, workflows_of(target), to=to, debugger=debugger)
    except Left:
        output.note("left at a breakpoint; nothing was changed")
        return Exit.COMPLETED
    if output.json:
        output.document(to_builtins(replayed))
    else:
        output.show(replayed_view(replayed))
    if breaks and not debugger.hit:
        output.note(f"the replay came to no breakpoint ({', '.join(breaks)})")
    return Exit.SUSPENDED if replayed.diagnosis is not None else Exit.COMPLETED


def replayed_view(replayed: Replayed) -> RenderableType:
    """All of it, for a person."""
    parts: list[RenderableType] = [_head(replayed)]
    if replayed.diagnosis is not None:
        parts += [Text(""), Text("code and history do not fit", style="bold red"), diagnosis_view(replayed.diagnosis)]
    if replayed.ended:
        text = f"its code ended it in the last turn ({replayed.ended})"
        parts += [Text(""), Text(text, style="bold"), *_stack(replayed.raised, "  raised")]
    parts += [Text(""), Text(_title(replayed), style="bold")]
    for branch in replayed.branches[:BRANCHES_SHOWN]:
        parts += _branch(branch)
    if len(replayed.branches) > BRANCHES_SHOWN:
        parts.append(Text(f"  … {len(replayed.branches) - BRANCHES_SHOWN:,} more (--json shows all)", style="dim"))
    parts += _decisions("decisions so far", replayed.decisions)
    parts += _decisions("decided by this code, and not recorded by then", replayed.ahead)
    return Group(*parts)


def _head(replayed: Replayed) -> Text:
    epoch = f", epoch {replayed.epoch}" if replayed.epoch else ""
    version = f" (version {replayed.workflow_version})" if replayed.workflow_version else ""
    return Text.assemble(
        (replayed.run, "bold"),
        f"  {replayed.workflow}{version}  ",
        (f"{MARKS[replayed.status]} {replayed.status}", STYLES[replayed.status]),
        f"  replayed to version {replayed.version:,} of {replayed.versions:,}{epoch}",
    )


def _title(replayed: Replayed) -> str:
    count = len(replayed.branches)
    if not count:
        if replayed.ended or replayed.diagnosis is not None:
            return "no branch: its code had not begun before that"
        return "no branch: its code has not begun"
    where = "where it stands" if replayed.stands_at == replayed.version else f"as it stood at {replayed.stands_at:,}"
    return f"{count:,} branch, {where}" if count == 1 else f"{count:,} branches, {where}"


def _branch(branch: BranchStack) -> list[RenderableType]:
    name = Text.assemble("  ", (branch.name, "bold"), "  awaits ", (branch.awaits, "cyan"))
    return [name, *_stack(branch.stack, "")]


def _stack(stack: Iterable[StackFrame], title: str) -> list[RenderableType]:
    """The author's own frames with their locals; where there is none of theirs, those that a library waits in."""
    frames = list(stack)
    shown = [each for each in frames if not each.library] or frames
    text = Text()
    for frame in shown:
        text.append(f'File "{frame.file}", line {frame.line}, in {frame.function}\n', style="dim")
        text.append(f"  {frame.source}\n" if frame.source else "")
        for name, value in frame.locals.items() if not frame.library else ():
            text.append(f"    {name} = {value}\n")
    if not shown:
        return []
    text.rstrip()
    return [*([Text(title)] if title else []), Padding(text, (0, 0, 0, 4), expand=False)]


def _decisions(title: str, decisions: Sequence[ReplayedDecision]) -> list[RenderableType]:
    if not decisions:
        return []
    lines = [Text(""), Text(title, style="bold")]
    if len(decisions) > DECISIONS_SHOWN:
        lines.append(Text(f"  … {len(decisions) - DECISIONS_SHOWN:,} earlier (--json shows all)", style="dim"))
    for each in decisions[-DECISIONS_SHOWN:]:
        version = f"{each.version:>6}  " if each.version else "        "
        lines.append(Text.assemble((version, "dim"), each.text, (f"  {each.site}" if each.site else "", "dim")))
    return list(lines)
