"""What the last turn of a run has ended, as its history tells: kept by the fold in case the turn is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from engine.core.attributes import AttributeValue
from engine.core.events import AnyEvent

__all__ = ["TurnState"]


class TurnState(Struct):
    """See the module."""

    at: int = 0  # microseconds since the epoch: of its fact, or when the run last went on after it had stood still
    fact: AnyEvent | None = None
    attributes: dict[str, AttributeValue | None] = field(default_factory=dict)  # set, with what they were before
    tasks: list[str] = field(default_factory=list)  # called off
    timers: dict[str, int] = field(default_factory=dict)  # likewise, with their deadlines
    children: list[str] = field(default_factory=list)  # asked to end
    patches: list[str] = field(default_factory=list)  # marked, by name

    def set_attributes(
        self, attributes: dict[str, AttributeValue], values: Mapping[str, AttributeValue | None]
    ) -> None:
        """Some of the run's `attributes` are set, or (None) taken away."""
        for name, value in values.items():
            self.attributes.setdefault(name, attributes.get(name))
            if value is None:
                attributes.pop(name, None)
            else:
                attributes[name] = value

    def take_back_attributes(self, attributes: dict[str, AttributeValue]) -> None:
        """They are as they were before the turn."""
        TurnState().set_attributes(attributes, self.attributes)

    def take_back(
        self,
        tasks: Mapping[str, Any],
        children: Mapping[str, Any],
        timers: dict[str, int],
        patches: dict[str, int],
        *,
        fact: bool,
    ) -> None:
        """The turn was never taken; with `fact`, nor did its fact arrive. The mappings are those of a `RunState`."""
        of_fact = getattr(self.fact, "id", "") if fact else ""
        for task in map(tasks.get, [*self.tasks, of_fact]):
            if task is not None:
                task.status, task.ended_at = "scheduled", None
        for asked in map(children.get, self.children):
            if asked is not None:
                asked.asked_to_end = False
        if (child := children.get(of_fact)) is not None:
            child.status, child.ended_at = "running", None
        timers.update(self.timers)
        for name in self.patches:
            patches.pop(name, None)
