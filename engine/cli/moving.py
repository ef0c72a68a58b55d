"""`export --out` and `import`: what they do, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.cli.bar import Bar
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import clock, counted, instant
from engine.cli.stores import opened
from engine.moving import CheckedExport, Exported, MoveProgress, check_export, export_to_file, import_from_file
from eventstore import EventStore, SystemClock

__all__ = ["Wish", "export", "import_file"]


class Wish(Struct, frozen=True, kw_only=True):
    """What is to be exported, and by whom. `runs` None: the whole store."""

    out: Path
    runs: tuple[str, ...] | None
    pause: bool
    record: bool
    values: bool
    by: str
    reason: str


async def export(store: EventStore, output: Output, wish: Wish) -> Exit:
    """Write the file."""
    with Bar(output, SystemClock(), "writing") as bar:
        done = await export_to_file(
            store,
            wish.out,
            runs=wish.runs,
            pause=wish.pause,
            by=wish.by,
            reason=wish.reason,
            record=wish.record,
            values=wish.values,
            progress=_told_by(bar),
        )
    if output.json:
        output.document(
            {
                "file": str(done.file),
                "sha256": done.sha256,
                "runs": done.runs,
                "streams": done.streams,
                "events": done.events,
                "unfinished": done.unfinished,
                "parents": done.parents,
                "not_paused": done.not_paused,
                "values": done.values,
                "values_bytes": done.values_bytes,
                "values_elsewhere": done.values_elsewhere,
            }
        )
        return Exit.COMPLETED
    output.line(f"wrote {done.file}: {_contents(done.runs, done.streams, done.events)}")
    for line in (*_values(done), *_orphans(done.parents), *_warning(done.unfinished, paused=wish.pause)):
        output.line(line)
    for run in done.not_paused:
        output.line(f"run {run} is not paused yet: the request waits here, and goes along with it")
    return Exit.COMPLETED


async def import_file(output: Output, file: Path, *, url: str | None, by: str, reason: str) -> Exit:
    """Take a file in; with no `url` only look at it. A file that is damaged makes no store."""
    with Bar(output, SystemClock(), "checking") as bar:
        checked = await check_export(file, progress=_told_by(bar))
        if url is None:
            _say_checked(output, file, checked)
            return Exit.COMPLETED
        async with opened(url) as store:
            done = await import_from_file(store, file, by=by, reason=reason, checked=checked, progress=_told_by(bar))
    if output.json:
        document = _document(file, checked)
        output.document({**document, "new_streams": done.streams, "new_events": done.events, "same": done.same})
        return Exit.COMPLETED
    if not done.streams:
        output.line(f"nothing new in {file}: all of it is here already")
        return Exit.COMPLETED
    same = f"; {counted(done.same, 'stream')} were here already" if done.same else ""
    output.line(f"imported {_contents(checked.runs, done.streams, done.events)} from {file}{same}")
    for line in (*_values(checked), *_orphans(checked.parents), *_warning(checked.unfinished, paused=False)):
        output.line(line)
    return Exit.COMPLETED


def _told_by(bar: Bar) -> Callable[[MoveProgress], None]:
    """What tells the bar how far it is; an export or an import goes through the events more than once."""

    def tell(progress: MoveProgress) -> None:
        bar.turn_to(progress.doing)
        bar.tell_events(progress.events, progress.total)

    return tell


def _say_checked(output: Output, file: Path, checked: CheckedExport) -> None:
    if output.json:
        output.document(_document(file, checked))
        return
    output.line(f"{file} is whole: {_contents(checked.runs, checked.streams, checked.events)}")
    output.line(f"written {clock(checked.at)} from a {checked.store}, sha256 {checked.sha256}")
    for line in (*_values(checked), *_orphans(checked.parents)):
        output.line(line)


def _document(file: Path, checked: CheckedExport) -> dict[str, Any]:
    return {
        "file": str(file),
        "sha256": checked.sha256,
        "runs": checked.runs,
        "streams": checked.streams,
        "events": checked.events,
        "unfinished": checked.unfinished,
        "parents": checked.parents,
        "values": checked.values,
        "values_bytes": checked.values_bytes,
        "values_elsewhere": checked.values_elsewhere,
        "written_at": instant(checked.at),
        "from": checked.store,
    }


def _contents(runs: tuple[str, ...] | None, streams: int, events: int) -> str:
    what = "a whole store" if runs is None else counted(len(runs), "run")
    return f"{what}, {counted(events, 'event')} in {counted(streams, 'stream')}"


def _values(of: Exported | CheckedExport) -> list[str]:
    """The large values that are in a file, and those that are not."""
    lines: list[str] = []
    if of.values:
        lines.append(f"with {counted(of.values, 'large value')}, {of.values_bytes:,} bytes")
    if of.values_elsewhere:
        lines.append(
            f"{counted(of.values_elsewhere, 'large value')} that it names are not in it: they stay in their storage,"
            " and whoever reads them needs that, or a copy of it (?storage=PLACE behind the store)"
        )
    return lines


def _orphans(parents: dict[str, str]) -> list[str]:
    return [f"run {run} is a child of run {parent}, which is not in the file" for run, parent in parents.items()]


def _warning(unfinished: int, *, paused: bool) -> list[str]:
    if not unfinished or paused:
        return []
    what = "1 run has" if unfinished == 1 else f"{unfinished:,} runs have"
    return [f"{what} not ended: see that no worker goes on with the same run in two stores"]
