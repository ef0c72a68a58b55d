"""The commands that hold a run, let it go on, or end it; and those that hold a workflow. They need no code of it."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import (
    UNFINISHED,
    ByOption,
    DebugOption,
    JsonOption,
    LimitOption,
    ManyOption,
    ReasonOption,
    RunArgument,
    SomeRunArgument,
    StatusOption,
    StoreOption,
    YesOption,
    by_whom,
    commands,
    epilog,
    statuses_of,
)

__all__ = ["group"]

group = commands()

WorkflowOption = Annotated[
    str | None,
    typer.Option("--workflow", metavar="NAME", help="All runs of this workflow, also future ones.", show_default=False),
]


@group.command(
    epilog=epilog(
        "holdfast cancel nightly-k7m2qd --reason 'wrong day'",
        "holdfast cancel --workflow nightly --status paused --limit 5 --yes",
    )
)
def cancel(
    *,
    run_id: SomeRunArgument = None,
    workflow: ManyOption = None,
    status: StatusOption = None,
    limit: LimitOption = 100,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask for a run to be cancelled. The request is recorded; the workflow may clean up.

    Many at once with --workflow and --status: they are shown, and cancelled with --yes.
    """
    from engine.cli import control, searching  # noqa: PLC0415 - see `doing`

    many = searching.many_of(run_id, workflow, statuses_of(status), UNFINISHED, limit=limit, yes=yes)
    doing.change(
        lambda given, output: (
            control.cancel(given, output, run_id or "", reason=reason, by=by_whom(by))
            if many is None
            else control.cancel_many(given, output, many, reason=reason, by=by_whom(by))
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(epilog=epilog("holdfast terminate nightly-k7m2qd --reason 'its code spins'"))
def terminate(
    *,
    run_id: RunArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End a run without its code: it cannot clean up, as it can with cancel.

    Its children are ended as their calls said, its parent is told. Takes effect when a worker has the run.
    """
    from engine.cli import control  # noqa: PLC0415 - see `doing`

    doing.change(
        lambda given, output: control.terminate(given, output, run_id, reason=reason, by=by_whom(by)),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast pause nightly-k7m2qd --reason 'the warehouse is down'",
        "holdfast pause --workflow nightly --by ops",
    )
)
def pause(
    *,
    run_id: SomeRunArgument = None,
    workflow: WorkflowOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let nothing of a run begin, or of all runs of a workflow.

    Attempts under way end and are recorded, and what arrives is kept; unpause lets it go on.
    """
    from engine.cli import control  # noqa: PLC0415 - see `doing`

    one, all_ = _which(run_id, workflow, "pause")
    doing.change(
        lambda given, output: (
            control.pause(given, output, one, reason=reason, by=by_whom(by))
            if one is not None
            else control.pause_workflow(given, output, all_, reason=reason, by=by_whom(by))
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(epilog=epilog("holdfast unpause nightly-k7m2qd", "holdfast unpause --workflow nightly"))
def unpause(
    *,
    run_id: SomeRunArgument = None,
    workflow: WorkflowOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a paused run go on, with everything that arrived meanwhile; or all runs of a paused workflow."""
    from engine.cli import control  # noqa: PLC0415 - see `doing`

    one, all_ = _which(run_id, workflow, "unpause")
    doing.change(
        lambda given, output: (
            control.unpause(given, output, one, reason=reason, by=by_whom(by))
            if one is not None
            else control.unpause_workflow(given, output, all_, reason=reason, by=by_whom(by))
        ),
        store=store,
        json=json,
        debug=debug,
    )


def _which(run_id: str | None, workflow: str | None, verb: str) -> tuple[str | None, str]:
    """The run, or else the workflow: one of them must be named."""
    if (run_id is None) == (workflow is None):
        both = "not both" if run_id is not None else f"as in holdfast {verb} nightly-k7m2qd"
        raise typer.BadParameter(f"name a run, or a workflow with --workflow; {both}", param_hint="RUN")
    if workflow is not None and not workflow:
        raise typer.BadParameter("it is empty", param_hint="--workflow")
    return run_id, workflow or ""
