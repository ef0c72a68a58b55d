"""How a program has runs begin: now, later, when another has ended, or when no more calls come.

This is the part of an `Engine` that makes runs. What becomes of a start is in `starting`, `singletons`, `debouncing`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from engine.core.attributes import AttributeValue, encode_attributes
from engine.core.call import Call, Definition
from engine.core.events import RunStarted
from engine.core.identity import check_run_id
from engine.errors import HoldfastError, UnknownWorkflow
from engine.runtime.deadlines import absolute, beginning
from engine.runtime.debouncing import debounce, quiet_of
from engine.runtime.handle import RunHandle
from engine.runtime.keys import check_key
from engine.runtime.large_values import carriage_of, holds_large
from engine.runtime.mail import StartMail
from engine.runtime.operating import NONE_GIVEN, Operations
from engine.runtime.serving import Served
from engine.runtime.singletons import OnConflict, singleton_of, start_single
from engine.runtime.starting import Start
from engine.runtime.versions import PYTHON
from engine.runtime.watches import Watch
from engine.runtime.worker import Worker
from engine.workflows import SignalMessage

__all__ = ["Beginnings"]

R = TypeVar("R")


class Beginnings(Operations):
    """The part of an `Engine` that makes runs."""

    _definitions: Served
    _anyio: str
    _only: tuple[str, ...] | None
    _worker: Worker | None

    @abstractmethod
    def check(self) -> None:
        """Raise when the engine cannot go on."""

    @abstractmethod
    def watch(self, watch: Watch) -> None:
        """See `handle.Desk`."""

    async def start(
        self,
        call: Call[R],
        *,
        id: str | None = None,  # noqa: A002 - the word for it
        signals: Iterable[SignalMessage] = (),
        attributes: Mapping[str, AttributeValue] = NONE_GIVEN,
        deadline: float | timedelta | datetime | None = None,
        delay: float | timedelta | datetime | None = None,
        singleton: str | None = None,
        on_conflict: OnConflict | None = None,
        by: str = "",
    ) -> RunHandle[R]:
        """Start a run of a workflow call: ``await engine.start(nightly(day), id="nightly-2026-01-01")``.

        Durable when this returns. The same id again, with the same workflow and arguments, is the same run, whether it
        runs or has ended; without an id the run gets a fresh one.

        `signals`: the first things that the run is told (`Signal.message`); a run that exists already is just sent
        them. `attributes`: what the run is to be found by (`runs`), a few scalars by name; one that exists keeps its
        own. `deadline`: seconds from now, or a time with a zone; past it the workflow function is cancelled and the
        run fails with `RunDeadlineExceeded`. `by`: who asks, for the record.

        `delay`: when it begins, as a deadline is given; it is recorded now, and "queued" until then. `singleton`: a
        key, of which at most one run of this workflow has begun and not ended, on the whole store. `on_conflict` says
        what is done when another run has it: "reject" (raise `SingletonHeld`; the default), "attach" (return that run,
        whatever its arguments), "queue" (begin when it has ended, and those before in the queue), or "replace" (cancel
        it and those in the queue, then as "queue"). See docs/starting.md.

        Raises `RunConflict` when the id belongs to a run of something else, `UnknownWorkflow`, `ArgumentsError` for
        arguments that do not fit the annotations, `NotRecordable`, `PayloadTooLarge`, and `RunEnded` when there are
        signals for a run that has finished.
        """
        definition, arguments = self._taken(call)
        chosen = id if id is not None else getattr(definition, "policy").id  # noqa: B009 - of a workflow only
        run_id = self._fresh_id(definition) if chosen is None else check_run_id(chosen)
        if self._only is not None and run_id not in self._only:
            raise HoldfastError(
                f"run {run_id!r} is not among the runs that this engine is for: Engine(only={self._only})"
            )
        given = encode_attributes(attributes, where="start(attributes=)", removing=False)
        now, wish = self._clock.now(), singleton_of(singleton, on_conflict)
        fact = RunStarted(
            at=now,
            workflow=definition.name,
            version=definition.version,
            seed=self._entropy(16).hex(),
            python=PYTHON,
            anyio=self._anyio,
            by=by,
            deadline=absolute(deadline, now),
            begins_at=beginning(delay, now),
            singleton="" if wish is None else wish.key,
            large=holds_large(self.store),
            attributes=tuple(attributes),
        )
        if 0 < fact.deadline <= fact.begins_at:
            raise HoldfastError(
                f"start(delay={delay!r}, deadline={deadline!r}): the run is to be done before it begins"
            )
        told = {signal.id or self.message_id(): signal for signal in signals}
        watch = self._watches.of(run_id)  # before it is started: its end may come first
        assert self._worker is not None
        start = Start(self._worker, definition, run_id, fact, arguments, told, given, self.check)
        if wish is None:
            await start.made_or_joined(start.launch)
        elif (other := await start_single(start, wish, next_id=self.message_id)) != run_id:
            watch = self._watches.of(other)
        return RunHandle(self, watch, definition.result)

    async def debounce(
        self, call: Call[R], *, key: str, seconds: float, longest: float | None = None, by: str = ""
    ) -> RunHandle[R]:
        """Let calls of a workflow with one key, within `seconds` of each other, become one run, of the last of them.

        It begins when there was no call for `seconds`, and at the latest `longest` seconds after the first. Durable
        when this returns. Each call has a run of its own, which this returns; that of a call which another has come
        behind is cancelled before it begins, with the reason. `by`: who asks, for the record.

        Raises `UnknownWorkflow`, `ArgumentsError`, `NotRecordable`, `PayloadTooLarge`, and `HoldfastError` for a key or
        times that cannot be.
        """
        definition, arguments = self._taken(call)
        quiet = quiet_of(seconds, longest)
        run_id = self._fresh_id(definition)
        mail = StartMail(workflow=definition.name, version=definition.version, seed=self._entropy(16).hex(), by=by)
        watch = self._watches.of(run_id)
        await debounce(
            self.store,
            mail,
            arguments,
            run_id,
            key=check_key(key, what="key"),
            quiet=quiet,
            clock=self._clock,
            next_id=self.message_id,
        )
        return RunHandle(self, watch, definition.result)

    def _taken(self, call: Call[Any]) -> tuple[Definition[..., Any], bytes]:
        """The definition of a call, and its arguments as they are recorded."""
        if isinstance(call, Call):
            call.take()  # also when it is refused: the error says what is wrong, not a warning that nobody awaited it
        self.check()
        definition = self._definition_of(call)
        return definition, self._encoded(definition, call)

    def _fresh_id(self, definition: Definition[..., Any]) -> str:
        return f"{definition.name}-{self._entropy(6).hex()}"

    def _definition_of(self, call: Any) -> Definition[..., Any]:
        if not isinstance(call, Call):
            raise HoldfastError(f"an engine starts a call of a workflow, as in start(nightly(day)), not {call!r}")
        definition = call.definition
        if getattr(self._definitions.find(definition.name, definition.version), "fn", None) is not definition.fn:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise UnknownWorkflow(
                f"{definition.where} is not among this engine's workflows ({known}): give it to Engine(workflows=[...])"
            )
        return definition

    def _encoded(self, definition: Definition[..., Any], call: Call[Any]) -> bytes:
        carriage = carriage_of(self.store)
        arguments = definition.arguments.encode(call.args, call.kwargs, carriage)
        definition.arguments.decode(
            arguments, carriage
        )  # what does not come back must be refused before it is recorded
        return arguments
