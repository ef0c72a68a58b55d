"""What task code may say: `@task`, and `attempt()` for the attempt that is running."""

from __future__ import annotations

from engine.tasks.attempt import Attempt, CompletedLater, GivenNames, Names, attempt, bind_attempt
from engine.tasks.breaker import Breaker
from engine.tasks.contact import Contact, Notice
from engine.tasks.definition import Task, TaskOptions, TransactionalTask, task
from engine.tasks.effects import Effect, Happened, NotHappened
from engine.tasks.limits import COUNT_MAX, EVERY_TASK, Named, Rate, RateLike, rate_of, wrong_name
from engine.tasks.memo import Memo
from engine.tasks.transaction import Transaction

__all__ = [
    "COUNT_MAX",
    "EVERY_TASK",
    "Attempt",
    "Breaker",
    "CompletedLater",
    "Contact",
    "Effect",
    "GivenNames",
    "Happened",
    "Memo",
    "Named",
    "Names",
    "NotHappened",
    "Notice",
    "Rate",
    "RateLike",
    "Task",
    "TaskOptions",
    "Transaction",
    "TransactionalTask",
    "attempt",
    "bind_attempt",
    "rate_of",
    "task",
    "wrong_name",
]
