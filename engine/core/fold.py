"""The state of a run as a pure fold of its history: no code of the workflow is needed, or run.

Good for every reader who wants to know how things stand, now or at any version: status pages, progress, audits.
"""

from __future__ import annotations

from msgspec import Struct, field

from engine.core.attributes import AttributeValue
from engine.core.carriage import plain
from engine.core.compare import Diagnosis
from engine.core.events import (
    AnyEvent,
    AttemptFailed,
    AttemptHeartbeat,
    AttributesGiven,
    AttributesSet,
    CancelRequested,
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    ChildStarted,
    ChildTerminated,
    EffectReconciled,
    Fact,
    FeedPublished,
    PatchMarked,
    PayloadsDestroyed,
    PrefixEnded,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunBegun,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunPaused,
    RunPruned,
    RunQueued,
    RunReopened,
    RunResumed,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunUnpaused,
    SignalReceived,
    StatePublished,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TaskScheduled,
    TaskStarted,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    TurnSlow,
)
from engine.core.failures import ErrorInfo
from engine.core.fold_parts import (
    FINAL_STATUSES,
    UNFINISHED,
    ChildState,
    RunStatus,
    TaskState,
    TaskStatus,
    attributes_of,
    diagnosis_of,
    error_of,
)
from engine.core.turn_state import TurnState

__all__ = ["FINAL_STATUSES", "UNFINISHED", "ChildState", "RunState", "RunStatus", "TaskState", "TaskStatus"]


