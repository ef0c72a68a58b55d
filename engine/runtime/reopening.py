"""Reopening: a run that has ended goes on behind its end, with everything that was completed.

Of the last turn, which ended it, the decisions are taken back (`RunReopened`, see `core.replay`). What becomes of the
fact that led to them depends on what it is:

* A task had failed for good, or the run was cancelled: that counts as never having arrived. The task is tried anew,
  under the same idempotency key, its attempts counted on; what it had called off goes on.
* A child run had failed, and was reopened since, and has completed: likewise, and its result is told.
* Anything else: the code itself raised. The fact is told again to the code there is now, which must decide otherwise.

A terminated run had no last turn: nothing is taken back but its end. Only if its worker had died half-way through
writing a turn is that decided anew: nothing of it had begun. What was said to others in the last turn cannot be taken
back, so such a run is refused, as is one whose present code would end at once.

A run that has a singleton's key takes it again, in the commit that lets it go on: it is refused while another run has
it. So one that ended in the queue for the key, too, begins at once, or not at all.

Whether it works is tried before anything is written, by a replay. The note is then written to the run's own stream,
without a lease: the stream is nobody's, for the run has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeGuard

from msgspec import Struct, structs

from engine.core.calls import CANCELLED
from engine.core.compare import Mismatch, describe_decision
from engine.core.decided import Decided
from engine.core.events import (
    CancelRequested,
    ChildFailed,
    ChildStarted,
    Fact,
    MessageSent,
    RequestAnswered,
    RequestFailed,
    RunReopened,
    TakenBack,
    TaskFailed,
)
from engine.core.failures import decode_error
from engine.core.replay import LastTurn, Replayer
from engine.errors import RepairRefused
from engine.runtime.children_told import outcome_letters
from engine.runtime.codes import GOES_ON
from engine.runtime.gates import OPEN, due_at, is_waiting
from engine.runtime.half_forks import is_whole
from engine.runtime.histories import check_remembers, head_of, moment_behind, read_state
from engine.runtime.keys import key_permit, pool_of
from engine.runtime.large_values import TABLES
from engine.runtime.limits import declare_key
from engine.runtime.reconciling import is_cut_off
from engine.runtime.recovery import feed
from engine.runtime.serving import Served
from engine.runtime.streams import (
    BOUND,
    CODE,
    LET_ON,
    QUEUED,
    SINGLETON,
    STATUS,
    new_event,
    own_attribute,
    run_id_of,
    workflow_of,
)
from eventstore import (
    Clock,
    Commit,
    EventStore,
    LeaseLost,
    LimitReached,
    Message,
    Permit,
    StreamHead,
    UnknownMessage,
    VersionConflict,
)
from eventstore.errors import UnknownPool
from eventstore.port import Scalar

__all__ = ["reopen"]

LOOK_SECONDS: Final = 0.05
LOOKS_MAX: Final = 40
"""How often, and how many times, it is tried again while the run's last attempts are being ended."""
_SAID_TO_OTHERS: Final = (ChildStarted, MessageSent, RequestAnswered, RequestFailed)
_ENDS: Final = ("failed", "cancelled", "terminated")


class _Plan(Struct):
    """What is written so that a run goes on: the note, the outcomes of children that it was not told, its attributes
    as they were before the turn that is taken back.
    """

    note: RunReopened
    letters: list[Message]
    attributes: dict[str, Scalar]


