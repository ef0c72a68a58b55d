"""The command that runs the code of a run against its history, to look at it."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import JsonOption, RunArgument, StoreOption, TargetArgument, commands, epilog

__all__ = ["group"]

group = commands()


@group.command(
    epilog=epilog(
        "holdfast replay shop.py nightly-k7m2qd",
        "holdfast replay shop.py nightly-k7m2qd --to 41 --json",
        "holdfast replay shop.py nightly-k7m2qd --to 41 --debug",
        "holdfast replay shop.py nightly-k7m2qd --break shop.py:52",
    )
)
def replay(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="VERSION", min=1, help="Up to this event; to the end without.", show_default=False
        ),
    ] = None,
    breaks: Annotated[
        list[str] | None,
        typer.Option(
            "--break",
            metavar="FILE:LINE",
            help="Open pdb where the replay comes to this line; may be given again. breakpoint() does so, too.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Open pdb where the replay has come to; show tracebacks in full.")
    ] = False,
) -> None:
    """Run the code of a run against its history, up to any event, and show where it stands there.

    For each branch of the workflow: what it awaits, its stack, its locals; then what was decided so far. Nothing is
    changed: the store is opened read-only, no task runs, and workers may go on meanwhile. It goes for every run. Of one
    that its code has ended it shows how it stood before that, and where an error came from. Where code and history do
    not fit it stops, shows both, and how it stood before that.

    With --debug, pdb is opened there, in the innermost frame of a branch. Nothing runs further: look at locals (p, pp,
    ll), at the stack (w, up, down), at other branches (branches, branch N); q leaves. At breakpoints the code runs:
    n, s and c go on, over an await to where its outcome stands in the history; q ends the replay.

    Exit code 0: it was replayed. 4: code and history do not fit.
    """
    from engine.cli import replaying  # noqa: PLC0415 - see `doing`

    doing.judge(
        lambda given, loaded, output: replaying.replay(
            given, loaded, output, run_id, to=to, stop=debug, breaks=breaks or ()
        ),
        target=target,
        store=store,
        json=json,
        debug=debug,
    )
