"""The executors of one engine, and whether the tasks that its workflows name can run there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from engine.core.call import Definition
from engine.errors import HoldfastError
from engine.executors import Executor, LoopExecutor, Nowhere, ProcessExecutor, ThreadExecutor
from engine.runtime.transacting import Transactions
from engine.tasks import Task
from engine.workflows import Workflow
from engine.workflows.reach import named
from eventstore import EventStore

__all__ = ["check_tasks", "places", "places_on", "processors"]


def places(
    *, concurrency: int, threads: int, processes: int, given: Sequence[Executor], own_sql: bool = True
) -> tuple[Executor, ...]:
    """The executors of an engine, by names that are all different. Raises `HoldfastError` when two share one.

    `own_sql`: whether its store runs transactions, as far as is known.
    """
    own: tuple[Executor, ...] = (
        LoopExecutor(concurrency),
        ThreadExecutor(threads),
        ProcessExecutor(processes),
        Transactions(possible=own_sql),
    )
    every = (*own, *given)
    names = [executor.name for executor in every]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HoldfastError(f"Engine(executors=...): two executors are named {twice[0]!r}; there are {names}")
    return every


class Numbers(Protocol):
    """How many attempts an engine's own executors run at once."""

    @property
    def concurrency(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def processes(self) -> int: ...


def places_on(
    store: EventStore, numbers: Numbers, given: Sequence[Executor], *, workflows: Iterable[Definition[..., Any]]
) -> tuple[Executor, ...]:
    """The executors of an engine that is opened on a store. Raises `DefinitionError` for a task that these workflows
    name and that wants what this store has not.
    """
    own_sql = "transaction" in store.capabilities
    found = places(
        concurrency=numbers.concurrency,
        threads=numbers.threads,
        processes=numbers.processes,
        given=given,
        own_sql=own_sql,
    )
    if not own_sql:  # everything else was known when the engine was made
        check_tasks([each for each in workflows if isinstance(each, Workflow)], found)
    return found


def check_tasks(workflows: Iterable[Workflow[..., Any]], executors: Iterable[Executor]) -> None:
    """Raise `DefinitionError` for a task that these workflows name and that no executor here can run.

    What is only named while the code runs is refused then: such a task fails.
    """
    by_name = {executor.name: executor for executor in executors}
    for definition in named(workflows):
        if isinstance(definition, Task):
            (by_name.get(definition.executor) or Nowhere(definition.executor, by_name)).check(definition)


def processors() -> int:
    """How many processors this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
