"""Debounced calls: those with one key, close after each other, become one run, with the arguments of the last.

Each call has a run of its own, which begins when it has been quiet for long enough. A stream for each key knows which
of them is to begin; the commit that puts the next one there opens its run and asks the one before to end, unless it
has begun. All of that is one commit, so nothing can come between; and it expects the version of the stream that it
was decided by, so of two calls at once one sees the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, structs

from engine.core.events import CallDebounced
from engine.errors import HoldfastError
from engine.runtime.histories import head_or_none
from engine.runtime.keys import keyed_name
from engine.runtime.mail import CancelMail, StartMail, control_message, data_message
from engine.runtime.streams import STATUS, VERSION, WAITS, WORKFLOW, new_event, stream_of
from eventstore import NEW, Clock, Commit, EventStore, Message, Opening, StreamHead, VersionConflict
from eventstore.port import NAME_BYTES_MAX, Scalar

__all__ = ["DEBOUNCE_CATEGORY", "Quiet", "debounce", "quiet_of"]

DEBOUNCE_CATEGORY: Final = "debounce"
"""Streams of debounced keys: which run is to begin, and when."""
_RUN: Final = "run"
_SINCE: Final = "since"
_BEGINS: Final = "begins_at"


class Quiet(Struct, frozen=True):
    """How long it has to be quiet before a run begins, and the longest that it is put off; microseconds."""

    needed: int
    longest: int | None

    def begins_at(self, *, now: int, since: int) -> int:
        """When a call of now is to begin, the first of which came then."""
        at = now + self.needed
        return at if self.longest is None else min(at, since + self.longest)


def quiet_of(seconds: float, longest: float | None) -> Quiet:
    """What `Engine.debounce` was told, in seconds. Raises `HoldfastError` for what it cannot mean."""
    for name, value in (("seconds", seconds), ("longest", longest)):
        if value is not None and not (isinstance(value, int | float) and 0 < value < _SECONDS_MAX):
            raise HoldfastError(f"debounce({name}={value!r}): a number of seconds above 0")
    if longest is not None and longest < seconds:
        raise HoldfastError(f"debounce(seconds={seconds!r}, longest={longest!r}): longest is at least seconds")
    return Quiet(round(seconds * 1_000_000), None if longest is None else round(longest * 1_000_000))


_SECONDS_MAX: Final = 1e10


async def debounce(
    store: EventStore,
    mail: StartMail,
    arguments: bytes,
    run_id: str,
    *,
    key: str,
    quiet: Quiet,
    clock: Clock,
    next_id: Callable[[], str],
) -> None:
    """Record the call. Raises what the store raises."""
    stream = keyed_name(f"{DEBOUNCE_CATEGORY}:", mail.workflow, key, bytes_max=NAME_BYTES_MAX)
    while True:
        head = await head_or_none(store, stream)
        now = clock.now()
        before, since = _pending(head, now)
        begins_at = quiet.begins_at(now=now, since=since)
        event = CallDebounced(
            at=now,
            workflow=mail.workflow,
            key=key,
            run=run_id,
            since=since,
            begins_at=begins_at,
            instead_of=before,
            by=mail.by,
        )
        sends = [_opening(structs.replace(mail, begins_at=begins_at), arguments, run_id, stream)]
        if before:
            sends.append(_superseding(before, run_id, stream, by=mail.by))
        try:
            await store.commit(
                Commit(
                    id=next_id(),
                    stream=stream,
                    expected_version=NEW if head is None else head.version,
                    events=(new_event(event),),
                    sends=tuple(sends),
                    attributes={WORKFLOW: mail.workflow, _RUN: run_id, _SINCE: since, _BEGINS: begins_at},
                )
            )
        except VersionConflict:
            continue  # another call was quicker: ours comes behind it
        return


def _pending(head: StreamHead | None, now: int) -> tuple[str, int]:
    """The run that this call is instead of, if one is still to begin; and since when there was no quiet."""
    if head is None:
        return "", now
    attributes: Any = head.attributes
    if attributes[_BEGINS] <= now:
        return "", now
    return str(attributes[_RUN]), int(attributes[_SINCE])


def _opening(mail: StartMail, arguments: bytes, run_id: str, sender: str) -> Message:
    attributes: dict[str, Scalar] = {WORKFLOW: mail.workflow, STATUS: "queued", WAITS: mail.begins_at}
    if mail.version:
        attributes[VERSION] = mail.version
    message = data_message(stream_of(run_id), f"start:{run_id}", mail, arguments, sender=sender)
    return structs.replace(message, opens=Opening(attributes=attributes))


def _superseding(before: str, run_id: str, sender: str, *, by: str) -> Message:
    mail = CancelMail(by=by, reason=f"superseded by run {run_id!r}", unless_begun=True)
    return control_message(stream_of(before), f"supersede:{run_id}", mail, sender=sender, open_only=True)
