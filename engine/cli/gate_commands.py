"""The command about changing code: whether it fits the runs there are."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import DebugOption, JsonOption, StoreOption, TargetArgument, commands, epilog

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
