"""The replayer: a history, event by event, rebuilds the live instance that wrote it.

Facts are delivered through `Instance.deliver`, exactly as when they happened; the decisions recorded behind each are
compared with what the code decides now. Notes are not delivered; what the shell must know of them (attempts made,
whether the run is suspended) is kept on the side. The last group of a history may be incomplete, for a large one is
written in chunks: what is missing there is returned by `finish`, to be appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from msgspec import MsgspecError, Struct, structs

from engine.core.call import Definition
from engine.core.compare import Diagnosis, Mismatch, Reason, compare
from engine.core.decided import Decided
from engine.core.events import (
    TURN_RULE,
    AnyEvent,
    AttemptFailed,
    AttemptHeartbeat,
    Decision,
    EffectReconciled,
    Fact,
    Note,
    PatchMarked,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TaskScheduled,
    TaskStarted,
    decode_header,
    decode_known,
)
from engine.core.inbox import LeftOver
from engine.core.instance import Instance
from engine.errors import ArgumentsError, DefinitionError, HistoryError, HoldfastError, NotRecordable, StepLimitExceeded

__all__ = ["Attempts", "Replayer"]


class Attempts(Struct, gc=False):
    """What the notes say of one unfinished task."""

    started: int = 0  # attempts begun, those that a crash cut off included
    failed: int = 0  # attempts that ended in a recorded failure
    retry_at: int = 0  # microseconds; when the next may begin
    slept: int = 0  # microseconds between failures and their retries, added up
    first_started_at: int = 0
    handed_out: bool = False  # whoever holds the task's token ends it; no attempt is begun
    open: bool = False  # the last one began, and nothing is known of how it ended
    settled: int = 0  # the last attempt of which the outside has said that its effect did not happen
    heartbeat: bytes | None = None  # the last details that an attempt left
    failure: bytes | None = None  # how the last failed attempt failed (`failures.ErrorInfo`)

    def noted(
        self, note: AttemptFailed | EffectReconciled | AttemptHeartbeat, payload: bytes | None, *, at: int
    ) -> None:
        """It is recorded that the last attempt failed, what the outside said of it, or how far it is, at `at`
        (microseconds).
        """
        if isinstance(note, AttemptHeartbeat):
            self.heartbeat = self.heartbeat if payload is None else payload
            return
        if isinstance(note, EffectReconciled) and note.answer == "not_happened":
            self.settled, self.open = note.attempt, False
            return
        self.failed += 1
        self.retry_at = note.retry_at
        self.slept += max(0, note.retry_at - at)
        self.open = self.open and isinstance(note, EffectReconciled)
        if isinstance(note, AttemptFailed):
            self.failure = payload


class Recorded(Protocol):
    """An event as a store returns it."""

    @property
    def version(self) -> int: ...
    @property
    def header(self) -> bytes: ...
    @property
    def payload(self) -> bytes | None: ...


class Replayer:
    """Feed it a run's events in order, then `finish`. After a `Mismatch` it holds no instance any more.

    `versions`: finds another version of a workflow, by name and version, for an epoch that goes on as that.
    """

    def __init__(
        self,
        definition: Definition[..., Any],
        run_id: str,
        *,
        versions: Callable[[str, str], Definition[..., Any] | None] | None = None,
    ) -> None:
        self._versions = versions
        self.instance = Instance(definition, run_id)
        self.instance.replaying = True
        self.attempts: dict[str, Attempts] = {}
        self.version = 0  # of the last event fed
        self.last_at = 0
        self.epoch_version = 1  # of the `RunStarted` that the last epoch begins with
        self.carrying: list[LeftOver] = []
        """What the last epoch left, and this one was not told yet when its history broke off."""
        self._fact: Fact | None = None
        self._fact_payload: bytes | None = None
        self._fact_version = 0
        self._recorded: dict[str, Decided] = {}
        self._marked = False  # whether the fact held back has markers of patches behind it

    def feed_all(self, page: Iterable[Recorded]) -> None:
        """The next events, as they are stored. The run's loop is made the running one once, not for every fact."""
        self.instance.together(lambda: self._feed_all(page))

    def _feed_all(self, page: Iterable[Recorded]) -> None:
        for recorded in page:
            try:
                event = decode_known(recorded.header)
            except MsgspecError:
                self._unreadable(recorded)
            self.feed(recorded.version, event, recorded.payload)

    def _unreadable(self, recorded: Recorded) -> NoReturn:
        version = recorded.version
        try:
            raise AssertionError(f"not refused the second time: {decode_header(recorded.header)!r}")
        except HistoryError as error:
            message = f"version {version} of run {self.instance.run_id!r}: {error}"
            raise Mismatch(Diagnosis(reason="history", message=message, version=version)) from error

    def feed(self, version: int, event: AnyEvent, payload: bytes | None) -> None:
        """The next event. Raises `Mismatch` where the code decides otherwise than it did."""
        self.version = version
        if event.at > self.last_at:  # noqa: PLR1730 - for every event there is; calling max costs four times as much
            self.last_at = event.at
        # By their own class first: nearly all there are, and asking for a class above them takes a walk.
        if type(event) is TaskStarted:
            self._task_started(event)
        elif type(event) is TaskScheduled or isinstance(event, Decision):
            if type(event) is not TaskScheduled and self._is_marker(event):
                return
            if event.id in self._recorded:
                self._refuse("history", f"the decision {event.id!r} is recorded twice behind one fact")
            self._recorded[event.id] = Decided(event, payload)
        elif isinstance(event, Fact):
            self._settle(complete=True)
            self._fact, self._fact_payload, self._fact_version = event, payload, version
            if type(event) is TaskCompleted or type(event) is TaskFailed:
                self.attempts.pop(event.id, None)
            elif type(event) is RunStarted and event.epoch > self.instance.epoch:
                self._begin_epoch(version, event.version)
            elif self.carrying and getattr(event, "carried", False):
                del self.carrying[0]  # they are told in order, before anything else
        else:
            self._note(event, payload)

    def finish(self) -> list[Decided]:
        """The history ends here. Returns what the last turn decided and the log does not hold yet."""
        decided = self._settle(complete=False)
        self.instance.replaying = False
        self.instance.patches.recorded = None
        return decided

    def _begin_epoch(self, version: int, of: str) -> None:
        """The run has continued as new, in that version of its workflow: of what was before only that matters which
        nobody has taken.
        """
        before = self.instance
        before.evict()
        definition: Definition[..., Any] | None = before.definition
        if self._versions is not None:
            definition = self._versions(before.definition.name, of)
        if definition is None:
            self._refuse("history", f"the run goes on as version {of!r} of its workflow, which is not there")
        self.epoch_version, self.carrying = version, before.left_over
        self.instance = Instance(definition, before.run_id)
        self.instance.replaying = True
        self.attempts.clear()

    def _is_marker(self, event: Decision) -> bool:
        """Whether it is a patch's marker: what the code is told when it asks, and need not decide again."""
        if type(event) is not PatchMarked:
            if type(event) is TaskCancelled:
                self.attempts.pop(event.id, None)
            return False
        patches = self.instance.patches
        if self._fact is None:
            self._refuse("history", "a decision stands before the first fact")
        if not patches.mark(event):
            self._refuse(
                "decisions",
                f"history has patch {event.name!r} here (from {event.site or 'an unknown place'}), but the code has"
                f" asked for it earlier, at {patches.site_of(event.name)}, where this run went past without it: give"
                " the earlier place a patch of another name",
            )
        self._marked = True
        return True

    def _task_started(self, event: TaskStarted) -> None:
        attempts = self.attempts.get(event.id)
        if attempts is None:
            self.attempts[event.id] = Attempts(started=event.attempt, first_started_at=event.at, open=True)
        else:
            attempts.started, attempts.open = event.attempt, True

    def _note(self, event: Note, payload: bytes | None) -> None:
        match event:
            case AttemptFailed(id=id_) | EffectReconciled(id=id_) | AttemptHeartbeat(id=id_):
                self.attempts.setdefault(id_, Attempts()).noted(event, payload, at=event.at)
            case TaskHandedOut(id=id_):
                self.attempts.setdefault(id_, Attempts()).handed_out = True
            case _:
                return

    def _settle(self, *, complete: bool) -> list[Decided]:
        """Deliver the fact held back until its recorded decisions were known, and compare."""
        fact, recorded = self._fact, self._recorded
        if fact is None:
            if recorded:
                self._refuse("history", "a decision stands before the first fact")
            return []
        if type(fact) is RunStarted and fact.rule > TURN_RULE:
            self._refuse("history", f"it was written under turn rule {fact.rule}, this version knows up to {TURN_RULE}")
        self._fact = None
        if recorded:
            self._recorded = {}
        patches = self.instance.patches
        patches.recorded, patches.complete = recorded, complete
        try:
            answer = self.instance.deliver(fact, self._fact_payload)
        except HoldfastError as error:
            self._undelivered(error)
        if self._marked:
            self._marked = False
            patches.turn_told()
        if not answer and not recorded:  # of a fan-out, nearly every fact
            return answer
        decided = {item.event.id: item for item in answer}
        try:
            compare(recorded, decided, version=self._fact_version, complete=complete, codec_of=self.instance.codec_of)
        except Mismatch as mismatch:
            self.instance.evict()
            raise Mismatch(structs.replace(mismatch.diagnosis, hints=tuple(patches.hints()))) from None
        return [] if complete else [item for id_, item in decided.items() if id_ not in recorded]

    def _undelivered(self, error: HoldfastError) -> NoReturn:
        """The code did not take a fact. Raises what that means; the error itself, where it says nothing of the code."""
        match error:
            case HistoryError():
                self._refuse("delivery", str(error))
            case ArgumentsError() | DefinitionError() | NotRecordable():
                self._refuse("values", str(error))
            case StepLimitExceeded():
                self._refuse("spinning", str(error))
            case _:
                raise error

    def _refuse(self, reason: Reason, message: str) -> NoReturn:
        self.instance.evict()
        version = self._fact_version or self.version
        hints = tuple(self.instance.patches.hints())
        raise Mismatch(Diagnosis(reason=reason, message=message, version=version, hints=hints))
