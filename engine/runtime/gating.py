"""The gate: whether code that is about to be deployed fits the histories that are there.

Every run is replayed as a worker would bring it back, from the beginning of its last epoch, and put away again. Nothing
is written, no lease is taken, no task begins: the store may be opened read-only, and workers may go on meanwhile. What
is found is what they would find: a run that does not fit here would be suspended there, with this diagnosis.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct, structs

from engine.core.compare import Diagnosis, Difference, Mismatch, describe_decision
from engine.core.decided import Decided
from engine.core.events import RunCancelled, RunCompleted, RunFailed, RunForked, RunStarted
from engine.core.fold import FINAL_STATUSES, UNFINISHED, RunStatus
from engine.core.replay import Replayer
from engine.core.standing import standing
from engine.errors import HoldfastError
from engine.runtime.anyio_seams import order_anyio_sets
from engine.runtime.guard import install_guard
from engine.runtime.handle import RunSummary, summary_of
from engine.runtime.histories import HistoryEvent, head_of
from engine.runtime.large_values import TABLES, LargeValues
from engine.runtime.logs import quiet_replays
from engine.runtime.recovery import try_run, with_its_type
from engine.runtime.serving import served
from engine.runtime.streams import PAYLOADS, RUN_CATEGORY, STATUS, WORKFLOW
from engine.runtime.watchdog import TURN_SECONDS_MAX, TURN_WARN_SECONDS, Watchdog
from engine.storage import Storage
from engine.workflows import Workflow
from eventstore import EventStore, StreamHead, StreamQuery, SystemClock, find_all
from eventstore.port import FIND_LIMIT_MAX

__all__ = ["Gate", "Verdict", "decides_more", "diagnose"]

_ENDS: Final = (RunCompleted, RunFailed, RunCancelled)
_ADVICE: Final = (
    "With this code the run would be suspended; nothing would be lost. Ways out: put the change behind"
    " durable.patched(...), so that runs which are past it go the old way; or give the changed workflow a version of"
    " its own and keep the old one beside it; or deploy when these runs have ended."
)


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether one run fits the code there is.

    `version`: events in its history. `known`: whether its workflow, in the version that it is on, is among those of the
    gate; one that is not was not replayed. `diagnosis`: how it does not fit. `ahead`: decisions that the code would
    take as soon as it had the run, and that are not recorded; what a crash kept from being written, or what is new in
    this code.
    """

    run: str
    workflow: str
    status: RunStatus
    version: int
    workflow_version: str = ""  # if its workflow has versions
    known: bool = True
    diagnosis: Diagnosis | None = None
    ahead: int = 0

    @property
    def fits(self) -> bool:
        """Whether a worker with this code can go on with it."""
        return self.known and self.diagnosis is None


