"""The commands that set two histories side by side. They need no code."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import DebugOption, JsonOption, RowsOption, RunArgument, StoreOption, commands, epilog

__all__ = ["group"]

group = commands()


@group.command(
    epilog=epilog("holdfast diff nightly-k7m2qd nightly-p3x9ab", "holdfast diff nightly-k7m2qd nightly-p3x9ab --json")
)
def diff(
    *,
    left: RunArgument,
    right: Annotated[str, typer.Argument(metavar="RUN", help="The id of another.", show_default=False)],
    rows: RowsOption = 40,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show where two histories part, and what stands on either side from there on.

    Facts, decisions and their values are compared. When something happened, where, and in which attempt, is not; nor is
    the order of decisions that one fact led to, nor a turn that was taken back.
    """
    from engine.cli import comparing  # noqa: PLC0415 - see `doing`

    doing.read(
        lambda given, output: comparing.diff(given, output, left, right, rows=rows),
        store=store,
        json=json,
        debug=debug,
    )
