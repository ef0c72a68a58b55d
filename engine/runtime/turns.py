"""The turns of one run: facts in, decisions behind them, everything stamped. Pure but for the clock that it asks."""

from __future__ import annotations

from msgspec import structs

from engine.core.compare import Diagnosis, Reason
from engine.core.events import AttemptFailed, Fact, Note, TurnSlow
from engine.core.instance import Instance
from engine.errors import ArgumentsError, HistoryError, NotRecordable, StepLimitExceeded
from engine.runtime.steps import Arrival, Step, as_ignored, wanted
from engine.runtime.streams import SLOW, STATUS, new_event, suspension
from engine.runtime.watchdog import TurnWatch
from eventstore import Clock

__all__ = ["Turns"]


class Turns:
    """Fills steps. `last_at` is the time of the last event, in microseconds: none is ever stamped before it."""

    def __init__(self, instance: Instance, *, last_at: int, clock: Clock) -> None:
        self._instance = instance
        self._clock = clock
        self._watch = instance.around if isinstance(instance.around, TurnWatch) else None
        self.last_at = last_at

    def stamp(self, earliest: int = 0) -> int:
        """Now, and never before `earliest` or what was stamped before."""
        self.last_at = max(self._clock.now(), self.last_at, earliest)
        return self.last_at

    def take(self, step: Step, arrival: Arrival, version: int) -> None:
        """One turn: the fact, and directly behind it what the workflow decided. `version` is that before the step."""
        event = arrival.event
        if isinstance(event, Fact) and (self._instance.outcome is not None or not wanted(event, self._instance)):
            stale = as_ignored(arrival)
            event = None if stale is None else stale.event
        if event is not None:
            event = _stamped(event, self.stamp(event.at))
            step.events.append(new_event(event, arrival.payload))
        if arrival.message is not None:
            step.consumes.append((len(step.events), arrival.message))
        if isinstance(event, Fact):
            step.progress = True
            self._deliver(step, event, arrival.payload, version)

    def _deliver(self, step: Step, fact: Fact, payload: bytes | None, version: int) -> None:
        if self._watch is not None:
            self._watch.slow = None  # of a replay: nobody was kept waiting by that who is not told elsewhere
        try:
            step.add(self._instance.deliver(fact, payload))
            self._note_slow(step)
        except StepLimitExceeded as error:
            self._suspend(step, "spinning", error, version)
        except (ArgumentsError, NotRecordable) as error:
            self._suspend(step, "values", error, version)
        except HistoryError as error:
            self._suspend(step, "delivery", error, version)
        except Exception as error:
            self._suspend(step, "internal", error, version)  # ours, or the user's in a place we call

    def _note_slow(self, step: Step) -> None:
        """Put down that the turn kept other runs waiting, for whoever asks why."""
        watch = self._watch
        if watch is not None and watch.slow is not None:
            step.events.append(new_event(TurnSlow(at=self.stamp(), took=watch.slow.took, site=watch.slow.site)))
            watch.slowest = max(watch.slowest, watch.slow.took)
            step.attributes[SLOW] = watch.slowest

    def _suspend(self, step: Step, reason: Reason, error: Exception, version: int) -> None:
        """The turn did not end well: the fact stands in the log, and waits there for code that can take it."""
        diagnosis = Diagnosis(reason=reason, message=str(error), version=max(version, 0) + len(step.events))
        step.events.append(suspension(diagnosis, at=self.stamp()))
        step.suspended = step.release = True
        step.alarm = None
        step.attributes[STATUS] = "suspended"


def _stamped(event: Fact | Note, at: int) -> Fact | Note:
    if isinstance(event, AttemptFailed):
        return structs.replace(event, at=at, retry_at=max(at, event.retry_at))
    return structs.replace(event, at=at)
