"""The commands that take away: histories that need not be kept, values that are to be forgotten. They need no code."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import (
    FINAL,
    ByOption,
    DebugOption,
    JsonOption,
    ReasonOption,
    RunArgument,
    StatusOption,
    StoreOption,
    by_whom,
    commands,
    epilog,
    statuses_of,
)

__all__ = ["group"]

group = commands()

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_YOUNG: Final = timedelta(days=1)
YesOption = Annotated[bool, typer.Option("--yes", help="Do it without asking; it cannot be undone.")]


@group.command(
    epilog=epilog(
        "holdfast prune --older-than 90d",
        "holdfast prune --workflow nightly --status completed --older-than 30d --keep 10 --yes --reason 'policy 7'",
        "holdfast prune --older-than 7d --payloads-only --yes --json",
    )
)
def prune(
    *,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Runs of this one only.", show_default=False)
    ] = None,
    status: StatusOption = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Runs that ended so long ago: 12h, 30d, 8w.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="NUMBER", min=0, help="Leave so many of the newest of each workflow.", show_default=False
        ),
    ] = None,
    payloads_only: Annotated[
        bool, typer.Option("--payloads-only", help="Destroy the values in the histories, and leave these.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="NUMBER", min=1, help="At most so many runs.", show_default=False)
    ] = None,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take away the histories of runs that have ended; what would go is shown first, and asked about.

    Of every event its place and its digest stay, so the log verifies as before, also against seals. Who, when and why
    stand in each run's history before anything goes. Without a terminal and without --yes it only shows. Runs that have
    not ended, and those that an open run still needs, are left.
    """
    from engine import Retention  # noqa: PLC0415 - see `doing`
    from engine.cli import keeping  # noqa: PLC0415

    if older_than is None and keep is None:
        raise typer.BadParameter(
            "say how old they must be, how many are to be kept, or both", param_hint="--older-than"
        )
    age = timedelta(0) if older_than is None else _age(older_than)
    statuses = statuses_of(status)
    if unfinished := [each for each in statuses if each not in FINAL]:
        raise typer.BadParameter(f"a run that is {unfinished[0]} has not ended", param_hint="--status")
    policy = Retention(
        workflow=workflow,
        status=statuses or None,
        keep=None if payloads_only else age,
        payloads=age if payloads_only else None,
        newest=keep or 0,
    )
    doing.change(
        lambda given, output: keeping.prune_due(
            given, output, policy, limit=limit, yes=yes, by=by_whom(by), reason=reason
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast forget order-7 --children --reason 'request 2026-114'",
        "holdfast forget order-7 --version 1 --version 9 --yes",
    )
)
def forget(
    *,
    run_id: RunArgument,
    version: Annotated[
        list[int] | None,
        typer.Option(
            "--version",
            metavar="VERSION",
            min=1,
            help="Only the value of this event; may be given again.",
            show_default=False,
        ),
    ] = None,
    children: Annotated[bool, typer.Option("--children", help="Those of its child runs, too, and of theirs.")] = False,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Destroy the values in the history of a run that has ended: arguments, results, errors, signals.

    What happened, when and in which order stays, and so do all digests, so the log verifies as before. How much would
    go is shown first, and asked about; without a terminal and without --yes it is only shown.
    """
    from engine.cli import keeping  # noqa: PLC0415 - see `doing`

    if version and children:
        raise typer.BadParameter("versions are those of one run: leave --children out", param_hint="--version")
    doing.change(
        lambda given, output: keeping.forget(
            given,
            output,
            run_id,
            versions=tuple(version or ()),
            children=children,
            yes=yes,
            by=by_whom(by),
            reason=reason,
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast sweep --store 'sqlite:///runs.db?storage=values'",
        "holdfast sweep --store 'sqlite:///runs.db?storage=values' --also sqlite:///other.db --older-than 7d --yes",
    )
)
def sweep(
    *,
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="AGE", help="What was written so long ago: 12h, 30d, 8w; 1d at least."),
    ] = "1d",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="URL",
            help="Another store that has values in this storage; may be given again.",
            show_default=False,
        ),
    ] = None,
    yes: YesOption = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take away what lies in a storage and no history names any more, as of runs that were pruned or have forgotten.

    The URL of the store says which storage, by ?storage=PLACE. Everything that the store names stays, and what the
    stores of --also name; name all that have values there, and keep nothing else in it. What would go is shown first,
    and asked about; without a terminal and without --yes it is only shown.
    """
    from engine.cli import sweeping  # noqa: PLC0415 - see `doing`

    age = _age(older_than)
    if age < _YOUNG:
        raise typer.BadParameter(
            "what is younger than a day may be about to be named: 1d or more", param_hint="--older-than"
        )
    doing.read(
        lambda given, output: sweeping.sweep(given, output, older_than=age, also=tuple(also or ()), yes=yes),
        store=store,
        json=json,
        debug=debug,
        as_it_is=False,
    )


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no age: a number and s, m, h, d or w, as in 30d", param_hint="--older-than"
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