async def reopen(
    store: EventStore,
    definitions: Served,
    run_id: str,
    *,
    by: str,
    reason: str,
    clock: Clock,
    next_id: Callable[[], str],
) -> None:
    """See the module. Raises `RepairRefused`, `RunNotFound`, `UnknownWorkflow`, and what the store raises."""
    looks = 0
    while True:
        head = await head_of(store, run_id)
        check_remembers(head)
        _check_ended(head, run_id)
        at = await moment_behind(store, head, clock)
        plan = await _plan(store, head, definitions, run_id, RunReopened(at=at, by=by, reason=reason, takes_back="end"))
        try:
            await store.commit(_commit(head, plan, now=clock.now(), commit_id=next_id()))
        except (VersionConflict, UnknownMessage):
            continue  # a late outcome was noted, or somebody else has reopened it
        except UnknownPool as error:  # its history is here, and what was beside it is not
            await declare_key(store, error.pool, clock=clock, commit_id=next_id())
        except LimitReached as error:
            raise RepairRefused(_not_free(run_id, head.attributes.get(SINGLETON), error)) from None
        except LeaseLost:  # whoever ended it ends its attempts, and then gives it up
            looks += 1
            if looks > LOOKS_MAX:
                raise RepairRefused(
                    f"run {run_id!r} has ended, but attempts of it are still under way: reopen it once they have ended"
                ) from None
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return


def _commit(head: StreamHead, plan: _Plan, *, now: int, commit_id: str) -> Commit:
    """What lets the run of this stream go on; `now`: by the clock, in microseconds."""
    return Commit(
        id=commit_id,
        stream=head.stream,
        expected_version=head.version,
        events=(new_event(plan.note),),
        # Whoever asked for something before this asked a run that had ended: it was to come to nothing.
        consumes=tuple(message.id for message in head.messages),
        sends=tuple(plan.letters),
        alarm=due_at(head, now),
        held=False,
        closed=False,
        attributes={
            **GOES_ON,
            STATUS: OPEN.status(waiting=is_waiting(head)),
            QUEUED: None,
            LET_ON: None,
            CODE: None,  # it was bound to what fitted before; what it is tried with here fits as well
            BOUND: None,
            **plan.attributes,
        },
        permits=_key_of(head),
        progress=True,
    )


def _not_free(run_id: str, key: object, error: LimitReached) -> str:
    if error.held_by is None:
        return f"run {run_id!r} cannot be reopened: its singleton key {key!r} is shut, for its pool was set to no slot"
    return (
        f"run {run_id!r} cannot be reopened: run {error.held_by!r} has its singleton key {key!r}, and of the runs with"
        " one key one goes on at a time; reopen it once that run has ended, or end that run first"
    )


def _key_of(head: StreamHead) -> tuple[Permit, ...]:
    """The key of a singleton, to be taken again: the store has given it up with the run's end."""
    key = head.attributes.get(SINGLETON)
    if key is None:
        return ()
    return (key_permit(pool_of(workflow_of(head.attributes)[0], str(key)), run_id_of(head.stream), "take"),)


def _check_ended(head: StreamHead, run_id: str) -> None:
    if not is_whole(head):
        raise RepairRefused(f"run {run_id!r} is a fork that is not made to its end: there is nothing to go on with")
    status = head.attributes.get(STATUS)
    if head.closed and status in _ENDS:
        return
    if head.closed:
        raise RepairRefused(
            f"run {run_id!r} has {status}: there is nothing to go on with; run it again, or fork it at a version"
        )
    what = "resume it" if status == "suspended" else "unpause it" if status == "paused" else "nothing is to be done"
    raise RepairRefused(f"run {run_id!r} has not ended: it is {status}; {what}")


async def _plan(store: EventStore, head: StreamHead, definitions: Served, run_id: str, note: RunReopened) -> _Plan:
    replayer = Replayer(
        definitions.require(*workflow_of(head.attributes)), run_id, versions=definitions.find, tables=TABLES
    )
    turn: LastTurn | None = None
    try:
        await feed(replayer, store, head)
        check_remembers(await head_of(store, run_id))  # that what we have read was whole
        turn = replayer.last_turn
        if head.attributes.get(STATUS) != "terminated":
            note = structs.replace(note, takes_back=await _what_is_taken_back(store, replayer, run_id))
        replayer.feed(head.version + 1, note, None)
        decided = replayer.finish()
        _check_goes_on(replayer, decided, run_id, turn.fact)
        letters = await outcome_letters(
            store, replayer.instance, but={item.event.id for item in decided}, stamp=f"reopen:{head.version + 1}"
        )
    except Mismatch as mismatch:
        check_remembers(await head_of(store, run_id))
        if note.takes_back == "end" and _is_half_written(turn, replayer, mismatch):
            _check_unheard(turn.decisions.values(), run_id)
            return await _plan(store, head, definitions, run_id, structs.replace(note, takes_back="decisions"))
        raise RepairRefused(
            f"run {run_id!r} cannot be reopened with the present code, which does not fit its history:"
            f" {mismatch.diagnosis.render()}"
        ) from mismatch
    finally:
        replayer.instance.evict()
    return _Plan(note, letters, await _attributes_before(store, head, note))


