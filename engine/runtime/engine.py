"""`Engine`: what a program opens beside its other resources. No server, no singleton, no global state."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

from engine.core.call import Call
from engine.core.fold import UNFINISHED, RunStatus
from engine.core.identity import check_run_id
from engine.core.nesting import here
from engine.errors import (
    EngineClosed,
    ForbiddenInWorkflow,
    HoldfastError,
)
from engine.executors import Executor
from engine.runtime.anyio_seams import anyio_version, order_anyio_sets
from engine.runtime.beginning import Beginnings
from engine.runtime.breakers import Breakers, CircuitState, checked_breakers
from engine.runtime.capacity import Capacity
from engine.runtime.finding import Wanted, runs_query
from engine.runtime.guard import install_guard
from engine.runtime.handle import RunHandle, RunSummary, summary_of
from engine.runtime.keeping import Keeper
from engine.runtime.large_values import LargeValues
from engine.runtime.limits import checked_limits, declare
from engine.runtime.logs import quiet_replays
from engine.runtime.observer import Observer
from engine.runtime.places import check_tasks, places, processors
from engine.runtime.serving import Served, served
from engine.runtime.spawning import Spawner
from engine.runtime.standing_in import StandIn
from engine.runtime.starting import is_run_of
from engine.runtime.watchdog import TURN_SECONDS_MAX, TURN_WARN_SECONDS
from engine.runtime.watches import Watch, Watches
from engine.runtime.worker import Worker
from engine.storage import Storage
from engine.tasks import Breaker, RateLike
from engine.workflows import Workflow
from eventstore import Clock, EventStore, Page, SystemClock
from eventstore.urls import open_store

__all__ = ["Engine"]

R = TypeVar("R")

NO_LIMITS: Final[Mapping[str, Any]] = MappingProxyType({})
CLOSE_SECONDS: Final = 1.0
"""Between two looks whether the engine's own coroutines have ended, while it closes."""


