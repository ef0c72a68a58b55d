"""All checks, collected from the modules of themes: the names of coroutine functions are the list."""

from __future__ import annotations

from inspect import getmembers, iscoroutinefunction
from types import ModuleType
from typing import Final

from engine.executors.conformance import contacts, ending, outcomes, places
from engine.executors.conformance.harness import Check

__all__ = ["CHECKS", "name_of"]


def name_of(check: Check) -> str:
    """The theme and the name of a check: ``places.as_many_run_at_once_as_there_are_slots``."""
    return f"{check.__module__.rpartition('.')[2]}.{check.__name__}"


def _checks_of(module: ModuleType) -> tuple[Check, ...]:
    """Every public coroutine function that the module defines: no list that one could be forgotten in."""
    return tuple(
        member
        for name, member in getmembers(module, iscoroutinefunction)
        if not name.startswith("_") and member.__module__ == module.__name__
    )


CHECKS: Final[tuple[Check, ...]] = tuple(
    check for module in (outcomes, contacts, places, ending) for check in _checks_of(module)
)
