"""`complete` and `reject`: end a task that was handed out, with the token that it gave away."""

from __future__ import annotations

from typing import Any

from engine import Engine, Task
from engine.cli.output import Output
from engine.cli.problems import Exit
from eventstore import EventStore

__all__ = ["complete", "reject"]


async def complete(
    store: EventStore, output: Output, token: str, value: Any, *, task: Task[..., Any] | None, by: str, reason: str
) -> Exit:
    """End it with a result."""
    async with Engine(store) as client:
        await client.complete(token, value, task=task, by=by, reason=reason)
    return _say(output, "completed")


async def reject(store: EventStore, output: Output, token: str, text: str, *, by: str, reason: str) -> Exit:
    """End it with a failure."""
    async with Engine(store) as client:
        await client.reject(token, text, by=by, reason=reason)
    return _say(output, "rejected")


def _say(output: Output, outcome: str) -> Exit:
    text = f"{outcome}; a task that has its outcome already keeps it"
    if output.json:
        output.document({"outcome": outcome, "message": text})
    else:
        output.line(text)
    return Exit.COMPLETED
