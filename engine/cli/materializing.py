"""`plan` and `materialize`: what is stale and why, and an engine that makes exactly that, watched until it is through.

`materialize` goes on with the newest unfinished run of the same request if there is one: killed at any moment, the same
command again continues. The plan of a run is in its history, so what it goes on with is what was planned then.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec.structs import replace

from engine import Engine, RunHandle, RunState
from engine.assets import Definitions, Plan, Request
from engine.cli.asset_desk import Desk
from engine.cli.asset_lines import AssetLines
from engine.cli.asset_summary import asset_document, asset_summary
from engine.cli.asset_tally import Making, plan_of
from engine.cli.others import look_at_others
from engine.cli.plan_view import plan_document, plan_headline, plan_view
from engine.cli.problems import Exit, Problem
from engine.cli.progress import Screen, View
from engine.cli.readable import clock
from engine.cli.session import Session, catch_up, exit_of, new_id, say_paused, unfinished, watch, working
from engine.cli.stopping import StopRequest
from engine.errors import RunNotFound

__all__ = ["materialize", "show_plan"]


async def show_plan(desk: Desk, request: Request) -> Exit:
    """Say what would be made, and why."""
    plan = await _planned(desk, request)
    if desk.output.json:
        desk.output.document(plan_document(plan, desk.assets.definitions))
    else:
        desk.output.show(plan_view(plan, desk.assets.definitions))
    return Exit.COMPLETED


async def materialize(desk: Desk, request: Request, *, run_id: str | None) -> Exit:
    """Make what is stale of what is asked for, or go on with making it."""
    session = desk.session(reason=request.reason)
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        now = desk.clock.now()
        begun = await _begun(desk, request, run_id)
        if begun is not None:
            making = Making.of(begun, now=now, store_words=session.store_words)
            _say_it_goes_on(desk, making)
        else:
            plan = await _planned(desk, request)
            if not plan.steps:
                return _nothing(desk, plan)
            if not desk.output.json:
                desk.output.show(plan_view(plan, desk.assets.definitions))
                desk.output.line("")
            workflow = desk.assets.materialize.name
            state = RunState(run_id=run_id or new_id(workflow), workflow=workflow)
            making = Making.of(state, now=now, plan=plan, store_words=session.store_words)
        async with working(session, [making], stop, _view(desk, making)) as (engine, view):
            handle = await _handle(desk, engine, making)
            looking = asyncio.get_running_loop().create_task(look_at_others(desk, making, view))
            try:
                await watch(session, stop, engine, view, [(handle, making)])
            finally:
                looking.cancel()
                await asyncio.wait([looking])
        return await _report(desk, session, making, stop)


async def _handle(desk: Desk, engine: Engine, making: Making) -> RunHandle[Any]:
    if making.version_before or making.plan is None:
        return engine.run(making.run_id)
    return await engine.start(desk.assets.materialize(making.plan), id=making.run_id)


async def _planned(desk: Desk, request: Request) -> Plan:
    return await desk.assets.plan(
        *request.select,
        partitions=request.partitions,
        environment=request.environment,
        force=request.force,
        config=request.config,
        by=request.by,
        reason=request.reason,
    )


# ------------------------------------------------------------------------------------------------ which run


async def _begun(desk: Desk, request: Request, run_id: str | None) -> RunState | None:
    """The run that is to be gone on with, as it stands; None if there is none."""
    definitions, workflow = desk.assets.definitions, desk.assets.materialize
    async with Engine(desk.store, workflows=[workflow], only=(), storage=desk.assets.storage) as client:
        if run_id is None:
            async for handle in unfinished(client, workflow, newest_first=True):
                if _is_of(await _plan_of(handle), request, definitions):
                    return await handle.state()
            return None
        try:
            state = await client.run(run_id).state()
        except RunNotFound:
            return None
    if state.workflow != workflow.name:
        raise Problem(f"run {run_id} is of workflow {state.workflow!r}, and materializes nothing")
    plan = plan_of(state)
    if plan is not None and _bare(request) != Request() and not _is_of(plan, request, definitions):
        raise Problem(
            f"run {run_id} was asked for something else",
            hint=f"It goes on with:\n  {desk.command('materialize', '--id', str(run_id))}",
        )
    return state


async def _plan_of(handle: RunHandle[Any]) -> Plan | None:
    """The plan of a run, of whose history only the beginning is read."""
    state = RunState(run_id=handle.id)
    async for recorded in handle.events():
        state.apply(recorded.version, recorded.event, recorded.payload)
        break
    return plan_of(state)


def _is_of(plan: Plan | None, request: Request, definitions: Definitions) -> bool:
    """Whether a plan is of this request, whoever asked and why, and of these definitions."""
    if plan is None or any(step.node not in definitions.nodes for step in plan.steps):
        return False
    return _bare(plan.request) == _bare(request)


def _bare(request: Request) -> Request:
    """The request without who asks, and why."""
    return replace(request, by="", reason="")


def _words(request: Request) -> list[str]:
    """The options that ask for it."""
    words = [word for each in request.select for word in ("--select", each)]
    words += ["--partitions", request.partitions] if request.partitions else []
    words += ["--env", request.environment] if request.environment != "prod" else []
    words += ["--force"] if request.force else []
    for key, own in request.config.items():
        words += [word for name, value in own.items() for word in ("--config", f"{key}.{name}={_plain(value)}")]
    return words


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# ------------------------------------------------------------------------------------------------ what is said


def _view(desk: Desk, making: Making) -> View:
    if not desk.output.live:
        return AssetLines(desk.output, [making])
    from engine.cli.asset_live import Tree, asset_frame  # noqa: PLC0415 - not needed where there is no terminal

    tree = Tree.of(desk.assets.definitions)
    return Screen(
        desk.output,
        [making],
        desk.clock,
        draw=lambda now, height, note: asset_frame(making, tree, now=now, height=height, stopping=note),
    )


def _say_it_goes_on(desk: Desk, making: Making) -> None:
    if making.over or making.plan is None or desk.output.json:
        return
    desk.output.line(f"goes on with what was planned at {clock(making.plan.at)}, run {making.run_id}")


def _nothing(desk: Desk, plan: Plan) -> Exit:
    definitions = desk.assets.definitions
    code = Exit.FAILED if plan.blocked else Exit.COMPLETED
    if desk.output.json:
        desk.output.document(
            {
                "run": None,
                "status": "blocked" if plan.blocked else "nothing to do",
                "plan": plan_document(plan, definitions),
            }
        )
    elif plan.blocked:
        desk.output.show(plan_view(plan, definitions))
    else:
        desk.output.line(plan_headline(plan, definitions))
    return code


async def _report(desk: Desk, session: Session, making: Making, stop: StopRequest) -> Exit:
    if stop.asked and not making.over:
        await catch_up(session, [making])
    now, output = desk.clock.now(), desk.output
    blocked = {} if making.plan is None else making.plan.blocked
    if output.json:
        output.document({**asset_document(making, now=now, interrupted=stop.asked), "blocked": blocked})
    else:
        output.line("")
        output.show(asset_summary(making, now=now, interrupted=stop.asked, every_frame=desk.debug))
        _say_how_to_go_on(desk, making)
        for name, why in list(blocked.items())[:5]:
            output.line(f"  ⊘ {name} was blocked: {why}", style="yellow")
    code = exit_of(making)
    return Exit.FAILED if code is Exit.COMPLETED and blocked else code


def _say_how_to_go_on(desk: Desk, making: Making) -> None:
    if making.over and making.state.status != "suspended":
        return
    output = desk.output
    asked = [] if making.plan is None else _words(making.plan.request)
    output.line("")
    if making.state.version == 0:
        output.line("  It had not begun. The same command starts it.")
        return
    if making.state.status == "suspended":
        output.line("  With code that fits its history, it goes on:")
    else:
        output.line("  Nothing recorded is lost. To go on, the same command again:")
    output.line(f"    {desk.command('materialize', *asked)}", style="bold")
    say_paused(output, [making])