class RunState(Struct, kw_only=True):
    """A run after `version` events. `apply` moves it on by one."""

    run_id: str
    workflow: str = ""
    status: RunStatus = "running"
    version: int = 0
    arguments: bytes | None = None
    result: bytes | None = None
    error: ErrorInfo | None = None
    reason: str = ""  # of a cancellation or termination
    diagnosis: Diagnosis | None = None  # while suspended
    started_at: int = 0
    updated_at: int = 0
    ended_at: int | None = None
    cancel_requested: bool = False
    slow_turns: int = 0  # that kept other runs waiting
    slowest_turn: int = 0  # microseconds
    slow_site: str = ""  # file and line where the last of them was seen
    paused_at: int | None = None  # while paused, and who wanted that, and why
    paused_by: str = ""
    pause_reason: str = ""
    tasks: dict[str, TaskState] = field(default_factory=dict)  # by id, in the order they were scheduled
    timers: dict[str, int] = field(default_factory=dict)  # those running: id to deadline
    children: dict[str, ChildState] = field(default_factory=dict)  # by the call's id
    states: dict[str, bytes | None] = field(default_factory=dict)  # published ones, by name
    signals: dict[str, int] = field(default_factory=dict)  # how many arrived, by name
    requests: dict[str, str] = field(default_factory=dict)  # by id: "accepted", "answered" or "failed"
    published: int = 0  # values of feeds
    patches: dict[str, int] = field(default_factory=dict)  # those it goes the new way at, by name: the marker's version
    attributes: dict[str, AttributeValue] = field(default_factory=dict)  # what the author gave it, to be found by
    workflow_version: str = ""  # if its workflow has versions
    epoch: int = 0  # how often it has continued as new; what stands above is of this epoch
    parent: str = ""  # id of the run that started it
    parent_call: str = ""
    parent_epoch: int = 0
    root: str = ""
    deadline: int = 0  # microseconds since the epoch; 0: none
    waits: bool = False  # it is recorded, and has not begun
    begins_at: int = 0  # of one that waits: not before this; 0: as soon as nothing holds it
    begun_at: int = 0  # 0: not yet
    singleton: str = ""  # the key that one run of the workflow has at a time
    queued_behind: str = ""  # id of the run that had it when this one queued for it
    origin: str = ""  # of a fork: the id of the run that it was forked from
    origin_version: int = 0  # and the last version of that which it has copied
    rerun_of: str = ""  # the id of the run whose workflow and arguments it has, if it was asked for as a rerun
    reopened: int = 0  # how often it has gone on behind an end
    pruned: RunPruned | None = None  # what is left of it is this, and digests
    destroyed: PayloadsDestroyed | None = None  # the last that says so
    turn: TurnState = field(default_factory=TurnState)  # the last one

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in FINAL_STATUSES or self.status == "pruned"

    def counts(self) -> dict[TaskStatus, int]:
        """How many tasks are in each status; absent ones are not listed."""
        counts: dict[TaskStatus, int] = {}
        for task in self.tasks.values():
            counts[task.status] = counts.get(task.status, 0) + 1
        return counts

    def apply(self, version: int, event: AnyEvent, payload: bytes | None) -> None:
        """Fold one event in. Events of a run are applied in order, each once."""
        payload = plain(payload)  # the state is to be read by anybody
        self.version = version
        self.updated_at = max(self.updated_at, event.at)
        if isinstance(event, Fact):
            self.turn = TurnState(event.at, event)
        match event:
            case (
                TaskScheduled()
                | TaskStarted()
                | TaskCompleted()
                | TaskFailed()
                | TaskCancelled()
                | AttemptFailed()
                | AttemptHeartbeat()
                | EffectReconciled()
                | TaskHandedOut()
            ) as of_task:
                self._apply_to_task(of_task, payload)
            case TimerStarted(id=id_, deadline=deadline):
                self.timers[id_] = deadline
            case TimerFired(id=id_):
                self.timers.pop(id_, None)
            case TimerCancelled(id=id_):
                self.turn.timers[id_] = self.timers.pop(id_, 0)
            case (
                ChildStarted()
                | ChildCompleted()
                | ChildFailed()
                | ChildCancelled()
                | ChildTerminated()
                | ChildOutcomeIgnored()
            ) as of_child:
                self._apply_to_child(of_child)
            case RunStarted() | RunBegun() | RunQueued():
                self._begin(event, payload)
            case RunCompleted() | RunFailed() | RunCancelled() | RunTerminated() | RunPruned() | PayloadsDestroyed():
                self._end(event, payload)
            case (
                RunPaused()
                | RunUnpaused()
                | RunSuspended()
                | RunResumed()
                | RunReopened()
                | RunForked()
                | PrefixEnded()
            ):
                self._hold(event, payload)
            case _:
                self._apply_to_talk(event, payload)

    def _apply_to_talk(self, event: AnyEvent, payload: bytes | None) -> None:
        """What the run and others have said to each other."""
        match event:
            case StatePublished(name=name):
                self.states[name] = payload
            case FeedPublished():
                self.published += 1
            case PatchMarked(name=name):
                self.patches[name] = self.version
                self.turn.patches.append(name)
            case AttributesSet() | AttributesGiven():
                self.turn.set_attributes(self.attributes, attributes_of(payload))
            case SignalReceived(name=name, carried=carried) if not (carried and self.epoch):
                self.signals[name] = self.signals.get(name, 0) + 1
            case RequestReceived(id=id_):
                self.requests[id_] = "accepted"
            case RequestAnswered(request=id_) | RequestFailed(request=id_):
                self.requests[id_] = "failed" if isinstance(event, RequestFailed) else "answered"
            case CancelRequested():
                self.cancel_requested = True
            case TurnSlow(took=took, site=site):
                self.slow_turns, self.slowest_turn = self.slow_turns + 1, max(self.slowest_turn, took)
                self.slow_site = site or self.slow_site
            case _:
                return

    def _apply_to_task(
        self,
        event: TaskScheduled
        | TaskStarted
        | TaskCompleted
        | TaskFailed
        | TaskCancelled
        | AttemptFailed
        | AttemptHeartbeat
        | EffectReconciled
        | TaskHandedOut,
        payload: bytes | None,
    ) -> None:
        if isinstance(event, TaskScheduled):
            self.tasks[event.id] = TaskState(
                id=event.id, name=event.task, site=event.site, arguments=payload, scheduled_at=event.at
            )
            return
        task = self.tasks.get(event.id)
        if task is None:
            return  # a damaged or partial history; the fold tells what it can
        match event:
            case TaskStarted(attempt=attempt, at=at):
                task.status, task.attempts, task.started_at, task.retry_at = "running", attempt, at, None
            case AttemptFailed(retry_at=retry_at):
                task.status, task.retry_at, task.error = "retrying", retry_at, error_of(event.error, payload)
                task.failures += 1
            case AttemptHeartbeat() | EffectReconciled():
                self._apply_word(task, event, payload)
            case TaskCompleted(at=at):
                task.status, task.result, task.ended_at = "completed", payload, at
                task.reused_run, task.reused_id = event.reused_run, event.reused_id
            case TaskFailed(at=at):
                task.status, task.error, task.ended_at = "failed", error_of(event.error, payload), at
                task.failures += 1
            case TaskCancelled(at=at):
                task.status, task.ended_at = "cancelled", at
                self.turn.tasks.append(task.id)
            case TaskHandedOut():
                task.status = "handed out"

    def _apply_word(self, task: TaskState, event: AttemptHeartbeat | EffectReconciled, payload: bytes | None) -> None:
        """What was said of an attempt that has not ended, or whose end is not known."""
        if isinstance(event, AttemptHeartbeat):
            task.heartbeat_at = event.at
            task.heartbeat = task.heartbeat if payload is None else payload
            return
        if event.answer == "not_happened":
            task.status = "scheduled"
            return
        task.status, task.retry_at, task.failures = "retrying", event.retry_at, task.failures + 1
        task.error = error_of("unknown", payload)

    def _apply_to_child(
        self,
        event: ChildStarted | ChildCompleted | ChildFailed | ChildCancelled | ChildTerminated | ChildOutcomeIgnored,
    ) -> None:
        if isinstance(event, ChildStarted):
            self.children[event.id] = ChildState(
                id=event.id,
                run=event.run,
                workflow=event.workflow,
                parent_close=event.parent_close,
                site=event.site,
                started_at=event.at,
            )
            return
        child = self.children.get(event.id.rstrip("!"))
        if child is None or (isinstance(event, ChildOutcomeIgnored) and event.epoch != self.epoch):
            return
        match event:
            case ChildCompleted(at=at):
                child.status, child.ended_at = "completed", at
            case ChildFailed(at=at, status=status):
                child.status, child.ended_at = status, at
            case ChildOutcomeIgnored(at=at, outcome=outcome):
                child.status, child.ended_at = outcome, at
            case _:
                child.asked_to_end = True
                self.turn.children.append(child.id)

    def _begin(self, event: RunStarted | RunBegun | RunQueued, payload: bytes | None) -> None:
        if isinstance(event, RunQueued):
            if not self.origin:
                self.singleton, self.queued_behind = event.key, event.behind
            return
        if isinstance(event, RunBegun):
            self.waits, self.begun_at = False, event.at
            self.status = "running" if self.status == "queued" else self.status
            return
        self.workflow, self.arguments, self.epoch = event.workflow, payload, event.epoch
        self.parent, self.parent_call, self.parent_epoch = event.parent, event.parent_call, event.parent_epoch
        self.root, self.deadline, self.rerun_of = event.root, event.deadline, event.rerun_of
        self.workflow_version = event.version
        self.singleton = "" if self.origin else event.singleton  # which a fork has not, whatever its origin had
        self.waits, self.begins_at = event.waits, event.begins_at
        if event.waits:
            self.status = "queued"
        elif not event.epoch:
            self.begun_at = event.at
        if not event.epoch:
            self.started_at = event.at
            return
        for of_epoch in (self.tasks, self.timers, self.children, self.patches):
            of_epoch.clear()

    def _end(
        self,
        event: RunCompleted | RunFailed | RunCancelled | RunTerminated | RunPruned | PayloadsDestroyed,
        payload: bytes | None,
    ) -> None:
        if isinstance(event, PayloadsDestroyed):
            self.destroyed = event
            return
        self.ended_at = event.at
        match event:
            case RunCompleted():
                self.status, self.result = "completed", payload
            case RunFailed(error=error):
                self.status, self.error = "failed", error_of(error, payload)
            case RunCancelled(reason=reason):
                self.status, self.reason = "cancelled", reason
            case RunTerminated(reason=reason):
                self.status, self.reason = "terminated", reason
            case RunPruned():
                self.status, self.pruned, self.workflow = "pruned", event, event.workflow
                self.started_at, self.ended_at = event.started_at, event.ended_at

    def _hold(
        self,
        event: RunPaused | RunUnpaused | RunSuspended | RunResumed | RunReopened | RunForked | PrefixEnded,
        payload: bytes | None,
    ) -> None:
        match event:
            case RunReopened() | RunForked() | PrefixEnded():
                self._repair(event)
            case RunPaused(at=at, by=by, reason=reason):
                self.status = "paused"
                self.paused_at, self.paused_by, self.pause_reason = at, by, reason
            case RunSuspended():
                self.status, self.diagnosis = "suspended", diagnosis_of(payload)
            case RunUnpaused() | RunResumed():
                self.status, self.diagnosis = "queued" if self.waits else "running", None
                self.paused_at, self.paused_by, self.pause_reason = None, "", ""

    def _repair(self, event: RunReopened | RunForked | PrefixEnded) -> None:
        match event:
            case RunForked(origin=origin, version=version):
                if not self.origin:  # one that is copied says what the origin is a fork of
                    self.origin, self.origin_version = origin, version
            case RunReopened():
                self.reopened += 1
                if event.takes_back != "end":
                    never = event.takes_back == "turn"
                    self.turn.take_back(self.tasks, self.children, self.timers, self.patches, fact=never)
                    asked = never and isinstance(self.turn.fact, CancelRequested)
                    self.cancel_requested = self.cancel_requested and not asked
                    self.turn.take_back_attributes(self.attributes)
                self._go_on(event.at)
            case PrefixEnded():
                self.parent = self.parent_call = self.root = ""
                self.parent_epoch = 0
                self._go_on(event.at)

    def _go_on(self, at: int) -> None:
        """It goes on, and the time in which it stood still does not count."""
        pause = max(0, at - self.turn.at)
        self.timers = {id_: deadline + pause for id_, deadline in self.timers.items()}
        self.deadline = self.deadline and self.deadline + pause
        self.turn = TurnState(at, self.turn.fact)
        self.status = "queued" if self.waits else "running"
        self.ended_at = self.result = self.error = self.diagnosis = None
        self.reason = self.paused_by = self.pause_reason = ""
        self.paused_at = None
        for task in self.tasks.values():
            if task.ended_at is None:
                task.scheduled_at += pause
                task.status = "scheduled" if task.status == "running" else task.status
