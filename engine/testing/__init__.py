"""Testing workflows: an engine on a turned clock, fakes for tasks, histories by hand, and the crash explorer.

See docs/testing.md. It uses what anybody can import from `engine` and `eventstore`; nothing of those imports it.
"""

from __future__ import annotations

from engine.testing.clock import TurnedClock
from engine.testing.errors import NotRepeatable, Stuck, UnfakedTask
from engine.testing.fakes import Fake, TaskCall
from engine.testing.lab import Lab, engine

__all__ = ["Fake", "Lab", "NotRepeatable", "Stuck", "TaskCall", "TurnedClock", "UnfakedTask", "engine"]
