"""`run` and `resume`: an engine that works on the runs the user asked for, watched until they are through or stopped.

Two engines, one after the other: a client, which claims nothing and finds out which runs are meant and what of them is
done already, then a worker that claims these runs and no other.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from msgspec import Struct

from engine import Engine, RunHandle, RunState, Workflow
from engine.cli.output import Output
from engine.cli.plain import paused_lines
from engine.cli.problems import Exit, Problem
from engine.cli.progress import View, view_on
from engine.cli.stopping import StopRequest
from engine.cli.stores import DEFAULT_STORE
from engine.cli.summary import document, summary
from engine.cli.tally import Watched
from engine.cli.targets import Target
from engine.cli.words import UNFINISHED
from engine.errors import HoldfastError, RunNotFound, RunPrunedError
from engine.storage import Storage
from eventstore import Clock, EventStore, EventStoreError, SystemClock
from eventstore.urls import shown_url

__all__ = [
    "Session",
    "catch_up",
    "exit_of",
    "new_id",
    "resume_all",
    "resume_one",
    "run",
    "say_paused",
    "unfinished",
    "watch",
    "work_on",
    "working",
]

_ID_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"  # nothing that is mistaken for something else
_ID_LETTERS: Final = 6
_PAUSES_SECONDS: Final = 2.0  # between two looks whether a workflow is paused
_SEVERITY: Final = (Exit.INTERRUPTED, Exit.SUSPENDED, Exit.FAILED, Exit.COMPLETED)


class Session(Struct, frozen=True, kw_only=True):
    """What both commands are given."""

    target: Target
    bound: tuple[tuple[Any, ...], dict[str, Any]]  # arguments of the call that `run` makes
    store: EventStore
    url: str
    output: Output
    grace: float  # seconds that running tasks have to end after a stop was asked for
    by: str  # who asks, for the history
    reason: str = ""  # and why: of what `resume` asks for
    debug: bool = False
    clock: Clock = SystemClock()
    storage: Storage | None = None  # where values lie that a history does not hold

    @property
    def store_words(self) -> str:
        """What a command must say to mean this store."""
        return "" if self.url == DEFAULT_STORE else f" --store {shlex.quote(shown_url(self.url))}"

    def watched(self, state: RunState) -> Watched:
        """A run that this session is about, from its present state on."""
        return Watched.begin(state, now=self.clock.now(), store_words=self.store_words)

    def resume_command(self, run_id: str) -> str:
        """What to type to let a run go on, or all of them."""
        words = ["holdfast", "resume", self.target.text, *([run_id] if run_id else [])]
        return shlex.join(words) + self.store_words


# ------------------------------------------------------------------------------------------------ the commands


async def run(session: Session, *, run_id: str | None) -> Exit:
    """Continue the newest unfinished run with these arguments, or start one; with an id: attach, continue or start."""
    workflow = session.target.only()
    args, kwargs = session.bound
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        watched = await _find(session, workflow, args, kwargs, run_id)
        async with working(session, [watched], stop) as (engine, view):
            handle = await engine.start(workflow(*args, **kwargs), id=watched.run_id)
            await watch(session, stop, engine, view, [(handle, watched)])
        return await _report(session, [watched], stop, single=True)


async def resume_one(session: Session, run_id: str) -> Exit:
    """Continue one run."""
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        async with Engine(session.store) as client:
            watched = session.watched(await client.run(run_id).state())
        if watched.state.status == "pruned":
            raise RunPrunedError(run_id)
        names = [each.name for each in session.target.workflows]
        if watched.workflow not in names:
            has = f"has {', '.join(names)}" if names else "has no workflow"
            raise Problem(f"run {run_id} is of workflow {watched.workflow!r}, but {session.target.text} {has}")
        return await _resume(session, [watched], stop, single=True)


async def resume_all(session: Session) -> Exit:
    """Continue all unfinished runs of the target's workflows."""
    chosen = session.target.chosen
    workflows = session.target.workflows if chosen is None else (chosen,)
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        watched: list[Watched] = []
        async with Engine(session.store) as client:
            for workflow in workflows:
                watched += [session.watched(await handle.state()) async for handle in unfinished(client, workflow)]
        if not watched:
            names = ", ".join(each.name for each in workflows)
            if session.output.json:
                session.output.document({"runs": []})
            else:
                session.output.line(f"no unfinished run of {names} in {shown_url(session.url)}")
            return Exit.COMPLETED
        return await _resume(session, watched, stop, single=False)


async def work_on(session: Session, run_id: str) -> Exit:
    """Go on with a run that the target has the workflow of."""
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        async with Engine(session.store) as client:
            watched = session.watched(await client.run(run_id).state())
        return await _resume(session, [watched], stop, single=True)


async def _resume(session: Session, watched: list[Watched], stop: StopRequest, *, single: bool) -> Exit:
    async with working(session, watched, stop) as (engine, view):
        await watch(session, stop, engine, view, [(engine.run(each.run_id), each) for each in watched])
    return await _report(session, watched, stop, single=single)


async def unfinished(
    client: Engine, workflow: Workflow[..., Any], *, newest_first: bool = False
) -> AsyncIterator[RunHandle[Any]]:
    """All runs of the workflow that have not ended."""
    cursor: str | None = None
    while True:
        page = await client.runs(workflow=workflow.name, status=UNFINISHED, cursor=cursor, newest_first=newest_first)
        for item in page.items:
            yield client.run(item.id)
        cursor = page.next
        if cursor is None:
            return


# ------------------------------------------------------------------------------------------------ the steps