class Gate:
    """Replays the runs of a store with these workflows: ``async with Gate(store, [nightly]) as gate: ...``.

    `store`: an open one, which stays open; read-only is enough. `turn_seconds`: after how long a turn is broken off.
    `storage`: that of the runs, if their large values lie in one.
    Workflows that these call as children are found as an engine finds them. Raises `DefinitionError` and
    `DeterminismError` for workflows that no engine would take. One replay at a time: use several processes for more.
    """

    def __init__(
        self,
        store: EventStore,
        workflows: Iterable[Workflow[..., Any]],
        *,
        turn_seconds: float = TURN_SECONDS_MAX,
        storage: Storage | None = None,
    ) -> None:
        self._store = store if storage is None else LargeValues(store, storage)
        self._definitions = served(workflows, reach=True)
        self.learnt = 0  # definitions that runs have shown it
        self._watchdog = Watchdog(SystemClock(), warn=min(TURN_WARN_SECONDS, turn_seconds), limit=turn_seconds)

    async def __aenter__(self) -> Self:
        order_anyio_sets()
        install_guard()
        quiet_replays()
        self._watchdog.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.close()

    @property
    def workflows(self) -> tuple[str, ...]:
        """The names of the workflows that it knows, those included that it was shown by runs as their children."""
        return tuple(self._definitions)

    def knows(self, workflow: str, version: str) -> bool:
        """Whether it can replay runs of this workflow that are on this version; "": runs without one."""
        return self._definitions.find(workflow, version) is not None

    async def runs(self, *, closed: int = 0) -> AsyncIterator[RunSummary]:
        """All open runs, whatever their workflow, oldest first; then the newest `closed` of each workflow it knows."""
        query = StreamQuery(category=RUN_CATEGORY, attributes={STATUS: UNFINISHED}, newest_first=False)
        async for head in find_all(self._store, query):
            yield summary_of(head)
        for name in self.workflows if closed else ():
            async for run in self._closed(name, closed):
                yield run

    async def _closed(self, name: str, count: int) -> AsyncIterator[RunSummary]:
        # What was made to forget cannot be replayed.
        attributes: dict[str, Any] = {WORKFLOW: name, STATUS: tuple(sorted(FINAL_STATUSES)), PAYLOADS: None}
        cursor: str | None = None
        while count > 0:
            query = StreamQuery(
                category=RUN_CATEGORY,
                attributes=attributes,
                limit=min(count, FIND_LIMIT_MAX),
                cursor=cursor,
                newest_first=True,
            )
            page = await self._store.find(query)
            for head in page.items:
                yield summary_of(head)
            count, cursor = count - len(page.items), page.next
            if cursor is None:
                return

    async def check(self, run_id: str) -> Verdict:
        """Replay one run. Raises `RunNotFound`, and what the store raises."""
        head = await head_of(self._store, run_id)
        definition = self._definitions.of(head.attributes)
        if definition is None:
            return _verdict(head, known=False)
        tried = await try_run(
            self._store, head, definition, self._watchdog, versions=self._definitions.find, say=with_its_type
        )
        if isinstance(tried, Diagnosis):
            return _verdict(head, diagnosis=tried)
        instance = tried.replayer.instance
        try:
            for learnt in instance.calls.definitions.values():
                self.learnt += self._definitions.add(learnt, newest=False)
            if head.closed and tried.backlog and head.attributes.get(STATUS) != "terminated":
                return _verdict(head, diagnosis=decides_more(tried.backlog, head.version))
            return _verdict(head, ahead=len(tried.backlog))
        finally:
            instance.evict()


def diagnose(events: Sequence[HistoryEvent], *workflows: Workflow[..., Any], run_id: str = "run") -> Diagnosis | None:
    """How a recorded history does not fit these workflows (one, or several versions of it); None: it does.

    `events` as `RunHandle.events` gives them, from the beginning, also of a fork or of a run that was reopened;
    `run_id` as it was. Raises `HoldfastError` for a history of another workflow, `DefinitionError` and
    `DeterminismError` as an engine does.
    """
    order_anyio_sets()
    install_guard()
    quiet_replays()
    known = served(workflows, reach=False)
    started = next((item.event for item in events if not isinstance(item.event, RunForked)), None)
    if not isinstance(started, RunStarted):
        raise HoldfastError("a history begins with RunStarted: give all of its events, the first one first")
    definition = known.find(started.workflow, started.version)
    if definition is None:
        version = f" in version {started.version!r}" if started.version else ""
        there = ", ".join(known) or "none"
        raise HoldfastError(f"the history is of workflow {started.workflow!r}{version}, which is not given ({there})")
    replayer = Replayer(definition, run_id, versions=known.find, tables=TABLES)
    try:
        replayer.feed_all(events)
        backlog = replayer.finish()
    except Mismatch as mismatch:
        return structs.replace(mismatch.diagnosis, advice=_ADVICE)
    finally:
        replayer.instance.evict()
    ended = any(isinstance(item.event, _ENDS) for item in standing(events))  # a reopened run goes on behind its end
    return decides_more(backlog, events[-1].version) if backlog and ended else None


def decides_more(backlog: list[Decided], version: int) -> Diagnosis:
    """A run that has ended has all that its last turn decided."""
    return Diagnosis(
        reason="decisions",
        message="the code decides more than it did when the run ended",
        version=version,
        differences=tuple(
            Difference(decided=describe_decision(item), decided_site=item.event.site) for item in backlog
        ),
    )


def _verdict(head: StreamHead, *, diagnosis: Diagnosis | None = None, **said: Any) -> Verdict:
    summary = summary_of(head)
    return Verdict(
        run=summary.id,
        workflow=summary.workflow,
        status=summary.status,
        version=summary.version,
        workflow_version=summary.workflow_version,
        diagnosis=None if diagnosis is None else structs.replace(diagnosis, advice=_ADVICE),
        **said,
    )
