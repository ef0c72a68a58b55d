"""What the tasks of a simulation do to the outside, counted there: beside the engine and the store.

It judges at once: a task whose completion was acknowledged does not run again, and no more attempts of a pool run at
once than it has slots. Attempts of whoever has lost its lease are not held against the engine: it could not know yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from engine import Attempt, attempt
from engine.errors import EngineFailed
from eventstore import EventStoreError
from tests.simulation.loops import ACTOR, Actor

__all__ = ["OUTSIDE", "Letter", "Outside"]


BROKEN_MAX = 20


class Letter(Struct, frozen=True):
    """What whoever is to end a task was told."""

    one: tuple[str, str]  # run and idempotency key
    token: str
    value: int
    seconds: float  # until it answers
    accepts: bool


class Outside:
    """One play's; `OUTSIDE` is set back before each."""

    def __init__(self) -> None:
        self.reset({})

    def reset(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.runs: Counter[str] = Counter()  # executions begun, by idempotency key
        self.attempts: dict[tuple[str, str], str] = {}  # key by run and task
        self.completed: dict[tuple[str, str], int] = {}  # by run and task: as acknowledged
        self.started: dict[tuple[str, str], int] = {}  # likewise: the last attempt whose start is on record
        self.beats: dict[tuple[str, str], Any] = {}  # likewise: the last details of a heartbeat on record
        self.owners: dict[str, str] = {}  # runs by idempotency key
        self.paid: set[str] = set()  # idempotency keys of what had its effect
        self.inside: list[tuple[str, Actor, Any]] = []  # who runs in which pool
        self.broken: list[tuple[str, str]] = []
        self.checks: Counter[str] = Counter()
        self.serial = 0
        self.told: Callable[[Letter], None] = lambda _letter: None  # somebody is told a token
        self.answers: dict[tuple[str, str], list[Any]] = {}  # by run and task, in the order sent; None: it is refused
        self.sending: tuple[str, str] | None = None  # whose answer is on its way
        self.unsure: dict[tuple[str, str], Any] = {}  # the answer that was, as its run was reopened
        self.down: set[str] = set()  # runs for which something does not work, until somebody has mended it

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def broke(self, what: str, text: str) -> None:
        if len(self.broken) < BROKEN_MAX:
            self.broken.append((what, text))

    def check_end(self, actor: Actor, error: EngineFailed) -> None:
        """An engine could not go on: for a planned failure of its store, and for nothing else."""
        if not isinstance(error.__cause__, EventStoreError):
            self.broke("engine failed", f"{actor}: {error.__cause__!r}")

    def check_answer(self, one: tuple[str, str], by: str, answer: Any) -> None:
        """A task that was handed out has its outcome on record: it is the first that was sent."""
        self.checks["the first answer holds"] += 1
        if by != "bank" or answer not in (*self.answers.get(one, ())[:1], self.unsure.get(one, ())):
            self.broke("tokens", f"{one} has {answer} by {by!r}, and was sent {self.answers.get(one)}")

    def reopened(self, run_id: str) -> None:
        """What its tasks were answered before came to nothing, if it is not on record."""
        for one in [one for one in self.answers if one[0] == run_id]:
            sent = self.answers.pop(one)
            if self.sending == one:
                self.unsure[one] = sent[-1]

    def check_beat(self, this: Attempt) -> None:
        """An attempt begins: it is given what is on record of those before it."""
        actor, one = ACTOR.get(), (this.run_id, this.idempotency_key)
        lease = None if actor is None or not actor.leases else actor.leases[-1]
        if lease is None or not lease.fresh() or lease.stalled or this.number != self.started.get(one):
            return  # another may have it by now
        self.checks["attempts find the last heartbeat"] += 1
        if this.last_heartbeat != self.beats.get(one):
            self.broke("heartbeats", f"{one} has {this.last_heartbeat}, and on record is {self.beats.get(one)}")

    @contextmanager
    def attempt(self, pool: str | None = None) -> Iterator[int]:
        """Around what a task does; gives how often it was begun before."""
        this, actor = attempt(), ACTOR.get()
        assert actor is not None
        before = self.runs[this.idempotency_key]
        self.runs[this.idempotency_key] += 1
        lease = actor.leases[-1] if actor.leases else None
        self.checks["no completed task runs again"] += 1
        if (owner := self.owners.setdefault(this.idempotency_key, this.run_id)) != this.run_id:
            self.broke("keys shared", f"{this.task_id} of {this.run_id} goes by a key of {owner}")
        if this.number > self.started.get((this.run_id, this.idempotency_key), 0):
            self.broke("not recorded", f"attempt {this.number} of {this.task} of {this.run_id} began off the record")
        if (
            lease is not None
            and lease.fresh()
            and not lease.stalled
            and (this.run_id, this.idempotency_key) in self.completed
        ):
            self.broke("ran again", f"{this.task} of {this.run_id} ({this.task_id}) runs on {actor}, but is completed")
        if pool is None:
            yield before
            return
        entry = (pool, actor, lease)
        self.inside.append(entry)
        now = [one for one in self.inside if one[0] == pool and not one[1].dead and one[2] and one[2].fresh()]
        self.checks["no more permits than slots"] += 1
        if len(now) > self.limits[pool]:
            self.broke("permits", f"{len(now)} attempts in {pool!r} at once, of {self.limits[pool]}: {now}")
        try:
            yield before
        finally:
            self.inside.remove(entry)


OUTSIDE = Outside()
