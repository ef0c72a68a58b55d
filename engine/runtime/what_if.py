"""What would have come of a run, had something been otherwise: with other code, or with other results of its tasks.

A fork that is not made: the history up to a version is replayed with the present code, and what happened to the run
behind that is told to it again, in the order in which it was recorded: results of tasks by the id of their call, ends
of child runs, signals, timers. So nothing has an effect, nothing is written, and no time passes.

What the history does not know, nobody can say: a task that was never called there is answered only if its result is
given. A timer that was not there fires before whatever came later than it, and when nothing else is left to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.compare import Mismatch
from engine.core.differences import differences
from engine.core.events import (
    ContinuedAsNew,
    Fact,
    PrefixEnded,
    RunForked,
    RunReopened,
    RunStarted,
    SendAccepted,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
    TimerStarted,
    encode_header,
)
from engine.core.fold import RunState
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.core.standing import standing
from engine.errors import HoldfastError, RepairRefused
from engine.runtime.cutting import cut_of
from engine.runtime.epochs import beginning_of_next
from engine.runtime.histories import HistoryEvent, check_remembers, head_of, read_events
from engine.runtime.large_values import TABLES
from engine.runtime.repairs import HistoryDiff
from engine.runtime.serving import Served
from engine.runtime.steps import task_cancelled, wanted
from eventstore import EventStore

__all__ = ["WhatIf", "suppose"]

TURNS_MAX: Final = 100_000
"""Facts that are told behind the cut: a run that begins timers for ever ends here."""


class WhatIf(Struct, frozen=True, kw_only=True):
    """What came of a run, and what would have come of it."""

    was: RunState
    would_be: RunState
    diff: HistoryDiff
    history: tuple[HistoryEvent, ...]  # as it would be; versions are its own
    unanswered: tuple[
        str, ...
    ]  # ids of the task calls and child runs that it would wait for: nobody knows how they end
    asked_otherwise: tuple[str, ...]  # ids of the task calls that were answered though their arguments are others
    never_called: tuple[str, ...]  # ids of those tasks whose results were given and that it would not call
    problem: str = ""  # why it would be suspended, or goes on for ever


async def suppose(
    store: EventStore, definitions: Served, run_id: str, *, at: int, substitute: Mapping[str, Any]
) -> WhatIf:
    """See the module. Raises `RepairRefused` when it cannot be cut there, or the code does not fit what is before."""
    head = await head_of(store, run_id)
    check_remembers(head)
    recorded = [item async for item in read_events(store, run_id, until=head.version)]
    if len(recorded) < head.version:
        check_remembers(await head_of(store, run_id))  # it was pruned since we looked
    cut = cut_of(recorded, run_id, at=at, substituted=substitute)
    definition = definitions.require(cut.started.workflow, cut.started.version)
    prefix = [item for item in recorded if item.version <= cut.until]
    supposition = _Supposition(definition, definitions, f"{run_id}~?", prefix, retold=cut.retold)
    try:
        counting = standing(recorded)
        left = dict(substitute)
        supposition.go_on(counting, cut.until, left)
        supposition.compare_arguments(counting)
        return supposition.outcome(run_id, recorded, never_called=tuple(left))
    finally:
        supposition.close()


class _Supposition:
    """One run that is not: its instance, and the history that it would have."""

    def __init__(
        self,
        definition: Definition[..., Any],
        definitions: Served,
        run_id: str,
        prefix: list[HistoryEvent],
        *,
        retold: bool,
    ) -> None:
        self.history: list[HistoryEvent] = []
        # Arguments of the task calls that were answered, by epoch and id.
        self.answered: dict[tuple[int, str], bytes | None] = {}
        self.asked_otherwise: list[str] = []
        self.problem = ""
        self._timers: set[tuple[int, str]] = set()  # that are known from the history, by deadline and id
        self._run_id = run_id
        self._definitions = definitions
        self._state = RunState(run_id=run_id)
        self._replayer = Replayer(definition, run_id, versions=definitions.find, tables=TABLES)
        self._instance = self._replayer.instance
        # Its time there: of its last fact, or when it last went on after it had stood still.
        moments = Fact | RunReopened | PrefixEnded
        moment = max(item.event.at for item in prefix if isinstance(item.event, moments))
        origin = self._state.run_id.removesuffix("~?")
        fork = RunForked(at=prefix[0].event.at, origin=origin, version=prefix[-1].version, digest="")
        try:
            self._replay(fork, None)
            for item in prefix:
                self._replay(item.event, item.payload)
            self._replay(PrefixEnded(at=moment, retold=retold), None)
            decided = self._replayer.finish()
        except Mismatch as mismatch:
            raise RepairRefused(
                f"the present code does not fit run {origin!r} up to version {prefix[-1].version}:"
                f" {mismatch.diagnosis.render()}"
            ) from mismatch
        self._instance = self._replayer.instance
        for decision in decided:
            self._record(decision.event, decision.payload)

    def close(self) -> None:
        """Put the instance away."""
        self._replayer.instance.evict()
        self._instance.evict()

    # -- what happens --------------------------------------------------------------------------------------------------

    def go_on(self, counting: list[HistoryEvent], cut: int, substitute: dict[str, Any]) -> None:
        """Tell it what happened behind the cut, as far as it waits for that, and what is given."""
        facts = [item for item in counting if isinstance(item.event, Fact) and item.version > cut]
        self._timers = {
            (event.deadline, event.id) for item in counting if isinstance(event := item.event, TimerStarted)
        }
        for _ in range(TURNS_MAX):
            if self.problem or self._instance.over:
                return
            if isinstance(self._instance.outcome, ContinuedAsNew):
                facts = self._begin_epoch(facts)
            elif not (self._give(substitute) or self._tell_next(facts) or self._assume() or self._fire(None)):
                return
        self.problem = f"it would go on for ever: {TURNS_MAX:,} facts were told, and it has not ended"

    @property
    def _now(self) -> int:
        """Its time; of a run that has not begun: that of its last event."""
        waits = self._instance.waiting is not None
        return self.history[-1].event.at if waits else self._instance.now

    def _give(self, substitute: dict[str, Any]) -> bool:
        """The result of a task that is given, once it is waited for."""
        for task_id in list(substitute):
            pending = self._instance.pending.get(task_id)
            if pending is not None:
                payload = pending.definition.result.encode_checked(substitute.pop(task_id), pending.carriage)
                self._tell(TaskCompleted(at=self._instance.now, id=task_id), payload)
                return True
        return False

    def _tell_next(self, facts: list[HistoryEvent]) -> bool:
        """The first recorded fact that it waits for; or a timer that was due before that."""
        for index, item in enumerate(facts):
            fact: Any = item.event
            if isinstance(fact, RunStarted):
                return False  # of an epoch that has not come
            if not wanted(fact, self._instance):
                continue
            if not self._instance.untold and self._fire(fact.at):
                return True
            del facts[index]
            if isinstance(fact, TaskCompleted | TaskFailed):
                self.answered[self._instance.epoch, fact.id] = self._instance.pending[fact.id].arguments
            self._tell(structs.replace(fact, at=max(fact.at, self._now)), item.payload)
            return True
        return False

    def _fire(self, before: int | None) -> bool:
        """The next timer; or the next that was not there, if it is due before a time: of others it is known whether."""
        timers = ((timer.deadline, id_) for id_, timer in self._instance.timers.items())
        running = [each for each in timers if before is None or (each[0] < before and each not in self._timers)]
        if not running:
            return False
        deadline, id_ = min(running)
        self._tell(TimerFired(at=max(deadline, self._instance.now), id=id_), None)
        return True

    def _assume(self) -> bool:
        """Of what history says nothing: messages arrive, and a task that it has asked to end, and waits for, ends."""
        for id_ in self._instance.outbox.sends:
            self._tell(SendAccepted(at=self._instance.now, id=id_), None)
            return True
        for id_, pending in self._instance.pending.items():
            if pending.asked_to_end:
                ended = task_cancelled(id_, 0)
                assert isinstance(ended.event, Fact)
                self._tell(structs.replace(ended.event, at=self._instance.now), ended.payload)
                return True
        return False

    def _begin_epoch(self, facts: list[HistoryEvent]) -> list[HistoryEvent]:
        """It continues as new; of what is recorded only that is left which came in the same epoch."""
        before, at = self._instance, self.history[-1].event.at
        epoch = before.epoch + 1
        starts = (n for n, item in enumerate(facts) if isinstance(item.event, RunStarted) and item.event.epoch == epoch)
        beginning = next(starts, len(facts))
        if beginning < len(facts):
            at = max(at, facts[beginning].event.at)  # it began then, whatever took so long
        for item in facts[:beginning]:
            if isinstance(item.event, SignalReceived):  # it came between the two, and is among what is carried on
                self._tell(item.event, item.payload)
        self._instance = Instance(self._definitions.next_of(before), self._run_id, tables=TABLES)
        for arrival in beginning_of_next(before, version=self._instance.definition.version):
            assert isinstance(arrival.event, Fact)
            self._tell(structs.replace(arrival.event, at=at), arrival.payload)
        return [item for item in facts[beginning + 1 :] if getattr(item.event, "carried", False) is not True]

    def _tell(self, fact: Fact, payload: bytes | None) -> None:
        self._record(fact, payload)
        try:
            decided = self._instance.deliver(fact, payload)
        except HoldfastError as error:
            self.problem = f"it would be suspended: {error}"
            return
        for item in decided:
            self._record(item.event, item.payload)

    def _replay(self, event: Any, payload: bytes | None) -> None:
        self._record(event, payload)
        self._replayer.feed(len(self.history), event, payload)

    def _record(self, event: Any, payload: bytes | None) -> None:
        version = len(self.history) + 1
        self.history.append(HistoryEvent(version, version, event, payload, encode_header(event), b""))
        self._state.apply(version, event, payload)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def compare_arguments(self, counting: list[HistoryEvent]) -> None:
        """Find the calls that were answered as they were recorded, though they were made with other arguments."""
        epoch = 0
        for item in counting:
            event = item.event
            if isinstance(event, RunStarted):
                epoch = event.epoch
            if not isinstance(event, TaskScheduled) or (epoch, event.id) not in self.answered:
                continue
            if self.answered.pop((epoch, event.id)) != item.payload:
                self.asked_otherwise.append(event.id)

    def outcome(self, run_id: str, recorded: list[HistoryEvent], *, never_called: tuple[str, ...]) -> WhatIf:
        """All of it."""
        was = RunState(run_id=run_id)
        for item in recorded:
            was.apply(item.version, item.event, item.payload)
        over = self._instance.outcome is not None
        waiting = () if over else (*self._instance.pending, *self._instance.children)
        return WhatIf(
            was=was,
            would_be=self._state,
            diff=differences(recorded, self.history, ids=(run_id, self._run_id)),
            history=tuple(self.history),
            unanswered=tuple(waiting),
            asked_otherwise=tuple(self.asked_otherwise),
            never_called=never_called,
            problem=self.problem,
        )
