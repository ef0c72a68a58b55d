"""What task code may say: `@task`, and `attempt()` for the attempt that is running."""

from __future__ import annotations

from engine.tasks.attempt import Attempt, CompletedLater, attempt, bind_attempt
from engine.tasks.contact import Contact, Notice
from engine.tasks.definition import Task, TaskOptions, task
from engine.tasks.effects import Effect, Happened, NotHappened
from engine.tasks.memo import Memo

__all__ = [
    "Attempt",
    "CompletedLater",
    "Contact",
    "Effect",
    "Happened",
    "Memo",
    "NotHappened",
    "Notice",
    "Task",
    "TaskOptions",
    "attempt",
    "bind_attempt",
    "task",
]
