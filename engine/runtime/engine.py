"""`Engine`: what a program opens beside its other resources. No server, no singleton, no global state."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from engine.core.call import Call, Definition
from engine.core.events import RunStarted
from engine.core.fold import RunStatus
from engine.errors import (
    DefinitionError,
    EngineClosed,
    ForbiddenInWorkflow,
    HistoryError,
    HoldfastError,
    RunConflict,
    RunNotFound,
    UnknownWorkflow,
)
from engine.runtime.anyio_seams import anyio_version, order_anyio_sets
from engine.runtime.guard import install_guard
from engine.runtime.handle import RunHandle, RunSummary
from engine.runtime.histories import read_events
from engine.runtime.logs import quiet_replays
from engine.runtime.observer import Observer
from engine.runtime.spawning import Spawner
from engine.runtime.streams import RUN_CATEGORY, SLOW, STATUS, WORKFLOW, check_run_id, run_id_of
from engine.runtime.watchdog import TURN_SECONDS_MAX, TURN_WARN_SECONDS
from engine.runtime.watches import Watch, Watches
from engine.runtime.worker import Limits, Worker
from engine.workflows import Workflow
from eventstore import Clock, EventStore, LeaseLost, Page, StreamQuery, SystemClock, VersionConflict
from eventstore.urls import open_store

__all__ = ["Engine"]

R = TypeVar("R")

LEASE_SECONDS: Final = 0.02
"""Between two tries to write a new run, while the worker takes a new lease."""
CLOSE_SECONDS: Final = 1.0
"""Between two looks whether the engine's own coroutines have ended, while it closes."""


