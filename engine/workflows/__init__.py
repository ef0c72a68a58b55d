"""What workflow code may say: `@workflow`, and `durable` for what plain asyncio lacks."""

from __future__ import annotations

from engine.workflows import durable
from engine.workflows.definition import Workflow, workflow

__all__ = ["Workflow", "durable", "workflow"]
