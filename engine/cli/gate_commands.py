"""The commands about changing code: whether it fits the runs there are, and histories to test it with."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import DebugOption, JsonOption, RunArgument, StoreOption, TargetArgument, commands, epilog

__all__ = ["group"]

group = commands()


@group.command(
    epilog=epilog(
        "holdfast gate shop.py --store sqlite:///runs.db",
        "holdfast gate shop.workflows:nightly --closed 100 --json",
    )
)
def gate(
    *,
    target: TargetArgument,
    closed: Annotated[
        int,
        typer.Option("--closed", metavar="NUMBER", min=0, help="Also the newest so many ended runs of each workflow."),
    ] = 0,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="NUMBER",
            min=1,
            help="Processes that replay; without it one for each processor, and one in all for few runs.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Replay every open run with the code of the target, and say which of them break, where, and what to do.

    Nothing is changed: the store is opened read-only, no task runs, and workers may go on meanwhile. Paused and
    suspended runs are replayed, too. Runs of workflows that the target does not have are counted and named. With --json
    one line for each run that breaks, and a last one with the sums.

    Exit code 0: all that were replayed fit. 4: some break.
    """
    from engine.cli import gate as gating  # noqa: PLC0415 - see `doing`

    doing.judge(
        lambda given, loaded, output: gating.gate(given, loaded, output, url=store, closed=closed, processes=processes),
        target=target,
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast export nightly-k7m2qd --redact > tests/histories/nightly.jsonl",
        "holdfast export nightly-k7m2qd --redact --keep status --keep kind",
    )
)
def export(
    *,
    run_id: RunArgument,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Placeholders of the same shape for all strings that the run was told; what it said is left out.",
        ),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="KEY", help="Keep the strings under this key; may be given again."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the history of a run as JSON lines, for a test that replays it: engine.testing.assert_replays.

    A redacted history replays as long as the code does not look into strings: values of an enum, a Literal or a tag
    need --keep; ids of runs and branches that are made of strings do not fit any more. It is JSON lines with and
    without --json. Ids, names and call sites are kept.
    """
    from engine.cli import export as exporting  # noqa: PLC0415 - see `doing`

    if keep and not redact:
        raise typer.BadParameter("it says what --redact leaves alone; say --redact, too", param_hint="--keep")
    doing.read(
        lambda given, output: exporting.export(given, output, run_id, redact=redact, keep=keep or ()),
        store=store,
        json=json,
        debug=debug,
    )
