"""All checks, collected from the modules of themes: the names of coroutine functions are the list.

It promises that no check can be written and forgotten. It deliberately does not know what any of them is about.
"""

from __future__ import annotations

from inspect import getmembers, iscoroutinefunction
from types import ModuleType
from typing import Final

from eventstore.conformance import (
    arguments,
    attention,
    cancelling,
    closing,
    commits,
    digests,
    draining,
    fencing,
    finding,
    groups,
    holding,
    keeping,
    leases,
    messages,
    moving,
    moving_kept,
    overtaking,
    permits,
    queues,
    rates,
    reading,
    transactions,
    waiting,
    working,
)
from eventstore.conformance.harness import Check

__all__ = ["CHECKS", "name_of"]


def name_of(check: Check) -> str:
    """The theme and the name of a check: ``fencing.a_stale_token_cannot_write``."""
    return f"{check.__module__.rpartition('.')[2]}.{check.__name__}"


def _checks_of(module: ModuleType) -> tuple[Check, ...]:
    """Every public coroutine function that the module defines: no list that one could be forgotten in."""
    return tuple(
        member
        for name, member in getmembers(module, iscoroutinefunction)
        if not name.startswith("_") and member.__module__ == module.__name__
    )


CHECKS: Final[tuple[Check, ...]] = tuple(
    check
    for module in (
        arguments,
        commits,
        groups,
        fencing,
        leases,
        messages,
        overtaking,
        draining,
        attention,
        waiting,
        finding,
        reading,
        digests,
        transactions,
        permits,
        holding,
        keeping,
        queues,
        rates,
        cancelling,
        closing,
        moving,
        moving_kept,
        working,
    )
    for check in _checks_of(module)
)
