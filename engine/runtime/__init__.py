"""The shell: joins deciding (`engine.core`) and remembering (`eventstore`), and acts on the outside."""

from __future__ import annotations

from engine.runtime.asking import PendingRequest
from engine.runtime.breakers import CircuitState
from engine.runtime.engine import Engine
from engine.runtime.gating import Gate, Verdict, diagnose
from engine.runtime.handle import HistoryEvent, RunHandle, RunSummary
from engine.runtime.limits import LimitState
from engine.runtime.pausing import PausedWorkflow
from engine.runtime.rehearsal import Rehearsal

__all__ = [
    "CircuitState",
    "Engine",
    "Gate",
    "HistoryEvent",
    "LimitState",
    "PausedWorkflow",
    "PendingRequest",
    "Rehearsal",
    "RunHandle",
    "RunSummary",
    "Verdict",
    "diagnose",
]
