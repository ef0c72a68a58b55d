"""The executors of one engine, and whether the tasks that its workflows name can run there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from engine.errors import HoldfastError
from engine.executors import Executor, LoopExecutor, Nowhere, ProcessExecutor, ThreadExecutor
from engine.tasks import Task
from engine.workflows import Workflow
from engine.workflows.reach import named

__all__ = ["check_tasks", "places", "processors"]


def places(*, concurrency: int, threads: int, processes: int, given: Sequence[Executor]) -> tuple[Executor, ...]:
    """The executors of an engine, by names that are all different. Raises `HoldfastError` when two share one."""
    own: tuple[Executor, ...] = (LoopExecutor(concurrency), ThreadExecutor(threads), ProcessExecutor(processes))
    every = (*own, *given)
    names = [executor.name for executor in every]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HoldfastError(f"Engine(executors=...): two executors are named {twice[0]!r}; there are {names}")
    return every


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
