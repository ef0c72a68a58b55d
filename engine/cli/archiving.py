"""`archive`: what it does, and what it says of it."""

from __future__ import annotations

from pathlib import Path

from msgspec import to_builtins

from engine.audit import archive
from engine.cli.bar import Bar
from engine.cli.output import Output
from engine.cli.problems import Exit
from eventstore import EventStore, SystemClock

__all__ = ["archive_log"]


async def archive_log(store: EventStore, output: Output, folder: Path) -> Exit:
    """Bring an archive up to date."""
    with Bar(output, SystemClock(), "archiving") as bar:
        done = await archive(store, folder, progress=bar.tell_events)
    if output.json:
        output.document({"folder": str(folder), **to_builtins(done)})
    else:
        new = f"{done.new_events:,} of them new" if done.new_events else "none of them new"
        output.line(f"{folder} holds {done.events:,} events in {done.parts:,} files, {new}, and {done.runs:,} runs")
    return Exit.COMPLETED
