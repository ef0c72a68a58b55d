"""What plain asyncio lacks, inside a workflow: the run's own time, randomness and identity, other runs, long lives.

Import the module: ``from engine import durable``; then ``durable.now()``. Outside a workflow every function raises
`HoldfastError`. There is nothing here that plain asyncio has already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from engine.core.attributes import AttributeValue
from engine.core.call import Call
from engine.core.endings import ContinueAsNew
from engine.core.identity import check_run_id
from engine.core.lineage import derived_random
from engine.errors import HoldfastError
from engine.workflows.here import instance_here, loop_here
from engine.workflows.others import ChildHandle, RunRef

__all__ = [
    "continue_as_new",
    "deadline",
    "deprecate_patch",
    "now",
    "patched",
    "random",
    "run",
    "run_id",
    "set_attributes",
    "shielded",
    "sleep_until",
    "start",
    "turns",
    "uuid4",
]

R = TypeVar("R")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The time of the last fact that the run was told (UTC, aware): it stands still until something happens."""
    return _EPOCH + timedelta(microseconds=loop_here("durable.now").now)


async def sleep_until(when: datetime) -> None:
    """Sleep until a time (aware); durable, like `asyncio.sleep`. Raises `HoldfastError` for a naive one."""
    if when.tzinfo is None:
        raise HoldfastError(f"durable.sleep_until({when!r}): a time without a zone means another one on each machine")
    await asyncio.sleep((when - now()).total_seconds())


def random() -> Random:
    """The current branch's own generator of random numbers, seeded by the run; not for secrets."""
    return _random("durable.random")


def uuid4() -> UUID:
    """A random UUID (version 4) of the current branch's own sequence."""
    return UUID(int=_random("durable.uuid4").getrandbits(128), version=4)


def run_id() -> str:
    """The id of the run that is executing this workflow."""
    return instance_here("durable.run_id").run_id


def turns() -> int:
    """How many facts the run was told in this epoch: what to look at before `continue_as_new`."""
    return instance_here("durable.turns").turns


def deadline() -> datetime | None:
    """When the run must be done (UTC, aware); None when it has no deadline."""
    at = instance_here("durable.deadline").deadline
    return _EPOCH + timedelta(microseconds=at) if at else None


def patched(name: str) -> bool:
    """Whether this run goes the new way at a change of its code: ``if durable.patched("charge-first"): ...``.

    True in a run that reaches it with this code (which is recorded, as `PatchMarked`), and at every replay of that;
    False where a history went past here before the code asked. The first answer holds for the rest of the epoch, in
    every branch; an epoch that begins with `continue_as_new` is asked anew.

    `name`: 1 to 100 printable characters, one of its own for each change. Raises `HoldfastError` for another, and
    `ForbiddenInWorkflow` where a validator or a query is the first to ask. See docs/changing-code.md.
    """
    return instance_here("durable.patched").patches.ask(name)


def deprecate_patch(name: str) -> None:
    """Say where a patch was whose old way is gone: runs are still marked, so that code that asks finds them.

    In place of `patched`, once `holdfast gate` says that no open run needs the old way; while workers with the code
    that asks still run, they must find the marker in runs that begin here. Take it out when there are none. Raises as
    `patched`.
    """
    instance_here("durable.deprecate_patch").patches.ask(name)


def set_attributes(**attributes: AttributeValue | None) -> None:
    """Set attributes of the run, by which it is found (`Engine.runs`): ``set_attributes(region="eu", amount=3)``.

    They are there, and searchable, as soon as what the workflow decides here is recorded. Others stay; None takes one
    away. Later epochs keep them; child runs have their own. For a name that is no Python word: ``**{"order-id": 7}``.
    Names, numbers and sizes are bounded: see docs/searching.md.

    Raises `HoldfastError` for what cannot be an attribute, and for more of them than a run may have.
    """
    instance_here("durable.set_attributes").attributes.set(attributes, where="durable.set_attributes")


async def start(call: Call[R], *, id: str | None = None) -> ChildHandle[R]:  # noqa: A002 - the word for it
    """Start a child run and do not wait for it. Its result, or failure, is for whoever asks the handle.

    `id`: its run id, instead of one made of this run's. Raises `NotRecordable`, `PayloadTooLarge`.
    """
    instance = instance_here("durable.start")
    if isinstance(call, Call):
        call.take()
    definition: Any = getattr(call, "definition", None)
    if not isinstance(call, Call) or definition.kind != "workflow":
        raise HoldfastError(f"durable.start takes a call of a workflow, as in start(nightly(day)), not {call!r}")
    if id is not None:
        call.definition = definition.options(id=id)
    return ChildHandle(instance, instance.calls.start_child(call))


def run(id: str) -> RunRef:  # noqa: A002 - the word for it
    """Any other run, to send it something."""
    return RunRef(instance_here("durable.run"), check_run_id(id))


async def continue_as_new(call: Call[Any], *, newest: bool = True) -> NoReturn:
    """Begin again with other arguments, in the same run: ``await durable.continue_as_new(follow(next_page))``.

    The history starts afresh behind what there is; the id, signals and requests not taken yet stay. What the workflow
    has left running ends as it does at a run's end.

    Of a workflow in several versions, the run goes on as the newest that its worker has, to which the arguments are
    given; with ``newest=False`` as the version that `call` is of.

    Only in the workflow's main branch: it leaves the workflow function, and from another branch (a handler of requests,
    say) there is no way out of that. Raises `HoldfastError` elsewhere, and for a call of another workflow.
    """
    instance = instance_here("durable.continue_as_new")
    if isinstance(call, Call):
        call.take()  # also when it is refused: the error says what is wrong, not a warning that nobody awaited it
    if not isinstance(call, Call) or call.definition.name != instance.definition.name:
        raise HoldfastError(
            f"durable.continue_as_new takes a call of the same workflow, {instance.definition.name}(...), not {call!r}"
        )
    loop = instance.loop
    if (branch := loop.current_branch()) is not loop.root:
        raise HoldfastError(
            f"durable.continue_as_new was called in branch {branch.id!r}: it ends the workflow function, which only the"
            " workflow's main branch can leave. Let this branch tell the main one (its result, an asyncio.Event), and"
            " call it there"
        )
    instance.continuing = True
    raise ContinueAsNew(call, newest=newest)


@asynccontextmanager
async def shielded() -> AsyncGenerator[None, None]:
    """While the block runs, a cancellation of the run waits; it takes effect when the block is left.

    Against cancellations from within the workflow (a timeout, a task group) there is `asyncio.shield`.
    """
    instance = instance_here("durable.shielded")
    instance.cancelling.shield()
    try:
        yield
    finally:
        instance.cancelling.unshield()


def _random(asked_for: str) -> Random:
    branch = loop_here(asked_for).current_branch()
    if branch.random is None:
        branch.random = derived_random(instance_here(asked_for).seed, branch.id)
    return branch.random
