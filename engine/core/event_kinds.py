"""What every event is: a fact, a decision or a note. The events themselves are in `events`."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Decision", "Event", "Fact", "Note"]


class Event(Struct, frozen=True, gc=False, tag_field="type", kw_only=True, omit_defaults=True):
    """What every event has: its tag (`type`) and its time."""

    at: int


class Fact(Event, frozen=True, kw_only=True):
    """Delivered to the workflow."""


class Decision(Event, frozen=True, kw_only=True):
    """Caused by workflow code. `id` is unique among a turn's decisions: they are compared as a mapping."""

    id: str = ""
    site: str = ""  # file and line that asked for it; outside the comparison


class Note(Event, frozen=True, kw_only=True):
    """Written by the engine; workflow code never sees it."""


# Facts ---------------------------------------------------------------------------------------------------------------
