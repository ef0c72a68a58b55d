"""What runs tell each other, held against every commit as it is accepted: each signal arrives, and arrives once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from engine.core.events import MessageSent, RunTerminated, SendAccepted, SignalIgnored, SignalReceived
from tests.simulation.outside import OUTSIDE

__all__ = ["Sends"]

Way: TypeAlias = tuple[str, str]
"""From which run, to which."""


class Sends:
    """Signals of workflows, counted by their way; and whom they want to end."""

    def __init__(self, checks: Counter[str], ever: Mapping[str, Collection[type]]) -> None:
        self.checks = checks
        self.ever = ever  # how a run has ended, each time
        self.sent: Counter[Way] = Counter()
        self.accepted: Counter[Way] = Counter()
        self.arrived: Counter[Way] = Counter()
        self.halted: set[str] = set()  # who was asked to end, or ended, by a run
        self._to: dict[tuple[str, str], str] = {}  # by run and id of the send: of its epoch

    def noted(self, run_id: str, events: Iterable[Any]) -> None:
        """A commit was accepted."""
        for event in events:
            match event:
                case MessageSent(kind="signal", id=id_, run=other):
                    self.sent[run_id, other] += 1
                    self._to[run_id, id_] = other
                case MessageSent(run=other):
                    self.halted.add(other)
                case SendAccepted(id=id_) if other := self._to.pop((run_id, id_), ""):
                    self.accepted[run_id, other] += 1
                case SignalReceived(carried=False, by=by) | SignalIgnored(by=by) if by.startswith("run "):
                    self._arrived(by.removeprefix("run "), run_id)

    def _arrived(self, run_id: str, other: str) -> None:
        way = run_id, other
        self.arrived[way] += 1
        self.checks["what runs tell each other arrives once"] += 1
        if self.arrived[way] > self.sent[way]:
            OUTSIDE.broke("sends", f"{other} was told {self.arrived[way]} times by {run_id}: sent {self.sent[way]}")

    def judge(self) -> None:
        """At the end: what was delivered was heard, or noted as too late, by whoever was not ended without its code."""
        for way, accepted in self.accepted.items():
            if self.arrived[way] < accepted and RunTerminated not in self.ever.get(way[1], ()):
                OUTSIDE.broke("sends", f"{way} delivered {accepted}, and {self.arrived[way]} arrived")
