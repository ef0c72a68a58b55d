"""The commands that repair: run again, go on behind an end, fork at a version, and what would come of that."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import (
    ByOption,
    DebugOption,
    GraceOption,
    JsonOption,
    LimitOption,
    ManyOption,
    ReasonOption,
    RowsOption,
    RunArgument,
    SomeRunArgument,
    StatusOption,
    StoreOption,
    TargetArgument,
    YesOption,
    commands,
    epilog,
    statuses_of,
)

__all__ = ["group"]

group = commands()

IdOption = Annotated[str | None, typer.Option("--id", metavar="ID", help="The id of the new run.", show_default=False)]
LeaveOption = Annotated[
    bool, typer.Option("--leave", help="Only record it; whoever works on runs of this workflow goes on with it.")
]
AtOption = Annotated[int, typer.Option("--at", metavar="VERSION", min=1, help="The last event that it begins with.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TASK=VALUE",
        help="The result of a task that is under way there, or whose outcome stands there; may be given again.",
        show_default=False,
    ),
]


@group.command(
    epilog=epilog(
        "holdfast rerun shop.py nightly-k7m2qd --reason 'the source was wrong'",
        "holdfast rerun shop.py --workflow nightly --status failed --limit 5 --yes",
    )
)
def rerun(
    *,
    target: TargetArgument,
    run_id: SomeRunArgument = None,
    new_id: IdOption = None,
    leave: LeaveOption = False,
    workflow: ManyOption = None,
    status: StatusOption = None,
    limit: LimitOption = 100,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a run again: a new one from the start, with the same workflow, arguments and first signals; and watch it.

    The other run is left as it is. Many at once with --workflow and --status: they are shown, and rerun with --yes;
    these are only recorded.
    """
    from engine.cli import repairing  # noqa: PLC0415 - see `doing`

    many = repairing.many_of(run_id, workflow, statuses_of(status), ("failed",), limit=limit, yes=yes)
    doing.work(
        lambda given: repairing.rerun(given, run_id, many, new_id=new_id, leave=leave, reason=reason),
        target=target,
        words=None,
        store=store,
        grace=grace,
        json=json,
        debug=debug,
        by=by,
        must_exist=True,
    )


@group.command(
    epilog=epilog(
        "holdfast reopen shop.py nightly-k7m2qd --reason 'the warehouse is back'",
        "holdfast reopen shop.py --workflow nightly --status failed --yes",
    )
)
def reopen(
    *,
    target: TargetArgument,
    run_id: SomeRunArgument = None,
    leave: LeaveOption = False,
    workflow: ManyOption = None,
    status: StatusOption = None,
    limit: LimitOption = 100,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a run that failed, or was cancelled or terminated, go on behind its end; and watch it.

    The task whose failure ended it is tried anew, under the same key; what was completed is not run again. Many at once
    with --workflow and --status: they are shown, and reopened with --yes; these are only recorded.
    """
    from engine.cli import repairing  # noqa: PLC0415 - see `doing`

    many = repairing.many_of(run_id, workflow, statuses_of(status), ("failed",), limit=limit, yes=yes)
    doing.work(
        lambda given: repairing.reopen(given, run_id, many, leave=leave, reason=reason),
        target=target,
        words=None,
        store=store,
        grace=grace,
        json=json,
        debug=debug,
        by=by,
        must_exist=True,
    )


@group.command(
    epilog=epilog(
        "holdfast fork shop.py nightly-k7m2qd --at 41 --reason 'load is mended'",
        "holdfast fork shop.py nightly-k7m2qd --at 41 --set 'extract#1=[1, 2]' --id nightly-fixed",
    )
)
def fork(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    at: AtOption,
    substitute: SetOption = None,
    new_id: IdOption = None,
    leave: LeaveOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a new run that has lived through another one's history up to a version, and watch it go on from there.

    With the target's code as it is now. If VERSION is a fact (a task completed, say), what follows from that is decided
    anew. The other run is left as it is.
    """
    from engine.cli import repairing  # noqa: PLC0415 - see `doing`

    doing.work(
        lambda given: repairing.fork(
            given, run_id, at=at, words=substitute or [], new_id=new_id, leave=leave, reason=reason
        ),
        target=target,
        words=None,
        store=store,
        grace=grace,
        json=json,
        debug=debug,
        by=by,
        must_exist=True,
    )


@group.command(
    name="what-if",
    epilog=epilog(
        "holdfast what-if shop.py nightly-k7m2qd --at 41",
        "holdfast what-if shop.py nightly-k7m2qd --at 41 --set 'extract#1=[1, 2]' --json",
    ),
)
def what_if(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    at: AtOption,
    substitute: SetOption = None,
    rows: RowsOption = 40,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what would have come of a run, forked at a version: with the code as it is now, or with results given.

    It is told what happened to the run: results of its tasks, signals, timers. Only the workflow's own code runs, and
    nothing is written. --set takes any task here, also one that is called later.
    """
    from engine.cli import supposing  # noqa: PLC0415 - see `doing`

    doing.work(
        lambda given: supposing.what_if(given, run_id, at=at, words=substitute or [], rows=rows),
        target=target,
        words=None,
        store=store,
        grace=0.0,
        json=json,
        debug=debug,
        must_exist=True,
    )
