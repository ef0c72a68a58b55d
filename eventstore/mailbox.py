"""How much of a mailbox a head shows: one rule for every store, so that the same page ends at the same message.

It deliberately does not know how messages are kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventstore.port import MAILBOX_BYTES, MAILBOX_PAGE, WaitingMessage

__all__ = ["first_page"]


def first_page(messages: Iterable[WaitingMessage]) -> tuple[WaitingMessage, ...]:
    """The first page of a mailbox in order of arrival; looks at one message beyond it, and no further."""
    page: list[WaitingMessage] = []
    size = 0
    for message in messages:
        size += len(message.header) + len(message.payload or b"")
        if page and (size > MAILBOX_BYTES or len(page) >= MAILBOX_PAGE):
            break
        page.append(message)
    return tuple(page)
