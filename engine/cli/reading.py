"""`runs`, `show`, `history`, `cancel`: what a client does, which claims nothing and needs no code of a workflow."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from msgspec import Raw, to_builtins

from engine import Engine, HistoryEvent, RunHandle, RunState, RunStatus, RunSummary
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import instant
from engine.cli.tables import history_line, runs_table, state_view
from eventstore import EventStore

__all__ = ["cancel", "history", "runs", "show"]

_TAKEN_UP_SECONDS: Final = 2.0
"""How long `cancel` looks whether somebody who works on the run takes the request up."""


async def runs(
    store: EventStore, output: Output, *, workflow: str | None, status: tuple[RunStatus, ...], limit: int
) -> Exit:
    """List the newest runs."""
    found: list[RunSummary] = []
    more = False
    async with Engine(store) as client:
        cursor: str | None = None
        while len(found) < limit:
            page = await client.runs(
                workflow=workflow, status=status or None, limit=min(100, limit - len(found)), cursor=cursor
            )
            found += page.items
            cursor = page.next
            if cursor is None:
                break
        more = cursor is not None
    if output.json:
        output.document([_run_document(each) for each in found])
    elif found:
        output.show(runs_table(found))
        if more:
            output.line(f"… and more; --limit {limit * 5} shows them")
    else:
        asked = [f"workflow {workflow}"] if workflow else []
        asked += [f"status {' or '.join(status)}"] if status else []
        output.line(f"no runs of {', '.join(asked)} in this store" if asked else "no runs in this store")
    return Exit.COMPLETED


def _run_document(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.id,
        "workflow": run.workflow,
        "status": run.status,
        "version": run.version,
        "created_at": instant(run.created_at),
        "updated_at": instant(run.updated_at),
        "slowest_turn_seconds": run.slow / 1_000_000,
    }


async def show(store: EventStore, output: Output, run_id: str, *, every_frame: bool) -> Exit:
    """How a run stands, from its history alone."""
    async with Engine(store) as client:
        state = await client.run(run_id).state()
    if output.json:
        output.document(_state_document(state))
    else:
        output.show(state_view(state, every_frame=every_frame))
    return Exit.COMPLETED


def _state_document(state: RunState) -> dict[str, Any]:
    return {
        "run": state.run_id,
        "workflow": state.workflow,
        "status": state.status,
        "version": state.version,
        "arguments": _raw(state.arguments),
        "result": _raw(state.result),
        "error": None if state.error is None else to_builtins(state.error),
        "reason": state.reason,
        "cancel_requested": state.cancel_requested,
        "diagnosis": None if state.diagnosis is None else to_builtins(state.diagnosis),
        "started_at": instant(state.started_at),
        "updated_at": instant(state.updated_at),
        "ended_at": instant(state.ended_at),
        "tasks": [
            {
                "id": task.id,
                "task": task.name,
                "status": task.status,
                "site": task.site,
                "arguments": _raw(task.arguments),
                "result": _raw(task.result),
                "error": None if task.error is None else to_builtins(task.error),
                "attempts": task.attempts,
                "failures": task.failures,
                "scheduled_at": instant(task.scheduled_at),
                "started_at": instant(task.started_at),
                "ended_at": instant(task.ended_at),
                "retry_at": instant(task.retry_at),
            }
            for task in state.tasks.values()
        ],
        "slow_turns": state.slow_turns,
        "slowest_turn_seconds": state.slowest_turn / 1_000_000,
        "slow_site": state.slow_site,
        "timers": {id_: instant(deadline) for id_, deadline in state.timers.items()},
    }


def _raw(payload: bytes | None) -> Raw | None:
    return None if payload is None else Raw(payload)


async def history(store: EventStore, output: Output, run_id: str, *, after: int, follow: bool) -> Exit:
    """The events of a run, one per line."""
    async with Engine(store) as client:
        async for recorded in client.run(run_id).events(after=after, follow=follow):
            if output.json:
                output.document(_event_document(recorded))
            else:
                output.console.print(history_line(recorded), soft_wrap=True)
    return Exit.COMPLETED


def _event_document(recorded: HistoryEvent) -> dict[str, Any]:
    return {
        "version": recorded.version,
        "header": Raw(recorded.header),
        "payload": _raw(recorded.payload),
        "digest": recorded.digest.hex(),
    }


async def cancel(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Ask for a run to be cancelled, and see whether somebody takes it up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            _say(output, state, f"run {run_id} has already ended: {state.status}; there is nothing to cancel")
            return Exit.FAILED
        await handle.cancel(reason=reason, by=by)
        state = await _taken_up(handle, state)
    if state.status in {"cancelled", "terminated"}:
        text = f"run {run_id} is {state.status}"
    elif state.ended:
        text = f"run {run_id} ended before the request reached it: {state.status}"
    elif state.cancel_requested:
        text = f"run {run_id} is being cancelled"
    else:
        text = (
            f"the request to cancel run {run_id} is recorded; nobody is working on the run now, so it takes effect when"
            f" somebody next does (holdfast resume TARGET {run_id})"
        )
    _say(output, state, text)
    return Exit.COMPLETED


async def _taken_up(handle: RunHandle[Any], state: RunState) -> RunState:
    """`state` moved on until the run has ended, or until the time for that is over."""
    try:
        async with asyncio.timeout(_TAKEN_UP_SECONDS):
            async for recorded in handle.events(after=state.version, follow=True):
                state.apply(recorded.version, recorded.event, recorded.payload)
    except TimeoutError:
        pass  # it may clean up for as long as it likes; or nobody has it
    return state


def _say(output: Output, state: RunState, text: str) -> None:
    if output.json:
        output.document(
            {
                "run": state.run_id,
                "status": state.status,
                "cancel_requested": state.cancel_requested,
                "message": text,
            }
        )
    else:
        output.line(text)
