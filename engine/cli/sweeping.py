"""`sweep`: what lies in a storage and nothing names any more, shown and asked about, and what went."""

from __future__ import annotations

from datetime import timedelta

from engine import LargeValues
from engine.cli.keeping import asked, is_asking
from engine.cli.output import Output
from engine.cli.problems import Exit, Problem
from engine.cli.readable import amount, counted
from engine.cli.stores import opened
from engine.storage import Swept
from eventstore import EventStore

__all__ = ["sweep"]


async def sweep(store: EventStore, output: Output, *, older_than: timedelta, also: tuple[str, ...], yes: bool) -> Exit:
    """Show what nobody names, ask, and take it away."""
    if not isinstance(store, LargeValues):
        raise Problem(
            "which storage is to be swept? Say it behind the URL of the store that has its values there, as in"
            " --store 'sqlite:///holdfast.db?storage=values'"
        )
    looked = await _sweep(store, also, older_than, look=True)
    if not output.json:
        output.line(
            f"{counted(looked.objects, 'object')}, {amount(looked.bytes)}, in {store.storage.name} are named by"
            f" nothing, and older than {counted(older_than.days, 'day')}; {looked.kept:,} stay"
        )
    do = bool(looked.objects) and asked(output, f"take {counted(looked.objects, 'object')} away for good?", yes=yes)
    done = await _sweep(store, also, older_than, look=False) if do else Swept(0, 0, 0, looked.kept)
    if output.json:
        output.document(
            {
                "storage": store.storage.name,
                "objects": looked.objects,
                "bytes": looked.bytes,
                "done": do,
                "objects_swept": done.objects,
                "bytes_swept": done.bytes,
                "drafts_swept": done.drafts,
                "kept": done.kept,
            }
        )
    elif do:
        output.line(f"{counted(done.objects, 'object')} taken away, {amount(done.bytes)}")
    elif looked.objects:
        output.line("nothing was taken away" + ("" if is_asking(output) else "; --yes does it"))
    return Exit.COMPLETED


async def _sweep(store: LargeValues, also: tuple[str, ...], older_than: timedelta, *, look: bool) -> Swept:
    """What others name is asked anew each time: they go on writing."""
    keep: set[str] = set()
    for url in also:
        async with opened(url, read_only=True, as_it_is=True) as other:
            keep |= await LargeValues(other, store.storage).keys()
    return await store.sweep(keep, grace=older_than.total_seconds(), look=look)
