"""The command line itself: its words, its help, and from them the calls that do the work.

What a command needs beyond its help is imported when it runs, so that help comes quickly.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Annotated, Final

import typer

from engine.cli import (
    asset_commands,
    audit_commands,
    compare_commands,
    control_commands,
    doing,
    gate_commands,
    keeping_commands,
    limit_commands,
    moving_commands,
    repair_commands,
    replay_commands,
    talk_commands,
    version_commands,
)
from engine.cli.filters import AttributeOption, SinceOption, UntilOption, attributes_of, moment_of
from engine.cli.problems import Exit
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import (
    AtMostOption,
    ByOption,
    DebugOption,
    FollowOption,
    GraceOption,
    JsonOption,
    ReasonOption,
    RunArgument,
    RunIdOption,
    StatusOption,
    StoreOption,
    TargetArgument,
    commands,
    epilog,
    statuses_of,
)

__all__ = ["app", "entry"]

_THREADS_END_SECONDS: Final = 1.0

app = commands(
    name="holdfast",
    help="Runs workflows that survive a crash at any point, and tells how they stand.",
    epilog=epilog(
        "holdfast run examples/flights.py",
        "holdfast run shop.py:nightly day=2026-01-31 --id nightly-2026-01-31",
        "holdfast resume shop.py",
        "holdfast runs --status failed",
        "holdfast gate shop.py",
    ),
    no_args_is_help=True,
)
app.add_typer(talk_commands.group)
app.add_typer(control_commands.group)
app.add_typer(limit_commands.group)
app.add_typer(audit_commands.group)
app.add_typer(gate_commands.group)
app.add_typer(moving_commands.group)
app.add_typer(compare_commands.group)
app.add_typer(repair_commands.group)
app.add_typer(replay_commands.group)
app.add_typer(keeping_commands.group)
app.add_typer(asset_commands.group)
app.add_typer(version_commands.group)
app.add_typer(version_commands.asset_group)
app.add_typer(version_commands.environment_group)


def entry() -> None:
    """Run the command line in `sys.argv` and end the process, also when a task's thread does not end."""
    try:
        app(prog_name="holdfast")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    else:
        code = 0
    _flush()
    left = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    for thread in left:
        thread.join(_THREADS_END_SECONDS / len(left))
    if any(thread.is_alive() for thread in left):
        os._exit(code)  # the interpreter would wait for it; what it does is not recorded as done, and will be run again
    sys.exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


@app.command(
    epilog=epilog(
        "holdfast run examples/flights.py",
        "holdfast run shop.py:nightly day=2026-01-31 limit=100 dry=true",
        """holdfast run shop.py:nightly 'tables=["orders", "items"]'""",
        "holdfast run shop.py --id nightly-1 --json",
    )
)
def run(
    *,
    target: TargetArgument,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="name=value",
            help="Arguments of the workflow, as its annotations say: text as it stands, lists and objects as JSON.",
            show_default=False,
        ),
    ] = None,
    run_id: RunIdOption = None,
    store: StoreOption = DEFAULT_STORE,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a workflow, and watch it.

    Without --id this continues the newest unfinished run of the workflow with the same arguments, or else starts a new
    one: after a crash, the same command again goes on from where the history ends. Ctrl-C stops gracefully.
    """
    from engine.cli import session  # noqa: PLC0415 - see the module

    async def work(given: session.Session) -> Exit:
        return await session.run(given, run_id=run_id)

    doing.work(work, target=target, words=arguments or [], store=store, grace=grace, json=json, debug=debug)


@app.command(
    epilog=epilog(
        "holdfast resume shop.py nightly-k7m2qd", "holdfast resume shop.py", "holdfast resume shop.py:nightly --json"
    )
)
def resume(
    *,
    target: TargetArgument,
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run to go on with; all unfinished ones without.", show_default=False),
    ] = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a run, or with all unfinished runs of the target's workflows.

    Suspended runs are tried again with the code as it is now.
    """
    from engine.cli import session  # noqa: PLC0415 - see the module

    async def work(given: session.Session) -> Exit:
        return await (session.resume_all(given) if run_id is None else session.resume_one(given, run_id))

    doing.work(work, target=target, words=None, store=store, grace=grace, json=json, debug=debug, by=by, reason=reason)


@app.command(
    epilog=epilog(
        "holdfast runs",
        "holdfast runs --status running --status suspended",
        "holdfast runs --parent nightly-1 --json",
        "holdfast runs --attribute region=eu --attribute amount=3 --since 2d",
    )
)
def runs(
    *,
    workflow: Annotated[str | None, typer.Option("--workflow", metavar="NAME", help="Runs of this one only.")] = None,
    status: StatusOption = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="RUN", help="Only the children of this run.", show_default=False)
    ] = None,
    attribute: AttributeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: AtMostOption = 20,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CURSOR",
            help='The page behind this one: its cursor is told below it, and with --json is "next" of its last run.',
            show_default=False,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List runs, newest first.

    Several conditions must hold together; a run is taken to be as old as its first event.
    """
    from engine.cli import reading  # noqa: PLC0415 - see the module

    statuses, attributes = statuses_of(status), attributes_of(attribute)
    begun, ended = moment_of(since, "--since"), moment_of(until, "--until")
    doing.read(
        lambda given, output: reading.runs(
            given,
            output,
            workflow=workflow,
            status=statuses,
            parent=parent,
            limit=limit,
            attributes=attributes,
            since=begun,
            until=ended,
            after=after,
        ),
        store=store,
        json=json,
        debug=debug,
    )


@app.command(
    epilog=epilog(
        "holdfast show nightly-k7m2qd", "holdfast show nightly-k7m2qd --at 41", "holdfast show nightly-k7m2qd --json"
    )
)
def show(
    *,
    run_id: RunArgument,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="VERSION", min=1, help="As it stood behind this event.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how a run stands: status, arguments, result or error, tasks, timers, children, and what was said to it.

    Read from its history alone, up to any version: its code is not needed, and not run.
    """
    from engine.cli import reading  # noqa: PLC0415 - see the module

    doing.read(
        lambda given, output: reading.show(given, output, run_id, at=at, every_frame=debug),
        store=store,
        json=json,
        debug=debug,
    )


@app.command(
    epilog=epilog(
        "holdfast history nightly-k7m2qd",
        "holdfast history nightly-k7m2qd --follow",
        "holdfast history nightly-k7m2qd --json > nightly.jsonl",
    )
)
def history(
    *,
    run_id: RunArgument,
    after: Annotated[int, typer.Option("--after", metavar="VERSION", min=0, help="Only events behind this one.")] = 0,
    follow: FollowOption = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the events of a run, one per line; as JSON lines with --json."""
    from engine.cli import reading  # noqa: PLC0415 - see the module

    doing.read(
        lambda given, output: reading.history(given, output, run_id, after=after, follow=follow),
        store=store,
        json=json,
        debug=debug,
    )


def _show_versions(asked: bool) -> None:
    if asked:
        from engine.cli.versions import show_versions  # noqa: PLC0415 - see the module

        show_versions()
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of holdfast, Python and SQLite.",
            callback=_show_versions,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """What can be said before a command."""
