"""What the memory store holds of one stream, and how the port shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventstore.digest import chain_start
from eventstore.keeping import Leaf
from eventstore.mailbox import first_page
from eventstore.port import (
    CommitId,
    MessageId,
    Scalar,
    StreamHead,
    StreamQuery,
    Timestamp,
    Undelivered,
    WaitingMessage,
    category_of,
)

__all__ = ["Stream"]


class Stream:
    """What is stored of one stream."""

    __slots__ = (
        "alarm",
        "attributes",
        "claims",
        "closed",
        "controls",
        "created_at",
        "delivered",
        "digest",
        "events",
        "held",
        "last_commit",
        "mailbox",
        "name",
        "outcome",
        "owner",
        "pruned",
        "queued",
        "updated_at",
    )

    def __init__(self, name: str, now: Timestamp) -> None:
        self.name: Final = name
        self.created_at: Final = now
        self.updated_at = now
        self.events: list[Leaf] = []  # of those that were pruned, what is left
        self.digest = chain_start(name)
        self.mailbox: dict[MessageId, WaitingMessage] = {}  # in order of arrival
        self.controls = 0  # of them, for the engine
        self.delivered: set[MessageId] = set()  # every id ever delivered: the tombstones
        self.alarm: Timestamp | None = None
        self.queued: Timestamp | None = None  # the alarm as the heap has it
        self.held = False
        self.closed = False
        self.pruned = False
        self.owner: int | None = None
        self.claims = 0
        self.attributes: dict[str, Scalar] = {}
        self.last_commit: CommitId | None = None
        self.outcome: StreamHead | None = None  # of the last commit, for whoever repeats it

    def head(self, undelivered: tuple[Undelivered, ...] = (), *, mail: bool = True) -> StreamHead:
        """The stream as the port shows it, detached from what is stored."""
        return StreamHead(
            stream=self.name,
            version=len(self.events),
            digest=self.digest,
            created_at=self.created_at,
            updated_at=self.updated_at,
            alarm=self.alarm,
            held=self.held,
            closed=self.closed,
            owner=self.owner,
            claims=self.claims,
            attributes=dict(self.attributes),
            pruned=self.pruned,
            messages=first_page(self.mailbox.values(), self.controls) if mail else (),
            undelivered=undelivered,
        )

    def merge(self, attributes: Mapping[str, Scalar]) -> None:
        """Set attributes; None removes one."""
        merged = self.attributes | dict(attributes)
        self.attributes = {name: value for name, value in merged.items() if value is not None}

    def fits(self, query: StreamQuery) -> bool:
        """Whether every condition holds, but for the order and the page."""
        return (
            (query.category is None or category_of(self.name) == query.category)
            and (query.streams is None or self.name in query.streams)
            and (query.closed is None or self.closed == query.closed)
            and (query.held is None or self.held == query.held)
            and (query.control is None or bool(self.controls) == query.control)
            and (query.pruned is None or self.pruned == query.pruned)
            and (query.created_from is None or self.created_at >= query.created_from)
            and (query.created_until is None or self.created_at < query.created_until)
            and all(
                self.attributes.get(name) in (wanted if isinstance(wanted, tuple) else (wanted,))
                for name, wanted in query.attributes.items()
            )
        )
