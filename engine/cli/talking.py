"""`signal`, `request`, `query`: what is said to a run, and asked of it. Whoever works on the run hears it."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from msgspec import Raw, Struct

from engine import Engine, PendingRequest, Query, Request, RunHandle, Signal
from engine.cli.output import Output
from engine.cli.problems import Exit, Problem
from engine.cli.stores import DEFAULT_STORE
from engine.cli.summary import value_view
from engine.cli.targets import Target
from engine.errors import HoldfastError, RequestFailedError, RequestRefused, RunEnded, RunPrunedError
from eventstore import EventStore

__all__ = ["Asked", "Talk", "check_workflow", "new_id", "query", "request", "signal"]

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 2.0
"""How long a request waits for its acceptance before it is said why that may take long."""
_SHOWN: Final = 200
"""Characters of a value that are repeated in a command to type."""


class Talk(Struct, frozen=True, kw_only=True):
    """What every command that talks with a run is given."""

    target: Target
    run_id: str
    store: EventStore
    url: str
    output: Output
    by: str  # who speaks, for the history
    reason: str = ""  # and why

    def command(self, verb: str, *words: str, value: str | None = None, options: tuple[str, ...] = ()) -> str:
        """What to type."""
        typed = ["holdfast", verb, *words, *options]
        if self.url != DEFAULT_STORE:
            typed += ["--store", self.url]
        if value is not None:
            typed += ["--"] if value.startswith("-") and value != "-" else []
            typed.append(value if len(value) <= _SHOWN else "VALUE")
        return shlex.join(typed)


class Asked(Struct, frozen=True, kw_only=True):
    """A request as it was typed."""

    request: Request[Any, Any]
    argument: Any
    text: str | None  # the argument, as given
    id: str
    timeout: float | None
    wait: bool


async def check_workflow(run: RunHandle[Any], target: Target) -> None:
    """Raise `Problem` for a run of a workflow that the target does not have: names may mean something else there.

    And `RunPrunedError` for one of which nobody can tell.
    """
    began = await run.state(at=1)
    if not began.version and await run.status() == "pruned":
        raise RunPrunedError(run.id)
    workflow = began.workflow
    names = [each.name for each in target.workflows]
    if workflow and workflow not in names:  # a child that was not begun yet has no first event
        has = f"has {', '.join(names)}" if names else "has no workflow"
        raise Problem(f"run {run.id} is of workflow {workflow!r}, but {target.source} {has}")


# ------------------------------------------------------------------------------------------------ signals


async def signal(talk: Talk, what: Signal[Any], value: Any, *, id_: str) -> Exit:
    """Send a signal; done when it is durable."""
    async with Engine(talk.store) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        await run.signal(what, value, id=id_, by=talk.by, reason=talk.reason)
        status = await run.status()
    text = f"signal {what.name} is in the mailbox of run {run.id} (id {id_})"
    if status == "paused":
        text += f"; the run is paused, and hears it when it goes on ({talk.command('unpause', run.id)})"
    elif status == "suspended":
        text += "; the run is suspended, and hears it when it goes on"
    if talk.output.json:
        talk.output.document({"run": run.id, "signal": what.name, "id": id_, "status": status, "message": text})
    else:
        talk.output.line(text)
    return Exit.COMPLETED


# ------------------------------------------------------------------------------------------------ requests


async def request(talk: Talk, asked: Asked) -> Exit:
    """Send a request and print its answer. What was sent is never taken back, however the wait for it ends."""
    accepted = False
    async with Engine(talk.store) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        try:
            async with asyncio.timeout(asked.timeout) as limit:
                pending = await _accepted(talk, asked, run)
                accepted = True
                if not asked.wait:
                    return _not_waited_for(talk, asked)
                answer = await pending.answer()
        except TimeoutError:
            if not limit.expired():
                raise
            return _waited_in_vain(talk, asked, accepted=accepted)
        except asyncio.CancelledError:
            talk.output.note(f"the request is not taken back by that; to ask again: {_again(talk, asked)}")
            raise
        except (RequestRefused, RequestFailedError, RunEnded) as error:
            _tell(talk, asked, _status_of(error), error=error)
            raise
    payload = asked.request.result.encode(answer)
    if talk.output.json:
        _tell(talk, asked, "answered", answer=payload)
    else:
        talk.output.show(value_view(payload))
    return Exit.COMPLETED


async def _accepted(talk: Talk, asked: Asked, run: RunHandle[Any]) -> PendingRequest[Any]:
    sending = run.request(asked.request, asked.argument, id=asked.id, by=talk.by, reason=talk.reason)
    return await _patiently(sending, lambda: _why_it_takes_long(talk, asked, run))


async def _patiently(work: Coroutine[Any, Any, T], say: Any) -> T:
    """The outcome of `work`; when that takes long, `say` is awaited meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
        if not done:
            await say()
        return await task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _why_it_takes_long(talk: Talk, asked: Asked, run: RunHandle[Any]) -> None:
    match await run.status():
        case "paused":
            why = f"run {run.id} is paused; it takes no request until {talk.command('unpause', run.id)}"
        case "suspended":
            why = f"run {run.id} is suspended; it takes no request until it goes on with code that fits its history"
        case _:
            why = (
                f"not accepted yet: run {run.id} does not serve {asked.request.name!r} now, or nobody is working on it"
                f" ({talk.command('resume', talk.target.text, run.id)})"
            )
    talk.output.note(why)


