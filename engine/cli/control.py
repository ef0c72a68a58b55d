"""`cancel`, `terminate`, `pause`, `unpause`: what a client asks of a run, or of a workflow, whoever works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias, cast

from engine import Engine, HistoryEvent, RunHandle, RunState
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import by_and_why
from eventstore import EventStore

__all__ = ["cancel", "pause", "pause_workflow", "terminate", "unpause", "unpause_workflow"]

_Events: TypeAlias = AsyncGenerator[HistoryEvent, None]
_TAKEN_UP_SECONDS: Final = 2.0
"""How long it is looked whether somebody who works on the run takes the request up."""


async def cancel(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Ask for a run to be cancelled, and see whether somebody takes it up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, "there is nothing to cancel")
        await handle.cancel(reason=reason, by=by)
        state = await _taken_up(handle, state, lambda state: state.ended)
    if state.status in {"cancelled", "terminated"}:
        text = f"run {run_id} is {state.status}"
    elif state.ended:
        text = f"run {run_id} ended before the request reached it: {state.status}"
    elif state.cancel_requested:
        text = f"run {run_id} is being cancelled"
    else:
        text = _waits(run_id, f"the request to cancel run {run_id}")
    return _say(output, state, text)


async def terminate(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """End a run without its code, and see whether somebody takes that up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, "there is nothing to terminate")
        await handle.terminate(reason=reason, by=by)
        state = await _taken_up(handle, state, lambda state: state.ended)
    if state.status == "terminated":
        text = f"run {run_id} is terminated"
    elif state.ended:
        text = f"run {run_id} ended before the request reached it: {state.status}"
    else:
        text = _waits(run_id, f"the request to terminate run {run_id}")
    return _say(output, state, text)


async def pause(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Let nothing of a run begin, and see whether somebody takes that up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, "there is nothing to pause")
        if state.status == "suspended":
            _say(output, state, f"run {run_id} is suspended: nothing of it begins anyway, and it was not paused")
            return Exit.SUSPENDED
        if state.status == "paused":
            said = by_and_why(state.paused_by, state.pause_reason)
            return _say(output, state, f"run {run_id} is paused already{said}")
        await handle.pause(reason=reason, by=by)
        state = await _taken_up(handle, state, lambda state: state.status == "paused" or state.ended)
    under_way = state.counts().get("running", 0)
    if state.ended:
        text = f"run {run_id} ended before the request reached it: {state.status}"
    elif state.status == "paused":
        tasks = "1 task that is" if under_way == 1 else f"{under_way:,} tasks that are"
        rest = f"; {tasks} under way will still end, and be recorded" if under_way else ""
        text = f"run {run_id} is paused{rest}"
    else:
        text = _waits(run_id, f"the request to pause run {run_id}")
    return _say(output, state, text)


async def unpause(store: EventStore, output: Output, run_id: str, *, by: str) -> Exit:
    """Let a paused run go on, and see whether somebody takes that up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, "there is nothing to unpause")
        before = state.status
        await handle.unpause(by=by)  # also when it is not paused: it may have been asked to, and nobody has done it yet
        if before == "paused":
            state = await _taken_up(handle, state, lambda state: state.status != "paused")
    if before != "paused":
        text = f"run {run_id} is not paused: it is {before}; if a request to pause it is on its way, this follows it"
    elif state.status == "paused":
        text = _waits(run_id, f"the request to unpause run {run_id}")
    else:
        text = f"run {run_id} goes on" if not state.ended else f"run {run_id} went on, and has {state.status}"
    return _say(output, state, text)


async def pause_workflow(store: EventStore, output: Output, name: str, *, reason: str, by: str) -> Exit:
    """Let no run of a workflow begin anything. Recorded at once; workers see it within a second."""
    async with Engine(store) as client:
        already = {each.name: each for each in await client.paused_workflows()}.get(name)
        if already is None:
            await client.pause_workflow(name, reason=reason, by=by)
        known = await client.runs(workflow=name, limit=1)
    if already is not None:
        text = f"workflow {name} is paused already{by_and_why(already.by, already.reason)}"
    else:
        text = f"workflow {name} is paused: none of its runs begins anything; attempts under way will still end"
    if not known.items:
        text += f" (there is no run of {name} in this store so far)"
    return _say_workflow(output, name, text, paused=True)


async def unpause_workflow(store: EventStore, output: Output, name: str, *, by: str) -> Exit:
    """Let the runs of a paused workflow go on."""
    async with Engine(store) as client:
        others = [each.name for each in await client.paused_workflows()]
        if name in others:
            await client.unpause_workflow(name, by=by)
            text = f"workflow {name} is no longer paused; its runs go on within a second, where somebody works on them"
        else:
            text = f"workflow {name} is not paused"
            text += f"; paused are {', '.join(others)}" if others else ", nor is any other"
    return _say_workflow(output, name, text, paused=False)


async def _taken_up(handle: RunHandle[Any], state: RunState, enough: Callable[[RunState], bool]) -> RunState:
    """`state` moved on until that is enough, or the run has ended, or until the time for that is over."""
    try:
        async with (
            asyncio.timeout(_TAKEN_UP_SECONDS),
            aclosing(cast("_Events", handle.events(after=state.version, follow=True))) as events,
        ):
            async for recorded in events:
                state.apply(recorded.version, recorded.event, recorded.payload)
                if enough(state):
                    break
    except TimeoutError:
        pass  # it may take as long as it likes; or nobody has it
    return state


def _waits(run_id: str, what: str) -> str:
    return (
        f"{what} is recorded; nobody is working on the run now, so it takes effect when somebody next does"
        f" (holdfast resume TARGET {run_id})"
    )


def _ended(output: Output, state: RunState, rest: str) -> Exit:
    _say(output, state, f"run {state.run_id} has already ended: {state.status}; {rest}")
    return Exit.ENDED


def _say(output: Output, state: RunState, text: str) -> Exit:
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
    return Exit.COMPLETED


def _say_workflow(output: Output, name: str, text: str, *, paused: bool) -> Exit:
    if output.json:
        output.document({"workflow": name, "paused": paused, "message": text})
    else:
        output.line(text)
    return Exit.COMPLETED
