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
from engine.runtime.repairs import HistoryDiff
from engine.runtime.retention import Due, Retention
from engine.runtime.singletons import OnConflict
from engine.runtime.what_if import WhatIf

__all__ = [
    "CircuitState",
    "Due",
    "Engine",
    "Gate",
    "HistoryDiff",
    "HistoryEvent",
    "LimitState",
    "OnConflict",
    "PausedWorkflow",
    "PendingRequest",
    "Rehearsal",
    "Retention",
    "RunHandle",
    "RunSummary",
    "Verdict",
    "WhatIf",
    "diagnose",
]
