"""Replaying one run to look at it: the real code against the recorded history, up to any event, and nothing else.

What comes of it is where every branch of the workflow stands there, what it awaits, and its stack with its locals. The
store is read and never written, no lease is taken, no task begins. It goes for every run that a history exists of,
whatever became of it: a run that its code has ended is shown as it stood before the turn that ended it, and with where
an error came from; code that does not fit stops the replay where a worker would have suspended the run, and what is
shown is how it stood before.

A debugger may run the code, and look at the live frames before they are put away: see `ReplayDebugger`. It knows pdb as
little as this module does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.compare import Diagnosis, Mismatch, describe_decision
from engine.core.decided import Decided
from engine.core.events import AnyEvent, Decision, PrefixEnded, RunForked, RunStarted
from engine.core.fold import RunState, RunStatus
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.core.standing import standing
from engine.errors import HoldfastError, UnknownWorkflow
from engine.runtime.anyio_seams import order_anyio_sets
from engine.runtime.gating import decides_more
from engine.runtime.guard import install_guard
from engine.runtime.histories import check_remembers, epoch_start, head_of, read_beginning, read_events
from engine.runtime.large_values import TABLES
from engine.runtime.logs import quiet_replays
from engine.runtime.recovery import feed_full_pages, with_its_type
from engine.runtime.serving import Served, served
from engine.runtime.stacks import BranchStack, LiveBranch, StackFrame, described, frames_of_error, live_branches
from engine.runtime.streams import run_id_of
from engine.runtime.watchdog import TURN_SECONDS_MAX, TURN_WARN_SECONDS, Watchdog
from engine.workflows import Workflow
from eventstore import EventStore, EventStoreError, StreamHead, SystemClock

__all__ = ["ReplayDebugger", "Replayed", "ReplayedDecision", "replay_run"]

_ADVICE: Final = (
    "Nothing was changed. A worker with this code would suspend the run here. Ways out: bring back the code that wrote"
    " this history; or put the change behind durable.patched(...), so that runs which are past it go the old way; or"
    " give the changed workflow a version of its own and keep the old one beside it."
)


class ReplayedDecision(Struct, frozen=True):
    """A decision of the run, in a few words. `version`: of its event; 0 where it is not recorded by then."""

    version: int
    text: str
    site: str  # file and line that asked for it


class Replayed(Struct, frozen=True, kw_only=True):
    """A run, replayed up to `version` of the `versions` that its history has.

    `status`: how it stood there; `epoch`: in which it was. `branches`: where its code stands, none where it has not
    begun. They stand at `stands_at`, which is before `version` when the code ended the run in its last turn (`ended`:
    how; `raised`: the frames that the error of a failure came through), or does not fit (`diagnosis`). `decisions`:
    those of the epoch that count; `ahead`: those that the code takes in the last turn and that are not recorded by
    `version`.
    """

    run: str
    workflow: str
    workflow_version: str
    status: RunStatus
    epoch: int
    version: int
    versions: int
    stands_at: int
    branches: tuple[BranchStack, ...]
    decisions: tuple[ReplayedDecision, ...]
    ahead: tuple[ReplayedDecision, ...] = ()
    ended: str = ""
    raised: tuple[StackFrame, ...] = ()
    diagnosis: Diagnosis | None = None


class ReplayDebugger(Protocol):
    """Who runs the code of a replay, and looks at it where it stands."""

    def run(self, work: Callable[[], None], *, again: bool, opened: Callable[[], None]) -> None:
        """Call `work`, which runs workflow code; call `opened` before somebody looks at it meanwhile, and takes time.

        `again`: the turns were run before, and now are to lead to where the code is looked at.
        """

    def look(self, branches: tuple[LiveBranch, ...], raised: TracebackType | None) -> None:
        """The code stands where the replay was to lead; its frames live until this returns. `raised`: of a failure."""


async def replay_run(
    store: EventStore,
    run_id: str,
    workflows: Iterable[Workflow[..., Any]],
    *,
    to: int | None = None,
    debugger: ReplayDebugger | None = None,
    turn_seconds: float = TURN_SECONDS_MAX,
) -> Replayed:
    """Replay a run with these workflows up to event `to` (its end), and say where its code stands. See `Replayed`.

    `store`: an open one; read-only is enough. Workflows that these call as children are found as an engine finds them.
    `turn_seconds`: after how long a turn is broken off, unless a debugger was opened. What does not fit is no error,
    but `Replayed.diagnosis`. Raises `RunNotFound`, `HistoryError`, `UnknownWorkflow`, `HoldfastError` for a version
    that the history does not have, `RunPrunedError`, `RepairRefused` for a run that was made to forget payloads,
    `DefinitionError` and `DeterminismError` as an engine does, what the store raises.
    """
    order_anyio_sets()
    install_guard()
    quiet_replays()
    known = served(workflows, reach=True)
    head = await head_of(store, run_id)
    check_remembers(head)
    to = _checked(head, run_id, to)
    start = await _start_of(store, head, run_id, to)
    watchdog = Watchdog(SystemClock(), warn=min(TURN_WARN_SECONDS, turn_seconds), limit=turn_seconds)
    replay = _Replay(store, head, known, start=start, debugger=debugger, watchdog=watchdog)
    await replay.find_definition()
    watchdog.open()
    try:
        return await replay.look(to)
    finally:
        watchdog.close()


def _checked(head: StreamHead, run_id: str, to: int | None) -> int:
    if head.version == 0:
        raise HoldfastError(f"run {run_id!r} was asked for, and no worker has taken it up: there is nothing to replay")
    if to is not None and not 1 <= to <= head.version:
        raise HoldfastError(f"run {run_id!r} has {head.version:,} events: there is no version {to:,} to replay it to")
    return head.version if to is None else to


async def _start_of(store: EventStore, head: StreamHead, run_id: str, to: int) -> int:
    """The version that a replay up to another one begins at: where its epoch does."""
    start = epoch_start(head)
    if start <= to:
        return start
    start, copied = 1, 0  # of a fork, an epoch that it has copied cannot be replayed alone: it goes by its origin's id
    async for item in read_events(store, run_id, until=to):
        match item.event:
            case RunForked():
                copied += 1
            case PrefixEnded():
                copied -= 1
            case RunStarted() if not copied:
                start = item.version
            case _:
                continue
    return start


class _Told(Struct):
    """What the history says of the epoch up to a version, without the code."""

    state: RunState
    decisions: tuple[ReplayedDecision, ...]


class _Replay:
    """One run, from where its epoch begins (`start`)."""

    def __init__(
        self,
        store: EventStore,
        head: StreamHead,
        known: Served,
        *,
        start: int,
        debugger: ReplayDebugger | None,
        watchdog: Watchdog,
    ) -> None:
        self._store = store
        self._head = head
        self._run_id = run_id_of(head.stream)
        self._known = known
        self._start = start
        self._debugger = debugger
        self._watchdog = watchdog
        self._definition: Definition[..., Any] | None = None

    async def find_definition(self) -> None:
        """What the epoch is of. Raises `UnknownWorkflow`."""
        beginning = await read_beginning(self._store, self._run_id, start=self._start)
        assert beginning is not None, "it has events"
        name, version = beginning[0].workflow, beginning[0].version
        self._definition = self._known.find(name, version)
        if self._definition is None:
            said = f"workflow {name!r}" + (f" in version {version!r}" if version else "")
            raise UnknownWorkflow(
                f"run {self._run_id!r} is of {said}, which is not among those given:"
                f" {', '.join(self._known) or 'there are none'}"
            )

    async def look(self, to: int) -> Replayed:
        """Replay it, and look where it stands; at an end, or where the code does not fit, where it stood before."""
        told = await self._told(to)
        replayer = self._replayer()
        try:
            decided = await self._feed(replayer, to, again=False)
        except Mismatch as mismatch:
            return await self._unfit(told, to, mismatch.diagnosis)
        except EventStoreError:
            raise
        except Exception as error:  # the user's, in a place we call; or ours
            diagnosis = Diagnosis(reason="internal", message=with_its_type(error), version=to)
            return await self._unfit(told, to, diagnosis)
        else:
            if decided and to == self._head.version and self._head.closed and told.state.status != "terminated":
                return await self._unfit(told, to, decides_more(decided, replayer.last_turn.version))
            if replayer.instance.outcome is not None:
                return await self._ended(told, to, replayer, decided)
            branches = self._look_at(replayer.instance, None)
            return self._replayed(told, to, stands_at=to, branches=branches, ahead=_ahead(decided))
        finally:
            replayer.instance.evict()

    async def _unfit(self, told: _Told, to: int, diagnosis: Diagnosis) -> Replayed:
        told = await self._told(min(to, diagnosis.version))
        branches = await self._before(diagnosis.version, None)
        diagnosis = structs.replace(diagnosis, advice=_ADVICE)
        return self._replayed(told, to, stands_at=diagnosis.version - 1, branches=branches, diagnosis=diagnosis)

    async def _ended(self, told: _Told, to: int, replayer: Replayer, decided: list[Decided]) -> Replayed:
        """The code has ended in the last turn: nothing of it stands there any more, but what it raised is known."""
        instance = replayer.instance
        assert instance.outcome is not None
        main = instance.main
        error = None if main is None or main.cancelled() or not main.done() else main.exception()
        raised = error.__traceback__ if error is not None else None
        version = replayer.last_turn.version
        return self._replayed(
            told,
            to,
            stands_at=version - 1,
            branches=await self._before(version, raised),
            ahead=_ahead(decided),
            ended=type(instance.outcome).__name__,
            raised=frames_of_error(raised),
        )

    async def _before(self, version: int, raised: TracebackType | None) -> tuple[BranchStack, ...]:
        """How the code stood before the turn that begins at a version."""
        replayer = self._replayer()
        try:
            if version - 1 >= self._start:
                await self._feed(replayer, version - 1, again=True)
            return self._look_at(replayer.instance, raised)
        except Mismatch:
            return ()
        finally:
            replayer.instance.evict()

    def _look_at(self, instance: Instance, raised: TracebackType | None) -> tuple[BranchStack, ...]:
        live = live_branches(instance)
        found = tuple(described(each) for each in live)
        if self._debugger is not None:
            self._debugger.look(live, raised)
        return found

    def _replayer(self) -> Replayer:
        assert self._definition is not None
        replayer = Replayer(self._definition, self._run_id, versions=self._known.find, tables=TABLES)
        replayer.instance.around = self._watchdog.watch(self._run_id, self._definition.name)
        return replayer

    async def _feed(self, replayer: Replayer, to: int, *, again: bool) -> list[Decided]:
        """Tell it the history from where the epoch begins up to a version. Raises `Mismatch`."""
        run = partial(self._run, again=again)
        after, stream = self._start - 1, self._head.stream
        last = await feed_full_pages(replayer, self._store, stream, after=after, until=to, run=run)
        decided: list[Decided] = []

        def finish() -> None:
            replayer.feed_all(last)
            decided.extend(replayer.finish())

        run(finish)
        return decided

    def _run(self, work: Callable[[], None], *, again: bool) -> None:
        if self._debugger is None:
            work()
        else:
            self._debugger.run(work, again=again, opened=self._watchdog.let_be)

    async def _told(self, to: int) -> _Told:
        """What is recorded of the epoch: how it stands, and the decisions that count."""
        state = RunState(run_id=self._run_id)
        found: list[_Event] = []
        async for item in read_events(self._store, self._run_id, after=self._start - 1, until=to):
            state.apply(item.version, item.event, item.payload)
            decision = isinstance(item.event, Decision)
            text = describe_decision(Decided(item.event, item.payload)) if isinstance(item.event, Decision) else ""
            found.append(_Event(item.version, item.event, text, decision=decision))
        counting = [each for each in standing(found) if each.decision]
        sites = ((each, getattr(each.event, "site", "")) for each in counting)
        return _Told(state, tuple(ReplayedDecision(each.version, each.text, site) for each, site in sites))

    def _replayed(self, told: _Told, to: int, **more: Any) -> Replayed:
        state = told.state
        return Replayed(
            run=self._run_id,
            workflow=state.workflow,
            workflow_version=state.workflow_version,
            status=state.status,
            epoch=state.epoch,
            version=min(to, state.version),
            versions=self._head.version,
            decisions=told.decisions,
            **more,
        )


class _Event(Struct):
    """An event without its payload: of a long history there may be many."""

    version: int
    event: AnyEvent
    text: str
    decision: bool


def _ahead(decided: Iterable[Decided]) -> tuple[ReplayedDecision, ...]:
    return tuple(ReplayedDecision(0, describe_decision(item), item.event.site) for item in decided)
