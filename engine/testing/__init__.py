"""Testing workflows: an engine on a turned clock, fakes for tasks, histories by hand, and the crash explorer.

See docs/testing.md. It uses what anybody can import from `engine` and `eventstore`; nothing of those imports it.
"""

from __future__ import annotations

from engine.testing import events
from engine.testing.assertions import assert_history, assert_never_ran, assert_order, assert_ran
from engine.testing.clock import TurnedClock
from engine.testing.errors import NotRepeatable, Stuck, UnfakedTask
from engine.testing.explorer import Bounds, explore
from engine.testing.fakes import Fake, TaskCall
from engine.testing.given import Given, GivenCall, given
from engine.testing.histories import History, history
from engine.testing.lab import Lab, engine
from engine.testing.outcomes import Outcome
from engine.testing.recorded import RecordedHistory, assert_replays, load_history
from engine.testing.report import Finding, Report
from engine.testing.schedules import Schedule

__all__ = [
    "Bounds",
    "Fake",
    "Finding",
    "Given",
    "GivenCall",
    "History",
    "Lab",
    "NotRepeatable",
    "Outcome",
    "RecordedHistory",
    "Report",
    "Schedule",
    "Stuck",
    "TaskCall",
    "TurnedClock",
    "UnfakedTask",
    "assert_history",
    "assert_never_ran",
    "assert_order",
    "assert_ran",
    "assert_replays",
    "engine",
    "events",
    "explore",
    "given",
    "history",
    "load_history",
]
