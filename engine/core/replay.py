"""The replayer: a history, event by event, rebuilds the live instance that wrote it.

Facts are delivered through `Instance.deliver`, exactly as when they happened; the decisions recorded behind each are
compared with what the code decides now. Notes are not delivered; what the shell must know of them (attempts made,
whether the run is suspended) is kept on the side. The last group of a history may be incomplete, for a large one is
written in chunks: what is missing there is returned by `finish`, to be appended.

A fact is held back until its decisions are known, so a turn that a person has taken back (`RunReopened`) never reaches
the instance. While its origin's events are replayed a fork goes by its origin's id (`RunForked`, `PrefixEnded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.carriage import TableCodec
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
    PrefixEnded,
    RunForked,
    RunReopened,
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

__all__ = ["Attempts", "LastTurn", "Replayer"]


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


class LastTurn(Struct, frozen=True):
    """The last turn of a history so far. `fact` is None when none is held back: there is no turn to take back."""

    version: int  # of the fact
    fact: Fact | None
    decisions: dict[str, Decided]


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

    `versions`: finds another version of a workflow, by name and version, for an epoch that is of that; None: there is
    none but `definition`. `tables`: see `Instance`.
    """

    def __init__(
        self,
        definition: Definition[..., Any],
        run_id: str,
        *,
        versions: Callable[[str, str], Definition[..., Any] | None] | None,
        tables: TableCodec | None,
    ) -> None:
        self._versions = versions
        self.instance = Instance(definition, run_id, tables=tables)
        self.instance.replaying = True
        self.attempts: dict[str, Attempts] = {}
        self.version = 0  # of the last event fed
        self.last_at = 0
        self.epoch_version = 1  # of the `RunStarted` that the last epoch begins with
        self.carrying: list[LeftOver] = []
        """What the last epoch left, and this one was not told yet when its history broke off."""
        self._fact: Fact | None = None
        self._fact_payload: bytes | None = None
        self._fact_version = self._fact_at = 0
        self._recorded: dict[str, Decided] = {}
        self._marked = False  # whether the fact held back has markers of patches behind it
        # In case the turn is taken back: the attempts of the task that its fact has ended, and of those called off.
        self._ended: Attempts | None = None
        self._called_off: dict[str, Attempts] = {}
        self._called_off_behind = 0  # which fact
        self._stood_until = 0  # when the run last went on after it had stood still
        self._identities: list[str] = []  # own ids, while those of origins are replayed

    @property
    def last_turn(self) -> LastTurn:
        """The last turn, recorded and not delivered yet."""
        return LastTurn(self._fact_version, self._fact, dict(self._recorded))

    def feed_all(self, page: Iterable[Recorded]) -> None:
        """The next events, as they are stored. The run's loop is made the running one once, not for every fact."""
        rest = iter(page)
        if not self.instance.begun:
            self._feed_each(rest, until_begun=True)
        self.instance.together(lambda: self._feed_each(rest))

    def _feed_each(self, page: Iterable[Recorded], *, until_begun: bool = False) -> None:
        for recorded in page:
            try:
                event = decode_known(recorded.header)
            except (ValueError, RecursionError):
                self._unreadable(recorded)
            self.feed(recorded.version, event, recorded.payload)
            if until_begun and self._fact_version == recorded.version and self.instance.begun:
                return  # at a fact: the one before it has begun the run

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
        elif type(event) is TaskScheduled or (type(event) is not TaskCompleted and isinstance(event, Decision)):
            if type(event) is not TaskScheduled and self._is_marker(event):
                return
            if event.id in self._recorded:
                self._refuse("history", f"the decision {event.id!r} is recorded twice behind one fact")
            self._recorded[event.id] = Decided(event, payload)
        elif type(event) is TaskCompleted or isinstance(event, Fact):
            self._settle(complete=True)
            self._fact, self._fact_payload, self._fact_version, self._fact_at = event, payload, version, event.at
            if type(event) is TaskCompleted or type(event) is TaskFailed:
                self._ended = self.attempts.pop(event.id, None)
            elif type(event) is RunStarted and (event.epoch > self.instance.epoch or self._is_of_another(event)):
                self._begin_epoch(version, event)
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

    def _is_of_another(self, event: RunStarted) -> bool:
        """Whether the run began as another version than it is of now: a fork is fed the epochs of its origin, too."""
        return self.instance.started is None and event.version != self.instance.definition.version

    def _begin_epoch(self, version: int, event: RunStarted) -> None:
        """The run begins, or has continued as new, in that version of its workflow: of what was before only that
        matters which nobody has taken.
        """
        before = self.instance
        before.evict()
        definition: Definition[..., Any] | None = before.definition
        if self._versions is not None:
            definition = self._versions(before.definition.name, event.version)
        if definition is None:
            how = "goes on" if event.epoch else "began"
            self._refuse("history", f"the run {how} as version {event.version!r} of its workflow, which is not there")
        self.carrying = before.left_over
        if not self._identities:  # else a replay from here would not know whose identity it goes by
            self.epoch_version = version
        self.instance = Instance(definition, before.run_id, tables=before.tables)
        self.instance.around, self.instance.replaying = before.around, True
        self.attempts.clear()

    def _is_marker(self, event: Decision) -> bool:
        """Whether it is a patch's marker: what the code is told when it asks, and need not decide again."""
        if type(event) is not PatchMarked:
            if type(event) is TaskCancelled:
                self._call_off(event.id)
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
            case RunReopened():
                self._reopen(event)
            case RunForked():
                self._identities.append(self.instance.run_id)
                self.instance.run_id = event.origin
            case PrefixEnded():
                self._end_prefix(event)

    # -- what a person has taken back, or forked -----------------------------------------------------------------------

    def _call_off(self, task_id: str) -> None:
        attempts = self.attempts.pop(task_id, None)
        if self._called_off_behind != self._fact_version:
            self._called_off_behind, self._called_off = self._fact_version, {}
        if attempts is not None:
            self._called_off[task_id] = attempts

    def _reopen(self, note: RunReopened) -> None:
        """The turn that ended the run is taken back; what it called off goes on, and what it tells of is tried anew."""
        fact = self._fact
        stood_from = self._stands_still()
        if note.takes_back == "end":
            self._settle(complete=True)
        elif fact is None:
            self._refuse("history", "a turn is taken back, and there is none")
        else:
            self._recorded, self._marked = {}, False
            self.instance.patches.take_back()
            if self._called_off_behind == self._fact_version:
                self.attempts.update(self._called_off)
            if note.takes_back == "turn":
                self._fact = None
                if isinstance(fact, TaskFailed) and (ended := self._ended) is not None:
                    # It counts on, so that no number is given twice; but its policy is asked as if it had not begun.
                    self.attempts[fact.id] = Attempts(
                        started=ended.started,
                        open=ended.open,
                        settled=ended.settled,
                        heartbeat=ended.heartbeat,
                        failure=self._fact_payload,
                    )
        for attempts in self.attempts.values():
            attempts.handed_out = False  # what its token's holder has answered came to nothing: it is handed out anew
        self._go_on(note, stood_from, retold=note.takes_back == "decisions")

    def _end_prefix(self, note: PrefixEnded) -> None:
        """The fork begins: what it asks for from here on, it asks for as itself, and nothing of it is tried yet."""
        if not self._identities:
            self._refuse("history", "it says that a prefix has ended, but it is no fork")
        stood_from = self._stands_still()
        if not note.retold:
            self._settle(complete=True)
        elif self._recorded or self._marked:
            self._refuse("history", "a fork holds decisions of the turn that it was to decide anew")
        self.instance.run_id = self._identities.pop()
        for id_, attempts in self.attempts.items():
            self.attempts[id_] = Attempts(started=attempts.started, settled=attempts.started)
        if self.instance.started is not None:
            self.instance.started = _orphaned(self.instance.started)
        self.instance.calls.abandoned.clear()  # children of the origin, which are no business of its fork's end
        self._go_on(note, stood_from, retold=note.retold)

    def _stands_still(self) -> int:
        """Since when: since the last fact, or since it last went on."""
        if not self._fact_version:
            self._refuse("history", "it goes on from where it stood still, and nothing has happened before")
        return max(self._stood_until, self._fact_at)  # the instance has no time of its own before it begins

    def _go_on(self, note: RunReopened | PrefixEnded, stood_from: int, *, retold: bool) -> None:
        """Time in which the run stood still does not count: neither for its timers nor for the deadlines of its tasks.

        `retold`: its last fact is told as of now.
        """
        pause = max(0, note.at - stood_from)
        self._stood_until = note.at
        fact = self._fact
        if retold and fact is None:
            self._refuse("history", "a fact is to be told again, and there is none")
        if retold and isinstance(fact, RunStarted):
            fact = _orphaned(fact) if isinstance(note, PrefixEnded) else fact
            self._fact = structs.replace(fact, at=note.at, deadline=fact.deadline and fact.deadline + pause)
            return
        if retold and fact is not None:
            self._fact = structs.replace(fact, at=note.at)
        self.instance.postpone(pause)

    # -- turns ---------------------------------------------------------------------------------------------------------

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
            decided = self.instance.turn(fact, self._fact_payload)
        except HoldfastError as error:
            self._undelivered(error)
        if self._marked:
            self._marked = False
            patches.turn_told()
        if not decided and not recorded:  # of a fan-out, nearly every fact
            return []
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


def _orphaned(started: RunStarted) -> RunStarted:
    """How a fork's epoch begins, whoever started its origin: nobody waits for its end, as a parent or for a key."""
    return structs.replace(started, parent="", parent_call="", parent_epoch=0, root="", singleton="")
