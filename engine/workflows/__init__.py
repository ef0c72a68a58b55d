"""What workflow code may say: `@workflow`, `durable` for what plain asyncio lacks, and the typed names."""

from __future__ import annotations

from engine.workflows import durable
from engine.workflows.definition import ChildOptions, Workflow, workflow
from engine.workflows.names import Feed, Query, Received, Request, Signal, SignalMessage, State
from engine.workflows.others import ChildHandle, RunRef

__all__ = [
    "ChildHandle",
    "ChildOptions",
    "Feed",
    "Query",
    "Received",
    "Request",
    "RunRef",
    "Signal",
    "SignalMessage",
    "State",
    "Workflow",
    "durable",
    "workflow",
]
