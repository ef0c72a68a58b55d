"""`what-if`: what came of a run beside what would have come of it."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, to_builtins

from engine import RunState, WhatIf
from engine.cli.comparing import diff_document, show_rows
from engine.cli.output import Output
from engine.cli.phrases import short_id
from engine.cli.problems import Exit
from engine.cli.readable import error_text, one_line
from engine.cli.repairing import check_has, given_results, with_code
from engine.cli.session import Session

__all__ = ["what_if"]


async def what_if(session: Session, run_id: str, *, at: int, words: list[str], rows: int) -> Exit:
    """Suppose it, and say what comes out; nothing is written."""
    async with with_code(session) as engine:
        workflow = await check_has(session, engine, run_id)
        found = await engine.what_if(run_id, at=at, substitute=given_results(session, workflow, words))
    if session.output.json:
        session.output.document(_document(run_id, at, found))
    else:
        _show(session.output, run_id, found, rows=rows)
    return Exit.SUSPENDED if found.problem else Exit.COMPLETED


def _show(output: Output, run_id: str, found: WhatIf, *, rows: int) -> None:
    output.line(f"it was       {_how(found.was)}")
    output.line(f"it would be  {_how(found.would_be)}")
    if found.problem:
        output.line(f"  {found.problem}")
    for ids, what in (
        (found.unanswered, "nobody knows how these would end; --set gives a result"),
        (found.asked_otherwise, "answered as recorded, though they would be asked with other arguments"),
        (found.never_called, "given, and never called"),
    ):
        if ids:
            output.line(f"  {what}: {', '.join(map(short_id, ids))}")
    if found.diff.rows:
        show_rows(output, found.diff, (run_id, "what if"), rows=rows)
    else:
        output.line(f"all {found.diff.alike:,} facts and decisions are alike")


def _how(state: RunState) -> str:
    if state.error is not None and state.status == "failed":
        return f"failed: {error_text(state.error)}"
    return f"completed: {one_line(state.result)}" if state.status == "completed" else state.status


def _document(run_id: str, at: int, found: WhatIf) -> dict[str, Any]:
    return {
        "run": run_id,
        "at": at,
        "was": _state(found.was),
        "would_be": _state(found.would_be),
        "problem": found.problem or None,
        "unanswered": found.unanswered,
        "asked_otherwise": found.asked_otherwise,
        "never_called": found.never_called,
        **diff_document(found.diff),
    }


def _state(state: RunState) -> dict[str, Any]:
    return {
        "status": state.status,
        "result": None if state.result is None else Raw(state.result),
        "error": None if state.error is None else to_builtins(state.error),
    }
