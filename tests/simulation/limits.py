"""What the whole store shares, held against every commit as it is accepted: never more is under way, and never more
begins, than there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.core.events import (
    AttemptFailed,
    ContinuedAsNew,
    RunReopened,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
)
from tests.simulation.books import ENDS
from tests.simulation.outside import OUTSIDE

__all__ = ["Limits"]


class Limits:
    """What is under way, and what has begun, by what is on record. `of`: the limits that a task is under, by its name.

    What was begun by whoever has lost its lease, at whatever moment anybody writes, counts no more: the store cannot know
    better. So a pool is judged within the life of leases, and a rate by the clock of the store, wherever that is set: what
    was begun before it was set back is of another count, as is what was granted then.
    When a pool is made smaller, whoever holds a slot keeps it, also in the hands of who takes its run over, and whoever
    waits may have been granted one that it takes later.
    """

    def __init__(self, checks: Counter[str], of: Mapping[str, tuple[str, ...]]) -> None:
        self.checks = checks
        self.of = of
        self.given: dict[str, tuple[int, int | None]] = {}  # how many, and in which window
        self.tasks: dict[tuple[str, str], tuple[str, ...]] = {}  # limits, by run and task: of its epoch
        self.over: set[str] = set()  # runs that have ended
        self.under_way: dict[str, dict[tuple[str, str], int]] = {}  # by limit: tokens by run and task
        self.lapsed: dict[str, set[tuple[str, str]]] = {}  # by limit: whose token is dead
        self.waiting: dict[str, set[tuple[str, str]]] = {}  # by limit
        self.before: dict[str, tuple[int, set[tuple[str, str]]]] = {}  # how many it gave, and who held or waited then
        self.begun: dict[str, list[int]] = {}  # by limit: when

    def set_to(self, name: str, attributes: Mapping[str, Any]) -> None:
        """A limit is declared or changed."""
        count, window = self.given.get(name, (0, None))
        self.given[name] = attributes.get("limit", count), attributes.get("window", window)
        had = {*self.under_way.get(name, ()), *self.lapsed.get(name, ()), *self.waiting.get(name, ())}
        self.before[name] = count, had

    def noted(
        self, run_id: str, commit: Any, events: Iterable[Any], at: int, holds: Callable[[str, int], bool]
    ) -> None:
        """A commit was accepted, by the store's clock then. `holds`: whether a run is a living token's."""
        token = None if commit.lease is None else commit.lease.token
        starts: list[tuple[str, str]] = []
        for event in events:
            match event:
                case TaskScheduled(id=id_, task=task):
                    if limits := self.of.get(task):
                        self.tasks[run_id, id_] = limits
                case TaskStarted(id=id_) if (run_id, id_) in self.tasks and run_id not in self.over:
                    starts.append((run_id, id_))
                case AttemptFailed(id=id_) | TaskCompleted(id=id_) | TaskFailed(id=id_) | TaskCancelled(id=id_):
                    self._over((run_id, id_))
                case ContinuedAsNew():
                    self._epoch_over(run_id)
                    self.tasks = {one: limits for one, limits in self.tasks.items() if one[0] != run_id}
                case RunReopened():
                    self.over.discard(run_id)
                case _ if isinstance(event, ENDS):
                    self._epoch_over(run_id)  # its tasks are known: it may be reopened
                    self.over.add(run_id)
        for name, (_, window) in self.given.items():
            if window is not None:
                self.begun[name] = [begun for begun in self.begun.get(name, ()) if at - window < begun <= at]
            elif entries := self.under_way.get(name):
                dead = {one for one, token in entries.items() if not holds(one[0], token)}
                self.lapsed.setdefault(name, set()).update(dead)
                for one in dead:
                    del entries[one]
        for permit in commit.permits:
            if permit.action == "return":  # of an attempt that has ended, or is on record and did not begin after all
                for one in self._named(run_id, permit.holder):
                    self._gone(permit.pool, one)
            elif permit.action == "wait":
                self.waiting.setdefault(permit.pool, set()).update(self._named(run_id, permit.holder))
        for one in starts:
            assert token is not None
            for name in self.tasks[one]:
                self._begins(name, one, token, at)

    def _begins(self, name: str, one: tuple[str, str], token: int, at: int) -> None:
        count, window = self.given[name]
        before, had = self.before[name]
        if one in had:
            count = max(count, before)
        self._gone(name, one)
        if window is None:
            entries = self.under_way.setdefault(name, {})
            entries[one] = token
            now = len(entries)
        else:
            self.begun[name].append(at)
            now = len(self.begun[name])
        self.checks["no more on record than a limit gives"] += 1
        if now > count:
            what = self.begun[name] if window is not None else self.under_way[name]
            OUTSIDE.broke("limits", f"{one} begins at {at} as number {now} of {count} in {name!r} ({window}): {what}")

    def _named(self, run_id: str, holder: str) -> list[tuple[str, str]]:
        """The task that goes by that name: ``run/epoch/task``."""
        id_ = holder.removeprefix(f"{run_id}/").partition("/")[2]
        return [(run_id, id_)] if (run_id, id_) in self.tasks else []

    def _over(self, one: tuple[str, str]) -> None:
        for name in self.tasks.get(one, ()):
            self._gone(name, one)

    def _gone(self, name: str, one: tuple[str, str]) -> None:
        """It neither has a slot there nor waits for one."""
        self.under_way.get(name, {}).pop(one, None)
        for those in (self.lapsed, self.waiting):
            those.get(name, set()).discard(one)

    def _epoch_over(self, run_id: str) -> None:
        for one in [one for one in self.tasks if one[0] == run_id]:
            self._over(one)
