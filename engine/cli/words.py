"""The words that several commands share: a target, a run, a store, and how a help text ends."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args

import typer

from engine import RunStatus

__all__ = [
    "FINAL",
    "UNFINISHED",
    "AtMostOption",
    "ByOption",
    "DebugOption",
    "EnvOption",
    "FollowOption",
    "GraceOption",
    "JsonOption",
    "LimitOption",
    "ManyOption",
    "PartitionsOption",
    "ReasonOption",
    "RowsOption",
    "RunArgument",
    "RunIdOption",
    "SelectOption",
    "SomeRunArgument",
    "SomeStoreOption",
    "SomeTargetArgument",
    "SomeTargetOption",
    "StatusOption",
    "StoreOption",
    "TargetArgument",
    "ValueArgument",
    "YesOption",
    "by_whom",
    "commands",
    "epilog",
    "statuses_of",
]

_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
FINAL: Final[frozenset[RunStatus]] = frozenset({"completed", "failed", "cancelled", "terminated"})
"""Of a run that has ended."""
UNFINISHED: Final = tuple(each for each in _STATUSES if each not in FINAL and each != "pruned")
"""Of one that has not, or has not even begun."""

_EXIT_CODES: Final = """\b
Exit codes:
    0  completed, or done
    1  failed, cancelled or terminated
    2  wrong usage: target, arguments, run id
    3  a problem with the store or a file
    4  suspended, or would be: code and history disagree, or its worker died again and again
    5  refused: the run does not take this request, or cannot be repaired so
    6  the run has ended
    7  the time for waiting is over; nothing was taken back
    8  does not verify: the log, a seal or a proof is not what it was
   70  a defect of holdfast
  130  interrupted; can be resumed"""

TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="FILE.py, FILE.py:workflow or module:workflow.", show_default=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]
ValueArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="VALUE",
        help="JSON of the declared type. What is no JSON of it is tried as a string: a bare word does for a str or a"
        " date. - reads it from standard input; one that begins with a dash comes behind --.",
        show_default=False,
    ),
]
SomeRunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]
StatusOption = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATUS", help=f"Only {', '.join(_STATUSES)}; may be given again."),
]
GraceOption = Annotated[
    float,
    typer.Option(
        "--grace", metavar="SECONDS", min=0, help="How long tasks may go on after Ctrl-C; what is cut off runs again."
    ),
]
ManyOption = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Many: runs of this workflow.", show_default=False)
]
LimitOption = Annotated[int, typer.Option("--limit", metavar="NUMBER", min=1, help="Many: at most so many.")]
AtMostOption = Annotated[int, typer.Option("--limit", metavar="NUMBER", min=1, help="At most so many.")]
RunIdOption = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Attach to, continue or start the run of this id.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Many: do it; without this they are only shown.")]
RowsOption = Annotated[int, typer.Option("--rows", metavar="NUMBER", min=1, help="At most so many lines.")]
FollowOption = Annotated[bool, typer.Option("--follow", help="Go on until the run ends or is suspended.")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="Where runs are recorded; with ?storage=PLACE behind it: where large values lie."
    ),
]
SomeStoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where runs and assets are recorded; without it what pyproject.toml says, or sqlite:///holdfast.db.",
        show_default=False,
    ),
]
_DEFINITIONS: Final = (
    "FILE.py, FILE.py:definitions or module:definitions; without it what [tool.holdfast] in pyproject.toml says."
)
SomeTargetArgument = Annotated[str | None, typer.Argument(metavar="[TARGET]", help=_DEFINITIONS, show_default=False)]
SomeTargetOption = Annotated[
    str | None, typer.Option("--target", metavar="TARGET", help=_DEFINITIONS, show_default=False)
]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="ASSETS",
        help="Only these: orders, +orders, orders+, tag:daily, group:sales, key:raw/*, owner:ann, stale; a comma keeps"
        " what both sides mean, ! takes away. May be given again.",
    ),
]
PartitionsOption = Annotated[
    str,
    typer.Option(
        "--partitions", metavar="KEYS", help="Only these: 2013-01..2013-06,2013-09, or 2013-01.. and the like."
    ),
]
EnvOption = Annotated[str, typer.Option("--env", metavar="NAME", help="The environment: a branch of the catalog.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else, on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks in full.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="WHO", help="Who asks, for the history; without it: who you are.", show_default=False),
]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")]


def by_whom(by: str | None) -> str:
    """Who asks: what was said, or else who is typing."""
    from engine.cli.doing import user  # noqa: PLC0415 - see there

    return user() if by is None else by


def statuses_of(words: list[str] | None) -> tuple[RunStatus, ...]:
    """The statuses that were named. Raises `typer.BadParameter` for what is none."""
    if wrong := sorted(set(words or ()) - set(_STATUSES)):
        raise typer.BadParameter(f"{wrong[0]!r} is none of {', '.join(_STATUSES)}", param_hint="--status")
    return tuple(each for each in _STATUSES if each in (words or ()))


def epilog(*examples: str, codes: bool = True) -> str:
    """What stands below the options: examples, and what exit codes mean."""
    text = "\n".join(["\b", "Examples:", *(f"  {each}" for each in examples)])
    return f"{text}\n\n{_EXIT_CODES}" if codes else text


def commands(**settings: Any) -> typer.Typer:
    """A group of commands, with help as this house writes it."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )
