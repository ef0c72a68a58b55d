"""`export`: the history of a run as a file, to be kept with the tests of its workflow and replayed there."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from engine import Engine
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.redaction import Redaction
from engine.errors import RepairRefused, RunPrunedError
from eventstore import EventStore

__all__ = ["export"]


async def export(store: EventStore, output: Output, run_id: str, *, redact: bool, keep: Sequence[str]) -> Exit:
    """One line for the run, then one for each event, all of it JSON."""
    redaction = Redaction(secret=secrets.token_bytes(32), keep=keep) if redact else None
    async with Engine(store) as client:
        state = await client.run(run_id).state()  # that there is one, before anything is written
        if state.pruned is not None:
            raise RunPrunedError(run_id)
        if state.destroyed is not None:
            raise RepairRefused(
                f"payloads of run {run_id!r} were destroyed: its history cannot be replayed, nor in a test."
                " holdfast history --json prints what there is, and holdfast export --out moves it"
            )
        output.document({"holdfast": "history", "form": 1, "run": run_id, "redacted": redact})
        async for item in client.run(run_id).events():
            line: dict[str, Any] = {"version": item.version}
            line["header"] = Raw(item.header) if redaction is None else redaction.header(item)
            payload = item.payload if redaction is None else redaction.payload(item)
            if payload is not None:
                line["payload"] = Raw(payload)
            output.document(line)
    return Exit.COMPLETED