async def _find(
    session: Session, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run_id: str | None
) -> Watched:
    """The run that is meant, as it stands; a new one if there is none."""
    async with Engine(session.store, workflows=[workflow], only=()) as client:
        if run_id is None:
            call = workflow(*args, **kwargs)
            try:
                found = await client.unfinished(call)
            finally:
                call.close()
            run_id = found.id if found is not None else None
        if run_id is not None:
            try:
                return session.watched(await client.run(run_id).state())
            except RunNotFound:
                pass  # --id of a run that is to be started
    state = RunState(run_id=run_id or new_id(workflow.name), workflow=workflow.name)
    return session.watched(state)


def new_id(workflow: str) -> str:
    """An id for a run that is to be started."""
    return f"{workflow}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LETTERS))}"


@asynccontextmanager
async def working(
    session: Session, watched: Sequence[Watched], stop: StopRequest, view: View | None = None
) -> AsyncIterator[tuple[Engine, View]]:
    """An engine that claims these runs only, shown while it works and while it closes."""
    engine = Engine(
        session.store,
        workflows=session.target.workflows,
        only={each.run_id for each in watched},
        grace=session.grace,
        storage=session.storage,
    )
    view = view_on(session.output, watched, session.clock) if view is None else view
    stop.before_exit = view.restore
    async with view, engine:
        yield engine, view


async def watch(
    session: Session, stop: StopRequest, engine: Engine, view: View, runs: Sequence[tuple[RunHandle[Any], Watched]]
) -> None:
    """Follow the runs until all are through, or the user asks to stop."""
    loop = asyncio.get_running_loop()
    following = [loop.create_task(_follow(session, handle, run, view)) for handle, run in runs]
    stopping = loop.create_task(stop.wait())
    beside = [stopping, loop.create_task(_look_at_pauses(engine, view, [run for _, run in runs]))]
    pending = {*following, stopping}
    try:
        while stopping in pending and len(pending) > 1:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (*following, *beside):
            task.cancel()
        await asyncio.wait([*following, *beside])
    if stop.asked and not all(run.over for _, run in runs):
        view.say(f"stopping: running tasks have {session.grace:g} s to end (interrupt again to end at once)")


async def _follow(session: Session, handle: RunHandle[Any], run: Watched, view: View) -> None:
    if run.state.status == "suspended":
        await handle.resume(by=session.by, reason=session.reason)
    if run.state.status == "paused":
        view.held(run)
    async for recorded in handle.events(after=run.state.version, follow=True):
        header = run.take(recorded)
        view.event(run, header)
        if header["type"] == "RunPaused":
            view.held(run)


async def _look_at_pauses(engine: Engine, view: View, runs: Sequence[Watched]) -> None:
    """Workflows are paused by name, which no run's history tells."""
    with suppress(EventStoreError, HoldfastError):  # who works on the runs meets it too, and says so
        while True:
            paused = {each.name: each for each in await engine.paused_workflows()}
            for run in runs:
                before, run.workflow_paused = run.workflow_paused, paused.get(run.workflow)
                if run.workflow_paused is not None and before is None and not run.over:
                    view.held(run)
            await asyncio.sleep(_PAUSES_SECONDS)


async def _report(session: Session, watched: Sequence[Watched], stop: StopRequest, *, single: bool) -> Exit:
    """Say how each run ended, or how to go on; the exit code is that of the worst."""
    stopped = [run for run in watched if not run.over] if stop.asked else []
    if stopped:
        await catch_up(session, stopped)
    now = session.clock.now()
    if session.output.json:
        documents = [document(run, now=now, interrupted=stop.asked) for run in watched]
        session.output.document(documents[0] if single else {"runs": documents})
    else:
        _show(session, watched, now=now, interrupted=stop.asked)
    codes = {exit_of(run) for run in watched}
    return next(code for code in _SEVERITY if code in codes)


async def catch_up(session: Session, watched: Sequence[Watched]) -> None:
    """Take in what running tasks still recorded while the engine closed."""
    async with Engine(session.store, storage=session.storage) as client:
        for run in watched:
            try:
                async for recorded in client.run(run.run_id).events(after=run.state.version):
                    run.take(recorded)
            except RunNotFound:
                continue  # stopped before it was recorded that it began


def _show(session: Session, watched: Sequence[Watched], *, now: int, interrupted: bool) -> None:
    output = session.output
    brief = len(watched) > 1
    output.line("")
    for run in watched:
        output.show(summary(run, now=now, interrupted=interrupted, every_frame=session.debug, brief=brief))
    left = [run for run in watched if not run.over]
    for run in watched:
        if run.state.status == "suspended":
            output.line("")
            output.line("  With code that fits its history, it goes on:")
            output.line(f"    {session.resume_command(run.run_id)}", style="bold")
    if not left:
        return
    output.line("")
    if all(run.state.version == 0 for run in left):
        output.line("  It had not begun. The same command starts it.")
        return
    output.line("  Nothing recorded is lost. To go on:")
    output.line(f"    {session.resume_command('' if brief else left[0].run_id)}", style="bold")
    output.line("  or the same command again.")
    say_paused(output, left)


def say_paused(output: Output, runs: Sequence[Watched]) -> None:
    """Which of them are paused, and how they go on, each thing once."""
    for line in dict.fromkeys(line for run in runs for line in paused_lines(run)):
        output.line(f"  {line[0].upper()}{line[1:]}.")


def exit_of(run: Watched) -> Exit:
    """The exit code for how a run ended, or did not."""
    match run.state.status:
        case "completed":
            return Exit.COMPLETED
        case "failed" | "cancelled" | "terminated":
            return Exit.FAILED
        case "suspended":
            return Exit.SUSPENDED
        case _:
            return Exit.INTERRUPTED
