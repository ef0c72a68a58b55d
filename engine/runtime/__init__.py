"""The shell: joins deciding (`engine.core`) and remembering (`eventstore`), and acts on the outside."""

from __future__ import annotations

from engine.runtime.asking import PendingRequest
from engine.runtime.breakers import CircuitState
from engine.runtime.engine import Engine
from engine.runtime.gating import Gate, Verdict, diagnose
from engine.runtime.handle import HistoryEvent, RunHandle, RunSummary
from engine.runtime.large_values import LargeValues
from engine.runtime.limits import LimitState
from engine.runtime.pausing import PausedWorkflow
from engine.runtime.rehearsal import Rehearsal
from engine.runtime.repairs import HistoryDiff
from engine.runtime.replaying import ReplayDebugger, Replayed, ReplayedDecision, replay_run
from engine.runtime.retention import Due, Retention
from engine.runtime.singletons import OnConflict
from engine.runtime.stacks import BranchStack, LiveBranch, StackFrame
from engine.runtime.what_if import WhatIf

__all__ = [
    "BranchStack",
    "CircuitState",
    "Due",
    "Engine",
    "Gate",
    "HistoryDiff",
    "HistoryEvent",
    "LargeValues",
    "LimitState",
    "LiveBranch",
    "OnConflict",
    "PausedWorkflow",
    "PendingRequest",
    "Rehearsal",
    "ReplayDebugger",
    "Replayed",
    "ReplayedDecision",
    "Retention",
    "RunHandle",
    "RunSummary",
    "StackFrame",
    "Verdict",
    "WhatIf",
    "diagnose",
    "replay_run",
]
