"""The commands that prove: verifying a log, sealing it, proving what is in it. They need no code of a workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import ByOption, DebugOption, JsonOption, ReasonOption, StoreOption, by_whom, commands, epilog

__all__ = ["group"]

group = commands()

KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="PUBLIC", help="The public key, or its file: signatures are checked, too.", show_default=False
    ),
]


@group.command(
    epilog=epilog(
        "holdfast verify",
        "holdfast verify nightly-k7m2qd",
        "holdfast verify --against /safe/shop.seal --key /safe/shop.key.pub --json",
    )
)
def verify(
    *,
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Only these runs; the whole log without.", show_default=False),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="SEAL",
            help="A seal that was kept elsewhere, or a directory of them; may be given again.",
            show_default=False,
        ),
    ] = None,
    key: KeyOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Verify that nothing was changed: digest chains, payloads, heads, and seals; names the first event of each stream.

    Without a seal that was kept elsewhere it cannot be seen that the end of the log was cut off, that a whole stream
    was removed, or that all was written anew. Ends with 8 when something is wrong.
    """
    from engine.cli import auditing  # noqa: PLC0415 - see `doing`

    if run_ids and (against or key):
        raise typer.BadParameter("a seal is over the whole log: leave RUN out", param_hint="--against")
    doing.read(
        lambda given, output: auditing.verify_log(
            given, output, run_ids=tuple(run_ids or ()), against=tuple(against or ()), key=key
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast seal --key shop.key --out /safe/shop.seal",
        "holdfast seal --key shop.key --out /safe/seals/ --every 3600 --reason 'hourly'",
    )
)
def seal(
    *,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The private key, as keygen writes it.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Where the seal is put, too: a file, or a directory that gets one file for each. Best out of reach of"
            " whoever can write the log.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every", metavar="SECONDS", min=0.05, help="Go on sealing until interrupted.", show_default=False
        ),
    ] = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Seal the log: sign the root over all that is in it, into the log and to a place outside it.

    What is sealed already is not read again. A log that no longer is what the seal outside covers is not sealed: 8.
    """
    from engine.cli import auditing  # noqa: PLC0415 - see `doing`

    doing.change_prepared(
        lambda: auditing.private_key(key),
        lambda given, output, loaded: auditing.seal_log(
            given, output, loaded, out=out, every=every, by=by_whom(by), reason=reason
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast prove nightly-k7m2qd 12 --seal /safe/shop.seal > proof.json",
        "holdfast prove --since /safe/seals/1000.seal --seal /safe/seals/2000.seal",
    )
)
def prove(
    *,
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="The run whose event is proven.", show_default=False)
    ] = None,
    version: Annotated[
        int | None,
        typer.Argument(metavar="VERSION", min=1, help="Which event of it: with all before it.", show_default=False),
    ] = None,
    seal_file: Annotated[
        Path, typer.Option("--seal", metavar="FILE", help="The seal it is proven against.", show_default=False)
    ],
    since: Annotated[
        Path | None,
        typer.Option(
            "--since",
            metavar="FILE",
            help="An earlier seal: prove that the log only grew since, instead of an event.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the proof there, not to stdout.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Prove that an event was in the log when that was sealed; or that a log is the beginning of a later one.

    The proof is one JSON document, which check-proof checks without the log. It holds the headers of the run's events
    up to that version, and of their payloads the digests only.
    """
    from engine.cli import auditing  # noqa: PLC0415 - see `doing`

    if (since is None) == (run_id is None or version is None) or (since is not None and run_id is not None):
        raise typer.BadParameter("name RUN and VERSION, or an earlier seal with --since", param_hint="RUN")
    doing.read(
        lambda given, output: auditing.prove(
            given, output, run_id=run_id or "", version=version or 0, seal_file=seal_file, since=since, out=out
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(name="check-proof", epilog=epilog("holdfast check-proof proof.json --key /safe/shop.key.pub"))
def check_proof(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The proof, as prove writes it.", show_default=False)],
    key: KeyOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check a proof, without the log. Ends with 8 when it proves nothing."""
    from engine.cli import auditing  # noqa: PLC0415 - see `doing`
    from engine.cli.output import Output  # noqa: PLC0415

    doing.exit_with(lambda: auditing.check_proof(Output(json=json), file, key=key), debug=debug)


@group.command(epilog=epilog("holdfast keygen example.com/shop --out shop.key"))
def keygen(
    *,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="What its seals call the log: best a URL without scheme.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="The private key; the public one gets .pub.", show_default=False),
    ],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a pair of keys for seals: FILE, which its user alone can read, and FILE.pub, which anybody may have."""
    from engine.cli import auditing  # noqa: PLC0415 - see `doing`
    from engine.cli.output import Output  # noqa: PLC0415

    doing.exit_with(lambda: auditing.keygen(Output(json=json), name, out), debug=debug)


@group.command(
    epilog=epilog(
        "holdfast archive --out /data/archive",
        "holdfast archive --out archive --store sqlite:///runs.db --json",
        """duckdb -c "SELECT workflow, status, count(*) FROM 'archive/runs/*.parquet' GROUP BY ALL\"""",
    )
)
def archive(
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="The archive; it is made, or brought up to date.", show_default=False
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy all events and runs into Parquet files, which DuckDB and others can query.

    Again, it adds what is new. Nothing is changed in the store, and workers may go on meanwhile. Needs the extra
    assets.
    """
    from engine.cli import archiving  # noqa: PLC0415 - see `doing`

    doing.read(lambda given, output: archiving.archive_log(given, output, out), store=store, json=json, debug=debug)