class Engine(Beginnings, Keeper):
    """Runs workflows on a store, inside the caller's event loop (plain asyncio or uvloop).

    Use it as an async context manager. On entering it opens the store, takes a lease and goes on with every unfinished
    run of its workflows, those of dead workers included, also while others live. On leaving it lets attempts finish
    for `grace` seconds, cancels what still runs, and gives its runs up: whoever opens the store next goes on with them.

    `store`: a URL (``sqlite:///runs.db``) or an open `EventStore`, which is then not closed.
    `workflows`: those this engine may claim and start; with none it is a client that lists, reads and cancels.
    `concurrency`, `threads`, `processes`: attempts at once of coroutine tasks, of plain functions, and of those for
    executor "processes" (default: the number of processors). `executors`: further places, which tasks choose by name
    (see `engine.executors.port`); they serve this engine alone, which closes them. `pools`, `rates`: limits that all
    engines on the store share, which tasks choose by name: attempts at once (``{"warehouse": 4}``; ``"*"`` is over
    every task), and starts in a window (``{"api": "10/s"}``); they can be changed meanwhile, see `set_pool`.
    `breakers`: when tasks that name them wait for what they depend on; those not named here have the defaults. `runs`:
    runs in memory with something to do; more are recorded and wait. `cached`: resting runs whose live instance is kept.
    `only`: claim nothing but the runs with these ids. `turn_seconds`: after how long a turn of a workflow, during which
    no other run of this engine gets on, is named in the log, and after how long it is broken off and its run suspended.
    `clock`, `entropy`: where time and random bytes come from. `stand_in`: asked at every attempt what to run in place
    of the task's function; tests put fakes there. `storage`: where values lie that a history does not hold, large ones
    and tables (docs/storage.md); what begins with one needs it, or a copy of it, for as long as it lasts.

    Raises `DefinitionError` for workflows that cannot be served together or whose types cannot be recorded, and
    `DeterminismError` for those whose code would do something else at a replay (see docs/determinism.md); on
    entering, `eventstore.StoreUnavailable` and its subclasses when the store cannot be opened.
    """

    def __init__(
        self,
        store: str | EventStore,
        *,
        workflows: Iterable[Workflow[..., Any]] = (),
        worker: str | None = None,
        concurrency: int = 1_000,
        threads: int = min(32, (os.cpu_count() or 1) + 4),
        processes: int | None = None,
        executors: Iterable[Executor] = (),
        pools: Mapping[str, int] = NO_LIMITS,
        rates: Mapping[str, RateLike] = NO_LIMITS,
        breakers: Mapping[str, Breaker] = NO_LIMITS,
        runs: int = 2_000,
        cached: int = 500,
        grace: float = 30.0,
        only: Collection[str] | None = None,
        turn_seconds: tuple[float, float] = (TURN_WARN_SECONDS, TURN_SECONDS_MAX),
        clock: Clock | None = None,
        entropy: Any = os.urandom,
        stand_in: StandIn | None = None,
        storage: Storage | str | None = None,
    ) -> None:
        self._given = store
        self._storage = Storage(storage) if isinstance(storage, str) else storage
        self._given_workflows = tuple(workflows)
        self._definitions = served(self._given_workflows, reach=False)
        self._entropy = entropy
        self._stand_in = stand_in
        self._clock = SystemClock() if clock is None else clock
        self._worker_name = worker or f"{socket.gethostname()}-{os.getpid()}-{entropy(2).hex()}"
        processes = processors() if processes is None else processes
        limits = {"concurrency": concurrency, "threads": threads, "processes": processes, "runs": runs}
        for name, limit in limits.items():
            if limit < 1:
                raise HoldfastError(f"Engine({name}={limit!r}): at least 1")
        self._executors = tuple(executors)
        every = places(concurrency=concurrency, threads=threads, processes=processes, given=self._executors)
        if stand_in is None:  # else what stands in runs where it can
            check_tasks(self._given_workflows, every)
        if min(turn_seconds) <= 0:
            raise HoldfastError(f"Engine(turn_seconds={turn_seconds!r}): two numbers of seconds above 0")
        self._shared = checked_limits(pools, rates)
        self._breakers = Breakers(self._clock, checked_breakers(breakers))
        self._capacity = Capacity(
            **limits,
            cached=max(0, cached),
            grace=grace,
            turn_seconds=turn_seconds,
        )
        self._only = None if only is None else tuple(only)
        self._watches = Watches(self._is_resident)
        self._store: EventStore | None = None
        self._worker: Worker | None = None
        self._observer: Observer | None = None
        self._spawn = Spawner(self._watches.fail)
        self._anyio = ""

    # -- life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._store is not None:
            raise HoldfastError("this engine is open already; make another Engine for a second one")
        order_anyio_sets()
        install_guard()
        quiet_replays()
        self._anyio = anyio_version()
        store = await open_store(self._given, clock=self._clock) if isinstance(self._given, str) else self._given
        if self._storage is not None:
            store = LargeValues(store, self._storage)
        self._store = store
        self._watches.revive()
        try:
            self._observer = Observer(store, self._spawn)
            shared = await declare(
                store, self._shared, self._given_workflows, clock=self._clock, next_id=self.message_id
            )
            if self._definitions:
                self._worker = Worker(
                    store,
                    served(self._given_workflows, reach=True),
                    name=self._worker_name,
                    capacity=self._capacity,
                    only=self._only,
                    clock=self._clock,
                    watches=self._watches,
                    executors=self._executors,
                    shared=shared,
                    breakers=self._breakers,
                    stand_in=self._stand_in,
                )
                await self._worker.open()
        except BaseException:
            await self._close_store()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        worker, self._worker = self._worker, None
        try:
            if self._observer is not None:
                self._observer.stop()
            self._spawn.cancel_all()
            if worker is not None:
                await worker.aclose()
            await self._spawn.wait(seconds=CLOSE_SECONDS)
            self._watches.fail(EngineClosed("the engine was closed"))
        finally:
            await self._close_store()

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None and isinstance(self._given, str):
            await store.aclose()

    # -- what a handle needs (see `handle.Desk`) -----------------------------------------------------------------------

    @property
    def store(self) -> EventStore:
        """The open store. Raises `EngineClosed` when there is none, `ForbiddenInWorkflow` inside a workflow."""
        if here.loop is not None:
            raise ForbiddenInWorkflow(
                "a workflow used an Engine or a run's handle: it is replayed from its history, so effects belong into a"
                " @task. Await tasks here, or move this into one"
            )
        if self._store is None:
            raise EngineClosed("the engine is not open: use it inside `async with Engine(...) as engine:`")
        return self._store

    def check(self) -> None:
        """Raise `EngineClosed` or `EngineFailed` when the engine cannot go on."""
        _ = self.store
        if self._worker is not None:
            self._worker.check()

    def message_id(self) -> str:
        """A fresh id for a message."""
        return str(self._entropy(12).hex())

    def watch(self, watch: Watch) -> None:
        """See `handle.Desk`."""
        assert self._observer is not None
        if not watch.resident:
            self._observer.add(watch)

    # -- runs ----------------------------------------------------------------------------------------------------------

    def circuits(self) -> tuple[CircuitState, ...]:
        """The circuits that tasks here have named so far: which of them are open, and until when."""
        return self._breakers.states()

    async def _memos_written(self) -> None:
        if self._worker is not None:
            await self._worker.memos.written()

    async def _look_at_pauses(self) -> None:
        if self._worker is not None:
            await self._worker.look_at_pauses(afresh=True)

    @property
    def definitions(self) -> Served:
        """See `handle.Desk`."""
        return self._worker.definitions if self._worker is not None else self._definitions

    def _is_resident(self, run_id: str) -> bool:
        return self._worker is not None and run_id in self._worker.residents.drivers

    def run(self, id: str) -> RunHandle[Any]:  # noqa: A002 - the word for it
        """A handle on a run by its id; whether there is one is asked by the handle's methods."""
        return RunHandle(self, self._watches.of(check_run_id(id)), None)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        parent: str | None = None,
        status: RunStatus | tuple[RunStatus, ...] | None = None,
        attributes: Mapping[str, Wanted] = NO_LIMITS,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = True,
    ) -> Page[RunSummary]:
        """A page of runs, newest first; `cursor` is the `next` of the page before. `parent`: only its children.

        `attributes`: those that have these, of those that authors gave them (`start`, `durable.set_attributes`): each
        equal to the value, or to one of a tuple; None stands for having none of that name. `since`, `until`: recorded
        at or after the one time, and before the other (aware). Indexes serve all of it; see docs/searching.md.
        Runs that were pruned are listed when that is the `status` that is asked for.
        Raises `HoldfastError` for what cannot be an attribute, and for a time without a zone.
        """
        query = runs_query(
            workflow=workflow,
            parent=parent,
            status=status,
            attributes=attributes,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            newest_first=newest_first,
        )
        page = await self.store.find(query)
        items = tuple(summary_of(head) for head in page.items)
        return Page(items, page.next)

    async def unfinished(self, call: Call[R]) -> RunHandle[R] | None:
        """The newest unfinished run of this workflow with these arguments, if there is one. Leaves the call usable."""
        definition = self._definition_of(call)
        arguments = self._encoded(definition, call)
        cursor: str | None = None
        while True:
            page = await self.runs(workflow=definition.name, status=UNFINISHED, cursor=cursor)
            for summary in page.items:
                if await is_run_of(self.store, summary.id, definition, arguments):
                    return RunHandle(self, self._watches.of(summary.id), definition.result)
            if page.next is None:
                return None
            cursor = page.next
