"""`limits`, `set-pool`, `set-rate`: what a store's pools and rates give, and changing that."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from engine import Engine, LimitState
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import by_and_why, clock, counted, instant
from engine.cli.tables import table_of
from eventstore import EventStore

__all__ = ["set_pool", "set_rate", "show"]


async def show(store: EventStore, output: Output) -> Exit:
    """List the limits of a store."""
    async with Engine(store) as client:
        found = await client.limits()
    if output.json:
        output.document([_document(each) for each in found])
    elif found:
        output.show(_table(found))
    else:
        output.line("no pools and no rates in this store")
    return Exit.COMPLETED


async def set_pool(store: EventStore, output: Output, name: str, slots: int, *, reason: str, by: str) -> Exit:
    """Change a pool."""
    async with Engine(store) as client:
        await client.set_pool(name, slots, by=by, reason=reason)
        return await _said(client, output, name)


async def set_rate(store: EventStore, output: Output, name: str, rate: str, *, reason: str, by: str) -> Exit:
    """Change a rate."""
    async with Engine(store) as client:
        await client.set_rate(name, rate, by=by, reason=reason)
        return await _said(client, output, name)


async def _said(client: Engine, output: Output, name: str) -> Exit:
    found = next(each for each in await client.limits() if each.name == name)
    if output.json:
        output.document(_document(found))
    else:
        output.line(f"{'pool' if found.seconds is None else 'rate'} {name} gives {_gives(found)} from now on")
    return Exit.COMPLETED


def _gives(limit: LimitState) -> str:
    if limit.seconds is None:
        return f"{limit.limit:,} at once"
    return f"{counted(limit.limit, 'start')} in {limit.seconds:g} s"


def _table(limits: tuple[LimitState, ...]) -> Table:
    table = table_of("limit", "gives", "since", "")
    for limit in limits:
        said = by_and_why(limit.by, limit.reason).strip()
        table.add_row(limit.name, _gives(limit), clock(limit.at), said)
    return table


def _document(limit: LimitState) -> dict[str, Any]:
    return {
        "name": limit.name,
        "limit": limit.limit,
        "window_seconds": limit.seconds,
        "since": instant(limit.at),
        "by": limit.by or None,
        "reason": limit.reason or None,
    }
