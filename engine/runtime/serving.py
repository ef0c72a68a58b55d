"""The workflows that an engine serves: what is given to it, checked before anything of it runs."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from engine.errors import DefinitionError
from engine.workflows import Workflow

__all__ = ["by_name"]


def by_name(workflows: Iterable[Workflow[..., Any]]) -> dict[str, Workflow[..., Any]]:
    """The workflows by their names.

    Raises `DefinitionError` for what is none, for two of one name and for types that cannot be recorded, and
    `DeterminismError` for code that would do something else at a replay.
    """
    found: dict[str, Workflow[..., Any]] = {}
    for definition in workflows:
        if not isinstance(definition, Workflow):
            raise DefinitionError(f"Engine(workflows=[...]) takes what @workflow makes, not {definition!r}")
        if found.setdefault(definition.name, definition) is not definition:
            raise DefinitionError(f"two workflows are named {definition.name!r}: give one another @workflow(name=...)")
        # Made now, so that annotations which cannot be recorded are refused before any run.
        _ = definition.arguments, definition.result
    if found:  # imported late: a client that has no workflows reads no source
        import_module("engine.workflows.screening").refuse(found.values())
    return found