class Engine:
    """Runs workflows on a store, inside the caller's event loop (plain asyncio or uvloop).

    Use it as an async context manager. On entering it opens the store, takes a lease and goes on with every unfinished
    run of its workflows, those of dead workers included, also while others live. On leaving it lets attempts finish
    for `grace` seconds, cancels what still runs, and gives its runs up: whoever opens the store next goes on with them.

    `store`: a URL (``sqlite:///runs.db``) or an open `EventStore`, which is then not closed.
    `workflows`: those this engine may claim and start; with none it is a client that lists, reads and cancels.
    `concurrency`, `threads`: attempts of coroutine tasks, and of plain functions, at once. `runs`: runs in memory with
    something to do; more are recorded and wait. `cached`: resting runs whose live instance is kept. `only`: claim
    nothing but the runs with these ids. `turn_seconds`: after how long a turn of a workflow, during which no other run
    of this engine gets on, is named in the log, and after how long it is broken off and its run suspended. `clock`,
    `entropy`: where time and random bytes come from.

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
        runs: int = 2_000,
        cached: int = 500,
        grace: float = 30.0,
        only: Collection[str] | None = None,
        turn_seconds: tuple[float, float] = (TURN_WARN_SECONDS, TURN_SECONDS_MAX),
        clock: Clock | None = None,
        entropy: Any = os.urandom,
    ) -> None:
        self._given = store
        self._definitions = _by_name(workflows)
        self._entropy = entropy
        self._clock = SystemClock() if clock is None else clock
        self._worker_name = worker or f"{socket.gethostname()}-{os.getpid()}-{entropy(2).hex()}"
        for name, limit in (("concurrency", concurrency), ("threads", threads), ("runs", runs)):
            if limit < 1:
                raise HoldfastError(f"Engine({name}={limit!r}): at least 1")
        if not min(turn_seconds) > 0:
            raise HoldfastError(f"Engine(turn_seconds={turn_seconds!r}): two numbers of seconds above 0")
        self._limits = Limits(
            concurrency=concurrency,
            threads=threads,
            runs=runs,
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

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._store is not None:
            raise HoldfastError("this engine is open already; make another Engine for a second one")
        order_anyio_sets()
        install_guard()
        quiet_replays()
        self._anyio = anyio_version()
        store = await open_store(self._given, clock=self._clock) if isinstance(self._given, str) else self._given
        self._store = store
        self._watches.revive()
        try:
            self._observer = Observer(store, self._spawn)
            if self._definitions:
                self._worker = Worker(
                    store,
                    self._definitions,
                    name=self._worker_name,
                    limits=self._limits,
                    only=self._only,
                    clock=self._clock,
                    watches=self._watches,
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
        if store is not None and store is not self._given:
            await store.aclose()

    # -- what a handle needs (see `handle.Desk`) ----------------------------------------------------------------------

    @property
    def store(self) -> EventStore:
        """The open store. Raises `EngineClosed` when there is none, `ForbiddenInWorkflow` inside a workflow."""
        if getattr(asyncio._get_running_loop(), "holds_workflow", False):
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

    # -- runs ---------------------------------------------------------------------------------------------------------

    async def start(self, call: Call[R], *, id: str | None = None) -> RunHandle[R]:  # noqa: A002 - the word for it
        """Start a run of a workflow call: ``await engine.start(nightly(day), id="nightly-2026-01-01")``.

        Durable when this returns. The same id again, with the same workflow and arguments, is the same run, whether it
        runs or has ended; without an id the run gets a fresh one.

        Raises `RunConflict` when the id belongs to a run of something else, `UnknownWorkflow`, `ArgumentsError` for
        arguments that do not fit the annotations, `NotRecordable`, `PayloadTooLarge`.
        """
        if isinstance(call, Call):
            call.take()  # also when it is refused: the error says what is wrong, not a warning that nobody awaited it
        self.check()
        definition = self._definition_of(call)
        arguments = self._encoded(definition, call)
        run_id = f"{definition.name}-{self._entropy(6).hex()}" if id is None else check_run_id(id)
        if self._only is not None and run_id not in self._only:
            raise HoldfastError(
                f"run {run_id!r} is not among the runs that this engine is for: Engine(only={self._only})"
            )
        watch = self._watches.of(run_id)
        handle: RunHandle[R] = RunHandle(self, watch, definition.result)
        while not await self._created_or_found(definition, run_id, arguments):
            self.check()  # our lease was lost while we wrote; the worker takes another
            await asyncio.sleep(LEASE_SECONDS)
        return handle

    async def _created_or_found(self, definition: Definition[..., Any], run_id: str, arguments: bytes) -> bool:
        """Make the run, or see that it is there. False when neither, because the lease to write under was lost."""
        worker = self._worker
        assert worker is not None
        while worker.has(run_id):
            await worker.launches.settled(run_id)
            with suppress(RunNotFound):  # that launch failed: it is for us to try
                await self._check_same(run_id, definition, arguments)
                return True
        self.check()
        fact = RunStarted(
            at=self._clock.now(),
            workflow=definition.name,
            seed=self._entropy(16).hex(),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            anyio=self._anyio,
        )
        try:
            await worker.launch(definition, run_id, fact, arguments)
        except VersionConflict:
            await self._check_same(run_id, definition, arguments)
        except LeaseLost:  # there is such a stream and it is not ours; or the lease itself is lost
            try:
                await self._check_same(run_id, definition, arguments)
            except RunNotFound:
                return False
        return True

    def _is_resident(self, run_id: str) -> bool:
        return self._worker is not None and self._worker.has(run_id)

    def run(self, id: str) -> RunHandle[Any]:  # noqa: A002 - the word for it
        """A handle on a run by its id; whether there is one is asked by the handle's methods."""
        return RunHandle(self, self._watches.of(check_run_id(id)), None)

    async def runs(
        self,
        *,
        workflow: str | None = None,
        status: RunStatus | tuple[RunStatus, ...] | None = None,
        limit: int = 100,
        cursor: str | None = None,
        newest_first: bool = True,
    ) -> Page[RunSummary]:
        """A page of runs, newest first; `cursor` is the `next` of the page before."""
        attributes: dict[str, Any] = {}
        if workflow is not None:
            attributes[WORKFLOW] = workflow
        if status is not None:
            attributes[STATUS] = status
        query = StreamQuery(
            category=RUN_CATEGORY, attributes=attributes, limit=limit, cursor=cursor, newest_first=newest_first
        )
        page = await self.store.find(query)
        items = tuple(_summary(head) for head in page.items)
        return Page(items, page.next)

    async def unfinished(self, call: Call[R]) -> RunHandle[R] | None:
        """The newest unfinished run of this workflow with these arguments, if there is one. Leaves the call usable."""
        definition = self._definition_of(call)
        arguments = self._encoded(definition, call)
        cursor: str | None = None
        while True:
            page = await self.runs(workflow=definition.name, status=("running", "suspended"), cursor=cursor)
            for summary in page.items:
                if await self._same(summary.id, definition, arguments):
                    return RunHandle(self, self._watches.of(summary.id), definition.result)
            if page.next is None:
                return None
            cursor = page.next

    def _definition_of(self, call: Any) -> Definition[..., Any]:
        if not isinstance(call, Call):
            raise HoldfastError(f"an engine starts a call of a workflow, as in start(nightly(day)), not {call!r}")
        definition = call.definition
        if self._definitions.get(definition.name) is not definition:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise UnknownWorkflow(
                f"{definition.where} is not among this engine's workflows ({known}): give it to Engine(workflows=[...])"
            )
        return definition

    def _encoded(self, definition: Definition[..., Any], call: Call[Any]) -> bytes:
        arguments = definition.arguments.encode(call.args, call.kwargs)
        definition.arguments.decode(arguments)  # what does not come back must be refused before it is recorded
        return arguments

    async def _check_same(self, run_id: str, definition: Definition[..., Any], arguments: bytes) -> None:
        if not await self._same(run_id, definition, arguments):
            raise RunConflict(
                f"run {run_id!r} exists already, with another workflow or other arguments than {definition.where}:"
                " choose another id, or start it with the same call"
            )

    async def _same(self, run_id: str, definition: Definition[..., Any], arguments: bytes) -> bool:
        async for item in read_events(self.store, run_id, until=1):
            event = item.event
            if not isinstance(event, RunStarted):
                raise HistoryError(f"the history of run {run_id!r} does not begin with RunStarted")
            if event.workflow != definition.name or item.payload is None:
                return False
            return item.payload == arguments or definition.arguments.same(item.payload, arguments)
        return False


def _by_name(workflows: Iterable[Workflow[..., Any]]) -> dict[str, Definition[..., Any]]:
    found: dict[str, Definition[..., Any]] = {}
    for definition in workflows:
        if not isinstance(definition, Workflow):
            raise DefinitionError(f"Engine(workflows=[...]) takes what @workflow makes, not {definition!r}")
        if found.setdefault(definition.name, definition) is not definition:
            raise DefinitionError(f"two workflows are named {definition.name!r}: give one another @workflow(name=...)")
        # Made now, so that annotations which cannot be recorded are refused before any run.
        _ = definition.arguments, definition.result
    if found:  # imported late: a client that has no workflows reads no source
        import_module("engine.workflows.screening").refuse(found.values())
    return found


def _summary(head: Any) -> RunSummary:
    return RunSummary(
        id=run_id_of(head.stream),
        workflow=str(head.attributes.get(WORKFLOW, "")),
        status=head.attributes.get(STATUS, "running"),
        version=head.version,
        created_at=head.created_at,
        updated_at=head.updated_at,
        slow=head.attributes.get(SLOW) or 0,
    )
