"""`runs`, `show`, `history`: what a client does, which claims nothing and needs no code of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from msgspec import Raw, to_builtins

from engine import Engine, HistoryEvent, PausedWorkflow, RunState, RunStatus, RunSummary
from engine.cli.exchange import Exchange
from engine.cli.output import Output
from engine.cli.plain import workflow_paused_line
from engine.cli.problems import Exit, Problem
from engine.cli.readable import attributes_text, instant
from engine.cli.tables import history_line, runs_table, state_view
from engine.errors import RunPrunedError
from eventstore import EventStore

__all__ = ["history", "runs", "show"]

NO_ATTRIBUTES: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})


async def runs(
    store: EventStore,
    output: Output,
    *,
    workflow: str | None,
    status: tuple[RunStatus, ...],
    parent: str | None,
    limit: int,
    attributes: Mapping[str, tuple[Any, ...]] = NO_ATTRIBUTES,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
) -> Exit:
    """List the newest runs; those behind a cursor, with `after`."""
    found: list[RunSummary] = []
    more = False
    async with Engine(store) as client:
        cursor = after
        while len(found) < limit:
            page = await client.runs(
                workflow=workflow,
                parent=parent,
                status=status or None,
                attributes=attributes,
                since=since,
                until=until,
                limit=min(100, limit - len(found)),
                cursor=cursor,
            )
            found += page.items
            cursor = page.next
            if cursor is None:
                break
        more = cursor is not None
        paused = await client.paused_workflows()
    if output.json:
        documents = [_run_document(each) for each in found]
        for last in documents[-1:]:
            last["next"] = cursor
        output.document(documents)
    elif found:
        output.show(runs_table(found))
        if more:
            output.line(f"… and more; --limit {limit * 5} shows them")
            output.line(f"the next page: --after {cursor}", style="dim")
        listed = {each.workflow for each in found}
        for each in paused:
            if each.name in listed:
                output.line(workflow_paused_line(each))
    else:
        asked = [f"workflow {workflow}"] if workflow else []
        asked += [f"status {' or '.join(status)}"] if status else []
        asked += [f"parent {parent}"] if parent else []
        for name, values in attributes.items():
            asked.append(" or ".join(attributes_text({name: each}) for each in values))
        asked += [f"since {since}"] if since else []
        asked += [f"until {until}"] if until else []
        asked += ["the pages behind the cursor"] if after else []
        output.line(f"no runs of {', '.join(asked)} in this store" if asked else "no runs in this store")
    return Exit.COMPLETED


def _run_document(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.id,
        "workflow": run.workflow,
        "status": run.status,
        "workflow_version": run.workflow_version or None,
        "suspended_for": run.suspended_for or None,
        "parent": run.parent or None,
        "origin": run.origin or None,
        "version": run.version,
        "created_at": instant(run.created_at),
        "updated_at": instant(run.updated_at),
        "slowest_turn_seconds": run.slow / 1_000_000,
        "begins_at": instant(run.begins_at or None),
        "singleton": run.singleton or None,
        "attributes": run.attributes,
        "next": None,
    }


async def show(
    store: EventStore, output: Output, run_id: str, *, at: int | None = None, every_frame: bool = False
) -> Exit:
    """How a run stands, or stood `at` a version, from its history alone."""
    state, exchange = RunState(run_id=run_id), Exchange()
    async with Engine(store) as client:
        async for recorded in client.run(run_id).events():
            if at is not None and recorded.version > at:
                if type(recorded.event).__name__ == "RunPruned":
                    raise RunPrunedError(run_id)
                break
            state.apply(recorded.version, recorded.event, recorded.payload)
            exchange.take(recorded)
        if at is not None and state.version < at:
            raise Problem(f"run {run_id} has {state.version:,} events: there is no version {at:,}")
        # A pause of its workflow is no part of its history: it says something of the present only.
        pauses = await client.paused_workflows() if at is None else ()
    paused = {each.name: each for each in pauses}.get(state.workflow)
    if output.json:
        output.document({**_state_document(state), **_talk_document(state, exchange, paused)})
    else:
        output.show(state_view(state, exchange, workflow_paused=paused, every_frame=every_frame))
    return Exit.COMPLETED


def _talk_document(state: RunState, exchange: Exchange, paused: PausedWorkflow | None) -> dict[str, Any]:
    return {
        "parent": state.parent or None,
        "parent_call": state.parent_call or None,
        "root": state.root or None,
        "epoch": state.epoch,
        "workflow_version": state.workflow_version or None,
        "deadline": instant(state.deadline or None),
        "begins_at": instant(state.begins_at or None),
        "begun_at": instant(state.begun_at or None),
        "singleton": state.singleton or None,
        "queued_behind": state.queued_behind or None,
        "paused": {"at": instant(state.paused_at), "by": state.paused_by, "reason": state.pause_reason}
        if state.status == "paused"
        else None,
        "workflow_paused": None
        if paused is None
        else {"at": instant(paused.at), "by": paused.by, "reason": paused.reason},
        "children": [
            {
                "id": child.id,
                "run": child.run,
                "workflow": child.workflow,
                "status": child.status,
                "parent_close": child.parent_close,
                "asked_to_end": child.asked_to_end,
                "site": child.site,
                "started_at": instant(child.started_at),
                "ended_at": instant(child.ended_at),
            }
            for child in state.children.values()
        ],
        "states": {name: _raw(payload) for name, payload in state.states.items()},
        "feeds": exchange.feeds,
        "signals": [
            {"id": row.id, "name": row.name, "by": row.by, "at": instant(row.at), "value": _raw(row.value)}
            for row in exchange.signals
        ],
        "requests": [
            {
                "id": row.id,
                "name": row.name,
                "by": row.by,
                "status": row.status,
                "argument": _raw(row.argument),
                "answer": _raw(row.answer),
                "error": row.error or None,
                "accepted_at": instant(row.at),
                "ended_at": instant(row.ended_at),
            }
            for row in exchange.requests.values()
        ],
    }


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
        "started_at": instant(state.started_at or None),
        "updated_at": instant(state.updated_at or None),
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
                "heartbeat_at": instant(task.heartbeat_at),
                "heartbeat": _raw(task.heartbeat),
                "reused_run": task.reused_run,
                "reused_id": task.reused_id,
            }
            for task in state.tasks.values()
        ],
        "attributes": state.attributes,
        "patches": state.patches,
        "rerun_of": state.rerun_of or None,
        "fork_of": {"run": state.origin, "version": state.origin_version} if state.origin else None,
        "reopened": state.reopened,
        "payloads_destroyed": _taken_away(state.destroyed),
        "pruned": _taken_away(state.pruned),
        "slow_turns": state.slow_turns,
        "slowest_turn_seconds": state.slowest_turn / 1_000_000,
        "slow_site": state.slow_site,
        "timers": {id_: instant(deadline) for id_, deadline in state.timers.items()},
    }


def _taken_away(event: Any) -> dict[str, Any] | None:
    """The event that says so, for programs."""
    return None if event is None else {**to_builtins(event), "at": instant(event.at)}


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