def _not_waited_for(talk: Talk, asked: Asked) -> Exit:
    if talk.output.json:
        _tell(talk, asked, "accepted")
    else:
        talk.output.line(f"request {asked.request.name} is accepted by run {talk.run_id} (id {asked.id}); its answer:")
        talk.output.line(f"  {_again(talk, asked)}")
    return Exit.COMPLETED


def _waited_in_vain(talk: Talk, asked: Asked, *, accepted: bool) -> Exit:
    _tell(talk, asked, "accepted" if accepted else "waiting")
    raise Problem(
        f"request {asked.id!r} ({asked.request.name!r}) was not {'answered' if accepted else 'accepted'} by run"
        f" {talk.run_id!r} within {asked.timeout:g} s; it is not taken back",
        code=Exit.WAITING,
        hint=f"To ask again, for the same answer: {_again(talk, asked)}",
    )


def _again(talk: Talk, asked: Asked) -> str:
    return talk.command(
        "request",
        talk.target.text,
        talk.run_id,
        asked.request.name,
        options=("--id", asked.id),
        value=asked.text,
    )


def _status_of(error: HoldfastError) -> str:
    match error:
        case RequestRefused():
            return "refused"
        case RequestFailedError():
            return "failed"
        case _:
            return "ended"


def _tell(
    talk: Talk, asked: Asked, status: str, *, answer: bytes | None = None, error: HoldfastError | None = None
) -> None:
    """The document about a request, for `--json`."""
    if not talk.output.json:
        return
    cause: Any = None if error is None else error.__cause__
    talk.output.document(
        {
            "run": talk.run_id,
            "request": asked.request.name,
            "id": asked.id,
            "status": status,
            "answer": None if answer is None else Raw(answer),
            "error": None if error is None else {"type": _type_of(cause), "message": _message_of(cause, error)},
        }
    )


def _type_of(cause: Any) -> str | None:
    return None if cause is None else str(getattr(cause, "type", type(cause).__qualname__))


def _message_of(cause: Any, error: HoldfastError) -> str:
    return str(error) if cause is None else str(getattr(cause, "message", cause))


# ------------------------------------------------------------------------------------------------ queries


async def query(talk: Talk, what: Query[Any, Any], argument: Any) -> Exit:
    """Replay the run here, and ask its code."""
    async with Engine(talk.store, workflows=talk.target.workflows, only=()) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        answer = await run.query(what, argument)
    payload = what.result.encode(answer)
    if talk.output.json:
        talk.output.document({"run": run.id, "query": what.name, "answer": Raw(payload)})
    else:
        talk.output.show(value_view(payload))
    return Exit.COMPLETED


def new_id() -> str:
    """A fresh id for a message."""
    return secrets.token_hex(8)
