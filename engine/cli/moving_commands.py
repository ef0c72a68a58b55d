"""The commands that take runs out of a store, as a file, and bring them in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import ByOption, DebugOption, JsonOption, ReasonOption, StoreOption, by_whom, commands, epilog

__all__ = ["group"]

group = commands()

EverythingOption = Annotated[bool, typer.Option("--all", help="The whole store, into the file of --out.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write all that the runs are, with their child runs, into this new file, for holdfast import.",
        show_default=False,
    ),
]
PauseOption = Annotated[
    bool, typer.Option("--pause", help="Pause the runs first, so that they do not go on here: with --out.")
]
ReadOnlyOption = Annotated[
    bool, typer.Option("--read-only", help="Write nothing into the store, not even who did this: with --out.")
]
NoValuesOption = Annotated[
    bool,
    typer.Option("--no-values", help="Leave large values where they lie, and name them only: with --out."),
]
RedactOption = Annotated[
    bool,
    typer.Option(
        "--redact",
        help="Placeholders of the same shape for all strings that the run was told; what it said is left out.",
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="KEY", help="Keep the strings under this key; may be given again."),
]


@group.command(
    epilog=epilog(
        "holdfast export --all --out shop.holdfast --reason 'to the new server'",
        "holdfast export nightly-k7m2qd --pause --out nightly.holdfast",
        "holdfast export nightly-k7m2qd --redact > tests/histories/nightly.jsonl",
        "holdfast export nightly-k7m2qd --redact --keep status --keep kind",
    )
)
def export(
    *,
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="The id of a run; several with --out.", show_default=False)
    ] = None,
    everything: EverythingOption = False,
    out: OutOption = None,
    pause: PauseOption = False,
    read_only: ReadOnlyOption = False,
    no_values: NoValuesOption = False,
    redact: RedactOption = False,
    keep: KeepOption = None,
    by: ByOption = None,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write runs, or the whole store, into a file to move them; or, without --out, the history of a run for a test.

    The file of --out is compressed, and holds ids, digests, payloads, mail and pending timers, as they are at one
    moment; large values, too, if the URL of the store says where they lie. A run must not go on in two stores: pause it
    first (--pause), or let no worker open this store again.

    Without --out: JSON lines, with and without --json, for engine.testing.assert_replays. A redacted history replays
    as long as the code does not look into strings: values of an enum, a Literal or a tag need --keep; ids of runs and
    branches that are made of strings do not fit any more. Ids, names and call sites are kept.
    """
    runs = tuple(run_ids or ())
    if out is None:
        moved = everything or pause or read_only or no_values
        _history(runs, moved=moved, redact=redact, keep=keep, given=(store, json, debug))
        return
    if everything == bool(runs):
        raise typer.BadParameter("name runs, or say --all for the whole store", param_hint="RUN")
    if redact or keep:
        raise typer.BadParameter("what is to be moved is not redacted: leave --out out", param_hint="--redact")
    if pause and (everything or read_only):
        raise typer.BadParameter(
            "it pauses the runs that are named, which is written into the store: holdfast pause --workflow pauses all"
            " runs of a workflow",
            param_hint="--pause",
        )
    from engine.cli import moving  # noqa: PLC0415 - see `doing`

    wish = moving.Wish(
        out=out,
        runs=None if everything else runs,
        pause=pause,
        record=not read_only,
        values=not no_values,
        by=by_whom(by),
        reason=reason,
    )
    do = doing.read if read_only else doing.change
    do(
        lambda given, output: moving.export(given, output, wish),
        store=store,
        json=json,
        debug=debug,
        as_it_is=False,
    )


def _history(
    runs: tuple[str, ...], *, moved: bool, redact: bool, keep: list[str] | None, given: tuple[str, bool, bool]
) -> None:
    from engine.cli import export as exporting  # noqa: PLC0415 - see `doing`

    if moved:
        raise typer.BadParameter("it needs --out, the file to write", param_hint="--out")
    if len(runs) != 1:
        raise typer.BadParameter("name one run, or a file with --out", param_hint="RUN")
    if keep and not redact:
        raise typer.BadParameter("it says what --redact leaves alone; say --redact, too", param_hint="--keep")
    store, json, debug = given
    doing.read(
        lambda opened, output: exporting.export(opened, output, runs[0], redact=redact, keep=keep or ()),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    name="import",
    epilog=epilog(
        "holdfast import shop.holdfast --store sqlite:///shop.db --reason 'to the new server'",
        "holdfast import nightly.holdfast --check",
    ),
)
def import_file(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What holdfast export --out wrote.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Look whether the file is whole; touch no store.")] = False,
    by: ByOption = None,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take in the runs, or the whole store, of a file: all of it or nothing, in a store that is made if there is none.

    Every digest is computed again first. What is there already, with the same events, stays as it is; a run that is
    there with other events refuses all of it. Large values in it go where the URL of the store says. Runs that have
    not ended go on here as soon as a worker opens the store.
    """
    from engine.cli import moving  # noqa: PLC0415 - see `doing`
    from engine.cli.output import Output  # noqa: PLC0415

    output = Output(json=json)
    url = None if check else store
    doing.exit_with(lambda: moving.import_file(output, file, url=url, by=by_whom(by), reason=reason), debug=debug)
