"""What came out of a run, as anybody outside can see it; and where two outcomes differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from msgspec import Struct

from engine import Engine, RunHandle
from engine.errors import RunNotFound

__all__ = ["Difference", "Outcome", "events_of", "outcome_of"]


class Difference(Struct, frozen=True):
    """One thing that came out otherwise."""

    what: str
    expected: str
    instead: str


class Outcome(Struct, frozen=True):
    """`result`, or the error, as text; what was published, by name; and what the outside saw."""

    status: str
    result: str
    states: dict[str, str]
    feeds: dict[str, tuple[str, ...]]  # sorted: branches may publish in any order
    effects: Any
    attributes: dict[str, str] = {}  # what the run is found by

    def differences(self, other: Outcome) -> tuple[Difference, ...]:
        """Where another one differs from this, which was expected."""
        found = []
        if (self.status, self.result) != (other.status, other.result):
            found.append(Difference("the run", f"{self.status} {self.result}", f"{other.status} {other.result}"))
        named = (
            ("state", self.states, other.states),
            ("feed", self.feeds, other.feeds),
            ("attribute", self.attributes, other.attributes),
        )
        for what, ours, theirs in named:
            found += [
                Difference(f"{what} {name!r}", str(ours.get(name, "nothing")), str(theirs.get(name, "nothing")))
                for name in sorted(ours.keys() | theirs.keys())
                if ours.get(name) != theirs.get(name)
            ]
        if self.effects != other.effects:
            found.append(Difference("what the outside saw", repr(self.effects), repr(other.effects)))
        return tuple(found)


async def outcome_of(run: RunHandle[Any], effects: Any, *, stuck: str = "") -> Outcome:
    """How things stand with a run that has ended, or goes on no more (`stuck` says why)."""
    state = await run.state()
    result = (state.result or b"").decode()
    if state.error is not None and state.status == "failed":
        result = f"with {state.error.type}: {state.error.message}"
    if state.diagnosis is not None:
        result = f"({state.diagnosis.render().partition(' Ways on')[0]})"
    feeds: dict[str, Counter[str]] = {}
    async for item in run.events():
        header = msgspec.json.decode(item.header)
        if header["type"] == "FeedPublished":
            feeds.setdefault(header["name"], Counter())[(item.payload or b"").decode()] += 1
    return Outcome(
        status="stuck" if stuck else state.status,
        result=stuck or result,
        states={name: (value or b"").decode() for name, value in state.states.items()},
        feeds={name: tuple(sorted(values.elements())) for name, values in feeds.items()},
        effects=effects,
        attributes={name: repr(value) for name, value in state.attributes.items()},
    )


async def events_of(engine: Engine, run_id: str) -> list[dict[str, Any]]:
    """The events of a run as plain data; none, when there is no such run."""
    try:
        return [msgspec.json.decode(item.header) async for item in engine.run(run_id).events()]
    except RunNotFound:
        return []