def _is_half_written(turn: LastTurn | None, replayer: Replayer, mismatch: Mismatch) -> TypeGuard[LastTurn]:
    """Whether it is the last turn that does not fit, and nothing of it had begun: that comes with the last of it."""
    if turn is None or turn.version != mismatch.diagnosis.version:
        return False
    begun = (replayer.attempts.get(id_) for id_ in turn.decisions)
    return not any(attempts is not None and attempts.started for attempts in begun)


async def _attributes_before(store: EventStore, head: StreamHead, note: RunReopened) -> dict[str, Scalar]:
    """The run's own attributes, as they were before the turn that is taken back."""
    if note.takes_back == "end":
        return {}
    state = await read_state(store, run_id_of(head.stream), at=head.version)
    after = dict.fromkeys(state.attributes)
    state.apply(head.version + 1, note, None)
    return {own_attribute(name): value for name, value in {**after, **state.attributes}.items()}


async def _what_is_taken_back(store: EventStore, replayer: Replayer, run_id: str) -> TakenBack:
    turn = replayer.last_turn
    fact = turn.fact
    assert fact is not None, "a run that its code has ended ended in a turn"
    _check_unheard(turn.decisions.values(), run_id)
    if isinstance(fact, ChildFailed):
        pending = replayer.instance.children.get(fact.id)
        retold = pending is None or not await _has_completed(store, pending.run_id)
    else:
        retold = not (isinstance(fact, CancelRequested) or (isinstance(fact, TaskFailed) and fact.error != CANCELLED))
    return "decisions" if retold else "turn"


async def _has_completed(store: EventStore, run_id: str) -> bool:
    return (await head_of(store, run_id)).attributes.get(STATUS) == "completed"


def _check_unheard(decisions: Iterable[Decided], run_id: str) -> None:
    for item in decisions:
        if isinstance(item.event, _SAID_TO_OTHERS):
            raise RepairRefused(
                f"run {run_id!r} cannot be reopened: in its last turn it has said something to others, which cannot be"
                f" taken back ({describe_decision(item)}); fork it before that, or run it again"
            )


def _check_goes_on(replayer: Replayer, decided: list[Decided], run_id: str, fact: Fact | None) -> None:
    instance = replayer.instance
    if instance.over:
        child = (
            f" Its child of call {fact.id!r} had not completed: reopen that." if isinstance(fact, ChildFailed) else ""
        )
        raise RepairRefused(
            f"run {run_id!r} cannot be reopened: no task had failed in the turn that ended it, and its code ends it"
            f" again: {_end_of(decided)}.{child} Change the code first, fork it before that, or run it again"
        )
    for id_, pending in instance.pending.items():
        attempts = replayer.attempts.get(id_)
        if attempts is not None and is_cut_off(pending, attempts):
            raise RepairRefused(
                f"run {run_id!r} cannot be reopened: task {id_!r} has begun, and effect='at_most_once' says that it is"
                " never tried again; fork the run, and give the result of that task with the fork"
            )


def _end_of(decided: list[Decided]) -> str:
    end = decided[-1]
    text = describe_decision(end)
    if end.payload is not None and text.startswith("raise"):
        info = decode_error(end.payload)
        return f"{text}: {info.message}" if info.message else text
    return text
