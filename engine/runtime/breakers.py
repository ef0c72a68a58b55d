"""The circuits of one engine: whether attempts that depend on a thing may begin now, or wait until it is back.

A circuit is closed (all begin), open (none does, until a time), or half open: one attempt at a time is let through, to
see, and nobody but that attempt gives this up. It lives in memory: an engine that is opened anew finds out for itself.
Nothing of it is in a history but that attempts begin later; a task that waits uses up none of its attempts, and its
deadline counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from engine.core.pending import PendingTask
from engine.errors import HoldfastError, NotRecordable, PayloadTooLarge
from engine.runtime.attempts import Committed, Completed, HandedOut, Outcome
from engine.tasks import Breaker
from eventstore import Clock

__all__ = ["Breakers", "CircuitState", "checked_breakers"]

PROBED_SECONDS: Final = 1.0
"""How long those wait at a time who wait for what becomes of the one that was let through."""
_ANSWERS: Final = (NotRecordable, PayloadTooLarge)
"""What is raised for a result that cannot be recorded: whoever gave it is there, whatever a breaker counts."""
_log: Final = logging.getLogger(__name__)


class CircuitState(Struct, frozen=True, kw_only=True):
    """A circuit of an engine. `until`: microseconds since the epoch until which nothing begins; None: it is closed."""

    name: str
    failures: int  # in a row
    until: int | None


class Circuit:
    """One circuit. Times in microseconds since the epoch."""

    def __init__(self, name: str, breaker: Breaker) -> None:
        self.name = name
        self.breaker = breaker
        self.failures = 0
        self.until = 0
        self.pause = 0.0  # seconds it was opened for; 0: it is closed
        self._probe: PendingTask | None = None  # whose attempt is let through; of a task there is one at a time
        self._probed_until = 0

    def waits_until(self, now: int) -> int | None:
        """When an attempt should ask again; None: it may begin."""
        if not self.pause:
            return None
        if now < self.until:
            return self.until
        if now < self._probed_until:
            return min(self._probed_until, now + round(PROBED_SECONDS * 1_000_000))
        return None

    def begin(self, now: int, task: PendingTask) -> int | None:
        """Let an attempt of the task begin: None. As `waits_until`, but for the one that is let through to see."""
        wait = self.waits_until(now)
        if wait is None and self.pause:
            # If nothing is heard of it for so long, another one may try.
            self._probe, self._probed_until = task, now + round(self.breaker.seconds * 1_000_000)
        return wait

    def not_begun(self, task: PendingTask) -> None:
        """The attempt did not begin after all, or says nothing: if it was let through to see, another one may."""
        if self._probe is task:
            self._heard()

    def _heard(self) -> None:
        """Nobody is waited for any more who was let through."""
        self._probe, self._probed_until = None, 0

    def answered(self) -> None:
        """It is there: an attempt has succeeded."""
        if self.pause:
            _log.info("breaker %s: closed, an attempt has succeeded", self.name)
        self.failures, self.pause, self.until = 0, 0.0, 0
        self._heard()

    def failed(self, now: int, error: BaseException) -> None:
        """An attempt has failed."""
        self.failures += 1
        if self.pause and now < self.until:
            return  # it began before the circuit was opened
        if self.failures < self.breaker.failures:
            return
        self.pause = min(self.pause * 2 or self.breaker.seconds, self.breaker.seconds_max)
        self.until = now + round(self.pause * 1_000_000)
        self._heard()
        _log.warning(
            "breaker %s: open for %g s after %d failures in a row, the last of them %s: %s",
            self.name,
            self.pause,
            self.failures,
            type(error).__name__,
            error,
        )


class Breakers:
    """All circuits of an engine, by the names that tasks say."""

    def __init__(self, clock: Clock, given: Mapping[str, Breaker]) -> None:
        self._clock = clock
        self._given = given
        self._circuits: dict[str, Circuit] = {}

    def of(self, definition: Any) -> Circuit | None:
        """The circuit that a task is in, if it is in one. One that the engine was not told of has the defaults."""
        name: str | None = definition.policy.breaker
        if name is None:
            return None
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = Circuit(name, self._given.get(name) or Breaker())
        return circuit

    def ended(self, task: PendingTask, outcome: Outcome | None, error: BaseException | None) -> None:
        """An attempt of that task has ended: `error` if it failed; None for both: it was called off."""
        circuit = self.of(task.definition)
        if circuit is None:
            return
        if error is not None and isinstance(error, circuit.breaker.on) and not isinstance(error, _ANSWERS):
            circuit.failed(self._clock.now(), error)
        elif error is not None or isinstance(outcome, Completed | Committed | HandedOut):
            circuit.answered()
        else:
            circuit.not_begun(task)

    def states(self) -> tuple[CircuitState, ...]:
        """How they stand, by name."""
        return tuple(
            CircuitState(name=name, failures=circuit.failures, until=circuit.until if circuit.pause else None)
            for name, circuit in sorted(self._circuits.items())
        )


def checked_breakers(given: Mapping[str, Breaker]) -> Mapping[str, Breaker]:
    """What an engine is given. Raises `HoldfastError` for what is no breaker."""
    for name, breaker in given.items():
        where = f"Engine(breakers={{{name!r}: {breaker!r}}})"
        if not isinstance(breaker, Breaker):
            raise HoldfastError(f"{where}: a Breaker(failures=5, seconds=30)")
        if type(breaker.failures) is not int or breaker.failures < 1:
            raise HoldfastError(f"{where}: failures is how many in a row open it, at least 1")
        if not 0 < breaker.seconds <= breaker.seconds_max:
            raise HoldfastError(f"{where}: seconds is above 0, and not above seconds_max")
        types = breaker.on if isinstance(breaker.on, tuple) else ()
        if not types or not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
            raise HoldfastError(f"{where}: on takes a tuple of exception types")
    return dict(given)
