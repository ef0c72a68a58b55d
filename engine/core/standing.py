"""Which events of a history count: those of turns that were taken back do not. Pure, and without the run's code.

A run that is reopened goes on behind its end (`RunReopened`); what is taken back by that stays in the history, as
everything does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from engine.core.events import AnyEvent, Decision, Fact, RunReopened, RunTerminated

__all__ = ["standing"]


class Versioned(Protocol):
    """An event as a history has it."""

    @property
    def version(self) -> int: ...
    @property
    def event(self) -> AnyEvent: ...


T = TypeVar("T", bound=Versioned)


def standing(history: Iterable[T]) -> list[T]:
    """The events that count, in order: without the turns, and the terminations, that `RunReopened` takes back."""
    found: list[T] = []
    last_fact = 0  # where it stands in what was found
    for item in history:
        event = item.event
        if isinstance(event, RunReopened):
            behind = found[last_fact:]
            if event.takes_back != "end":
                behind = [each for each in behind if not isinstance(each.event, Decision)]
                behind = behind[1:] if event.takes_back == "turn" else behind
            found[last_fact:] = [each for each in behind if not isinstance(each.event, RunTerminated)]
        elif isinstance(event, Fact):
            last_fact = len(found)
        found.append(item)
    return found
