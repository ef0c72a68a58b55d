"""`cancel`, `terminate`, `pause`, `unpause`: what a client asks of a run, or of a workflow, whoever works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias, cast

from engine import Engine, HistoryEvent, RunHandle, RunState
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import by_and_why
from engine.cli.searching import Many, deal_with
from engine.cli.words import FINAL
from eventstore import EventStore

__all__ = ["cancel", "cancel_many", "pause", "pause_workflow", "terminate", "unpause", "unpause_workflow"]

_Events: TypeAlias = AsyncGenerator[HistoryEvent, None]
_TAKEN_UP_SECONDS: Final = 2.0
"""How long it is looked whether somebody who works on the run takes the request up."""


async def cancel(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Ask for a run to be cancelled, and see whether somebody takes it up."""

    def said(state: RunState) -> str | None:
        if state.status in {"cancelled", "terminated"}:
            return f"run {run_id} is {state.status}"
        return f"run {run_id} is being cancelled" if state.cancel_requested and not state.ended else None

    return await _ask(
        store, output, run_id, "cancel", lambda run: run.cancel(reason=reason, by=by), enough=_has_ended, said=said
    )


async def cancel_many(store: EventStore, output: Output, many: Many, *, reason: str, by: str) -> Exit:
    """Ask for many runs to be cancelled; those that have ended meanwhile are left as they are."""
    async with Engine(store) as client:

        async def ask(run_id: str) -> str:
            run = client.run(run_id)
            if (status := await run.status()) in FINAL:
                return f"run {run_id} has already ended: {status}"
            await run.cancel(reason=reason, by=by)
            return f"the request to cancel run {run_id} is recorded"

        return await deal_with(client, output, many, "cancel", ask, then="")


async def terminate(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """End a run without its code, and see whether somebody takes that up."""

    def said(state: RunState) -> str | None:
        return f"run {run_id} is terminated" if state.status == "terminated" else None

    return await _ask(
        store,
        output,
        run_id,
        "terminate",
        lambda run: run.terminate(reason=reason, by=by),
        enough=_has_ended,
        said=said,
    )


async def pause(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Let nothing of a run begin, and see whether somebody takes that up."""

    def already(state: RunState) -> tuple[str, Exit] | None:
        if state.status == "suspended":
            return f"run {run_id} is suspended: nothing of it begins anyway, and it was not paused", Exit.SUSPENDED
        if state.status == "paused":
            said = by_and_why(state.paused_by, state.pause_reason)
            return f"run {run_id} is paused already{said}", Exit.COMPLETED
        return None

    def said(state: RunState) -> str | None:
        if state.status != "paused":
            return None
        under_way = state.counts().get("running", 0)
        tasks = "1 task that is" if under_way == 1 else f"{under_way:,} tasks that are"
        return f"run {run_id} is paused" + (f"; {tasks} under way will still end, and be recorded" if under_way else "")

    return await _ask(
        store,
        output,
        run_id,
        "pause",
        lambda run: run.pause(reason=reason, by=by),
        enough=lambda state: state.status == "paused" or state.ended,
        said=said,
        already=already,
    )


def _has_ended(state: RunState) -> bool:
    return state.ended


async def _ask(
    store: EventStore,
    output: Output,
    run_id: str,
    verb: str,
    ask: Callable[[RunHandle[Any]], Awaitable[None]],
    *,
    enough: Callable[[RunState], bool],
    said: Callable[[RunState], str | None],
    already: Callable[[RunState], tuple[str, Exit] | None] = lambda _: None,
) -> Exit:
    """Ask something of a run, look for a while whether somebody takes it up, and say how it stands then.

    `already`: what is to be said instead of asking. `enough`: what is waited for. `said`: what to say of how it stands;
    None when nobody has taken it up, or the run has ended otherwise.
    """
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, f"there is nothing to {verb}")
        if (found := already(state)) is not None:
            text, code = found
            _say(output, state, text)
            return code
        await ask(handle)
        state = await _taken_up(handle, state, enough)
    text = said(state) or (
        f"run {run_id} ended before the request reached it: {state.status}"
        if state.ended
        else _waits(run_id, f"the request to {verb} run {run_id}")
    )
    return _say(output, state, text)


async def unpause(store: EventStore, output: Output, run_id: str, *, reason: str, by: str) -> Exit:
    """Let a paused run go on, and see whether somebody takes that up."""
    async with Engine(store) as client:
        handle = client.run(run_id)
        state = await handle.state()
        if state.ended:
            return _ended(output, state, "there is nothing to unpause")
        before = state.status
        # Also when it is not paused: it may have been asked to, and nobody has done it yet.
        await handle.unpause(reason=reason, by=by)
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


async def unpause_workflow(store: EventStore, output: Output, name: str, *, reason: str, by: str) -> Exit:
    """Let the runs of a paused workflow go on."""
    async with Engine(store) as client:
        others = [each.name for each in await client.paused_workflows()]
        if name in others:
            await client.unpause_workflow(name, reason=reason, by=by)
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
