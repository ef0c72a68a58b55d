"""The command line itself: its words, its help, and from them the calls that do the work.

What a command needs beyond its help is imported when it runs, so that help comes quickly.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, get_args

import typer

from engine import RunStatus
from engine.cli.problems import Exit, problem_of
from engine.cli.stores import DEFAULT_STORE

__all__ = ["app", "entry"]

_THREADS_END_SECONDS: Final = 1.0
_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
_EXIT_CODES: Final = """\b
Exit codes:
    0  completed
    1  failed, cancelled or terminated
    2  wrong usage: target, arguments, run id
    3  a problem with the store or a file
    4  suspended: code and history disagree
   70  a defect of holdfast
  130  interrupted; can be resumed"""


def _epilog(*examples: str, codes: bool = True) -> str:
    """What stands below the options: examples, and what exit codes mean."""
    text = "\n".join(["\b", "Examples:", *(f"  {each}" for each in examples)])
    return f"{text}\n\n{_EXIT_CODES}" if codes else text


app = typer.Typer(
    name="holdfast",
    help="Runs workflows that survive a crash at any point, and tells how they stand.",
    epilog=_epilog(
        "holdfast run examples/flights.py",
        "holdfast run shop.py:nightly day=2026-01-31 --id nightly-2026-01-31",
        "holdfast resume shop.py",
        "holdfast runs --status failed",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="FILE.py, FILE.py:workflow or module:workflow.", show_default=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]
StoreOption = Annotated[str, typer.Option("--store", metavar="URL", help="Where runs are recorded.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else, on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks in full.")]
GraceOption = Annotated[
    float,
    typer.Option(
        "--grace", metavar="SECONDS", min=0, help="How long tasks may go on after Ctrl-C; what is cut off runs again."
    ),
]


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
    epilog=_epilog(
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
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Attach to, continue or start the run of this id.")
    ] = None,
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

    _work(work, target=target, words=arguments or [], store=store, grace=grace, json=json, debug=debug)


@app.command(
    epilog=_epilog(
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

    _work(work, target=target, words=None, store=store, grace=grace, json=json, debug=debug)


@app.command(
    epilog=_epilog("holdfast runs", "holdfast runs --status running --status suspended", "holdfast runs --json")
)
def runs(
    *,
    workflow: Annotated[str | None, typer.Option("--workflow", metavar="NAME", help="Runs of this one only.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help=f"Only {', '.join(_STATUSES)}; may be given again."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="NUMBER", min=1, help="At most so many.")] = 20,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List runs, newest first."""
    from engine.cli import reading  # noqa: PLC0415 - see the module

    statuses = tuple(each for each in _STATUSES if each in (status or ()))
    if wrong := sorted(set(status or ()) - set(_STATUSES)):
        raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(_STATUSES)}", param_hint="--status")
    _read(
        lambda given, output: reading.runs(given, output, workflow=workflow, status=statuses, limit=limit),
        store=store,
        json=json,
        debug=debug,
    )


@app.command(epilog=_epilog("holdfast show nightly-k7m2qd", "holdfast show nightly-k7m2qd --json"))
def show(
    run_id: RunArgument, store: StoreOption = DEFAULT_STORE, json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Show how a run stands: status, arguments, result or error, tasks, timers.

    Read from its history alone: its code is not needed, and not run.
    """
    from engine.cli import reading  # noqa: PLC0415 - see the module

    _read(
        lambda given, output: reading.show(given, output, run_id, every_frame=debug),
        store=store,
        json=json,
        debug=debug,
    )


@app.command(
    epilog=_epilog(
        "holdfast history nightly-k7m2qd",
        "holdfast history nightly-k7m2qd --follow",
        "holdfast history nightly-k7m2qd --json > nightly.jsonl",
    )
)
def history(
    *,
    run_id: RunArgument,
    after: Annotated[int, typer.Option("--after", metavar="VERSION", min=0, help="Only events behind this one.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends or is suspended.")] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the events of a run, one per line; as JSON lines with --json."""
    from engine.cli import reading  # noqa: PLC0415 - see the module

    _read(
        lambda given, output: reading.history(given, output, run_id, after=after, follow=follow),
        store=store,
        json=json,
        debug=debug,
    )


@app.command(epilog=_epilog("holdfast cancel nightly-k7m2qd --reason 'wrong day'"))
def cancel(
    run_id: RunArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")] = "",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask for a run to be cancelled. The request is recorded; the workflow may clean up."""
    from engine.cli import reading, stores  # noqa: PLC0415 - see the module
    from engine.cli.output import Output  # noqa: PLC0415

    async def work() -> Exit:
        async with stores.opened(store, read_only=True):
            pass  # a store that is not there is not to be made
        async with stores.opened(store) as given:
            return await reading.cancel(given, Output(json=json), run_id, reason=reason, by=_user())

    _exit_with(work, debug=debug)


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


# ------------------------------------------------------------------------------------------------ from words to work


def _work(
    work: Callable[[Any], Coroutine[Any, Any, Exit]],
    *,
    target: str,
    words: list[str] | None,
    store: str,
    grace: float,
    json: bool,
    debug: bool,
) -> None:
    """`run` and `resume`: load the target, read the arguments, and only then open the store and work."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.arguments import bind  # noqa: PLC0415
    from engine.cli.output import Output  # noqa: PLC0415
    from engine.cli.session import Session  # noqa: PLC0415
    from engine.cli.targets import Target, load  # noqa: PLC0415

    output = Output(json=json)

    async def opened(loaded: Target, bound: tuple[tuple[Any, ...], dict[str, Any]]) -> Exit:
        async with stores.opened(store) as given:
            session = Session(
                target=loaded,
                bound=bound,
                store=given,
                url=store,
                output=output,
                grace=grace,
                by=_user(),
                debug=debug,
            )
            return await work(session)

    def action() -> Coroutine[Any, Any, Exit]:
        loaded = load(target)  # outside the loop: a file may do what it likes while it is loaded
        return opened(loaded, bind(loaded.only(), words) if words is not None else ((), {}))

    with output.reserved():
        _exit_with(action, debug=debug, unread=Exit.INTERRUPTED)


def _read(work: Callable[[Any, Any], Coroutine[Any, Any, Exit]], *, store: str, json: bool, debug: bool) -> None:
    """The commands that only look."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.output import Output  # noqa: PLC0415

    async def opened() -> Exit:
        async with stores.opened(store, read_only=True) as given:
            return await work(given, Output(json=json))

    _exit_with(opened, debug=debug)


def _exit_with(action: Callable[[], Coroutine[Any, Any, Exit]], *, debug: bool, unread: Exit = Exit.COMPLETED) -> None:
    """Do it, say what went wrong, and end with the exit code; `unread` is that for when nobody reads our output."""
    try:
        code = asyncio.run(action())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone (`| head`), and there is nobody to tell it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = unread
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        code = _complain(error)
    raise typer.Exit(int(code))


def _complain(error: Exception) -> Exit:
    from engine.cli.output import complain  # noqa: PLC0415 - see the module

    problem = problem_of(error)
    complain(problem)
    return problem.code


def _user() -> str:
    """Who types this, for the history."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
