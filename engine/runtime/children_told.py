"""Outcomes of child runs for a parent that was not told them: it had ended when they came, or it is a fork."""

from __future__ import annotations

from collections.abc import Collection

from engine.core.instance import Instance
from engine.errors import RepairRefused, RunNotFound
from engine.runtime.histories import Outcome, head_of, outcome_of
from engine.runtime.mail import ChildMail, data_message
from engine.runtime.streams import stream_of
from eventstore import EventStore, Message

__all__ = ["outcome_letters"]


async def outcome_letters(
    store: EventStore, instance: Instance, *, but: Collection[str], stamp: str, to: str | None = None
) -> list[Message]:
    """To run `to` (this one): how each child has ended that the instance waits for, but those that it starts now.

    `stamp` makes the letters' ids, so that none is told twice. Raises `RepairRefused` for a child that still runs: its
    end will be told to nobody, or was about to be when we looked.
    """
    run_id = instance.run_id if to is None else to
    letters: list[Message] = []
    for id_, pending in instance.children.items():
        if id_ in but:
            continue
        child = pending.run_id
        outcome = await _outcome(store, child)
        if outcome is None:
            raise RepairRefused(
                f"child run {child!r} has not ended, and run {run_id!r} would not hear of its end: cancel it, or wait"
                " until it has ended"
            )
        if outcome.status == "pruned":
            raise RepairRefused(
                f"child run {child!r} was pruned: what came of it can be told to run {run_id!r} no more"
            )
        if outcome.payload is None and outcome.status in ("completed", "failed"):
            raise RepairRefused(
                f"child run {child!r} was made to forget what came of it: that can be told to run {run_id!r} no more"
            )
        mail = ChildMail(
            call=id_,
            epoch=instance.epoch,
            status=None if outcome.status == "completed" else outcome.status,  # type: ignore[arg-type]
            error=outcome.error,
            reason=outcome.reason,
        )
        letters.append(data_message(stream_of(run_id), f"{stamp}:{id_}", mail, outcome.payload))
    return letters


async def _outcome(store: EventStore, run_id: str) -> Outcome | None:
    try:
        head = await head_of(store, run_id)
    except RunNotFound:
        return None
    return await outcome_of(store, head, run_id) if head.closed else None
