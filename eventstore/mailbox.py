"""How much of a mailbox a head shows: one rule for every store, so that the same page holds the same messages.

The page is the beginning of the mailbox, and the oldest control messages beyond it: a held stream consumes only these,
so a page of nothing but the data messages before them would hide for ever what ends or unpauses it.

It deliberately does not know how messages are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from eventstore.port import CONTROL_BYTES, CONTROL_PAGE, MAILBOX_BYTES, MAILBOX_PAGE, WaitingMessage

__all__ = ["earlier_page", "first_page"]


def first_page(messages: Iterable[WaitingMessage], controls: int) -> tuple[WaitingMessage, ...]:
    """The page of a mailbox in order of arrival, `controls` being how many control messages wait in all of it.

    Looks at one message beyond the beginning, and further only while control messages are to be found.
    """
    waiting = iter(messages)
    page, beyond = _beginning(waiting)
    if beyond is None:
        return tuple(page)
    met = [_size(message) for message in page if message.control]
    count, size = len(met), sum(met)
    rest = chain((beyond,), waiting)
    while count < controls:
        message = next((message for message in rest if message.control), None)
        if message is None:
            break
        count += 1
        size += _size(message)
        if count > CONTROL_PAGE or (count > 1 and size > CONTROL_BYTES):
            break
        page.append(message)
    return tuple(page)


def earlier_page(messages: Sequence[WaitingMessage], count: int) -> tuple[WaitingMessage, ...]:
    """The page of `count` messages that this mailbox showed once, nothing having been taken from it since.

    What came meanwhile stands behind all that was there. So either the page was the whole mailbox, or it was a
    beginning that is the same today, and the first control messages beyond it.
    """
    beginning, _ = _beginning(iter(messages))
    if count <= len(beginning):
        return tuple(messages[:count])
    beyond = (message for message in messages[len(beginning) :] if message.control)
    return (*beginning, *islice(beyond, count - len(beginning)))


def _beginning(waiting: Iterator[WaitingMessage]) -> tuple[list[WaitingMessage], WaitingMessage | None]:
    """The oldest messages that fit, and the one behind them."""
    page: list[WaitingMessage] = []
    size = 0
    for message in waiting:
        size += _size(message)
        if page and (size > MAILBOX_BYTES or len(page) >= MAILBOX_PAGE):
            return page, message
        page.append(message)
    return page, None


def _size(message: WaitingMessage) -> int:
    return len(message.header) + len(message.payload or b"")
