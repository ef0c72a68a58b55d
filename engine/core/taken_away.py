"""What stands in a run's history of what was taken away from it: its payloads, or all events before that one.

Notes, as everything that people do to a run which has ended; written before anything is taken away.
"""

from __future__ import annotations

from engine.core.event_kinds import Note

__all__ = ["PayloadsDestroyed", "RunPruned"]


class PayloadsDestroyed(Note, frozen=True, tag="PayloadsDestroyed", kw_only=True):
    """Of a run that has ended: payloads are made to be forgotten. Written before that is done."""

    by: str = ""
    reason: str = ""
    versions: tuple[int, ...] = ()  # of these events; none: of all before this one, and of what waits in the mailbox


class RunPruned(Note, frozen=True, tag="RunPruned", kw_only=True):
    """Of a run that has ended: all events before this one are taken away, but for their places and their digests.

    Written before that is done, and the last of the run's events. `leaves` is SHA-256, in hexadecimal, over position
    (8 bytes, big-endian) and digest (32 bytes) of each of them in turn.
    """

    run: str  # the run's id
    workflow: str
    status: str  # how it had ended
    events: int  # how many are taken away
    first: int  # position of the first of them
    last: int  # and of the last
    digest: str  # of the last, 64 hex digits
    leaves: str
    started_at: int  # microseconds since the epoch, as is
    ended_at: int
    by: str = ""
    reason: str = ""
