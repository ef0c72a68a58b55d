"""Runs that were pruned, among what is moved: a removal is finished on the way, and what is left is what was said.

The event `RunPruned`, which alone stays of a pruned run, says how many events there were, and what their positions and
digests hash to. It is held against what is left of them when a file is written and when it is read, so that a file
says nothing else than a store whose log verifies. A removal that was begun and cut off is finished in the file: the
run travels as it is to be.

It deliberately does not know how pruning is done, nor what a file looks like.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from eventstore import KeptDigest, NotInstallable, RecordedEvent, pruned_leaf
from eventstore.moving import ConsumedMessages, Item, StoredMessage, StoredStream

__all__ = ["Finishing", "PrunedMeanwhile", "Remains"]

_STATUS: Final = "status"  # the attribute of a run's stream that says how it stands; "pruned" before anything goes


class PrunedMeanwhile(Exception):
    """A run was pruned while it was given out: what was given out is of no moment."""


class Finishing:
    """Items as a store gives them out, turned into those of a store in which no removal is half done."""

    def __init__(self) -> None:
        self._pruned: Final[set[str]] = set()  # wholly, or to be
        self._ends: Final[dict[str, int]] = {}  # of those whose removal is not through: the last version, which stays

    def __call__(self, item: Item) -> Item | None:
        """What it is to be; None: nothing. Raises `PrunedMeanwhile`."""
        match item:
            case StoredStream():
                return self._stream(item)
            case StoredMessage() | ConsumedMessages():
                return None if item.stream in self._ends else item
            case KeptDigest():
                if item.stream not in self._pruned:
                    raise PrunedMeanwhile(item.stream)
            case RecordedEvent() if item.version < self._ends.get(item.stream, 0):
                return KeptDigest(item.stream, item.version, item.position, item.digest)
        return item

    def _stream(self, item: StoredStream) -> StoredStream:
        if item.pruned:
            self._pruned.add(item.stream)
            return item
        if not (item.closed and item.attributes.get(_STATUS) == "pruned"):
            return item
        self._pruned.add(item.stream)
        self._ends[item.stream] = item.version
        return replace(item, pruned=True, alarm=None)


class Remains:
    """What is left of runs that were pruned, held against what was said of it."""

    def __init__(self) -> None:
        self._hashes: Final[dict[str, Any]] = {}  # by stream

    def check(self, item: Item) -> None:
        """The next item, behind what a store itself checks. Raises `NotInstallable`."""
        if isinstance(item, KeptDigest):
            hashed = self._hashes.get(item.stream)
            if hashed is None:
                hashed = self._hashes[item.stream] = sha256()
            hashed.update(pruned_leaf(item))
        elif isinstance(item, RecordedEvent) and (hashed := self._hashes.pop(item.stream, None)) is not None:
            _check_said(item, hashed.hexdigest())


class _Said(Struct, frozen=True, tag_field="type", tag="RunPruned"):
    """What is read of that event; `engine.core.events` has it whole."""

    run: str
    events: int
    leaves: str


_decode: Final = msgspec.json.Decoder(_Said).decode


def _check_said(event: RecordedEvent, leaves: str) -> None:
    wrong = None
    try:
        said = _decode(event.header)
    except (ValueError, RecursionError) as error:
        wrong = f"the events before it were pruned, and it does not say so ({error})"
    else:
        if f"run:{said.run}" != event.stream:
            wrong = f"it says what was pruned of run {said.run!r}"
        elif (said.events, said.leaves) != (event.version - 1, leaves):
            wrong = "what is left of the events before it is not what was pruned"
    if wrong is not None:
        raise NotInstallable(event.stream, version=event.version, reason=wrong)
