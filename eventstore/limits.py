"""The limits of the store port, by name and with their units. `eventstore.port` says where each applies."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTRIBUTE_BYTES_MAX",
    "CLAIM_LIMIT_MAX",
    "COMMIT_EVENTS_MAX",
    "COMMIT_MESSAGES_MAX",
    "COMMIT_PERMITS_MAX",
    "CONTROL_BYTES",
    "CONTROL_PAGE",
    "FIND_LIMIT_MAX",
    "GRANT_SECONDS",
    "HEADER_BYTES_MAX",
    "MAILBOX_BYTES",
    "MAILBOX_PAGE",
    "MOVED_STREAMS_MAX",
    "NAME_BYTES_MAX",
    "PAYLOAD_BYTES_MAX",
    "POOL_BYTES_MAX",
    "TRANSACTION_SECONDS_MAX",
]

COMMIT_EVENTS_MAX: Final = 5_000
"""Events in one commit. A larger group of decisions is written in chunks: never one transaction of 100,000 rows."""
COMMIT_MESSAGES_MAX: Final = 5_000
"""Messages sent, or consumed, by one commit."""
COMMIT_PERMITS_MAX: Final = 1_000
"""Permits taken, waited for or returned by one commit."""
HEADER_BYTES_MAX: Final = 1 << 20
"""Bytes of one event's header."""
PAYLOAD_BYTES_MAX: Final = 16 << 20
"""Bytes of one event's or message's payload (what the engine lets inline is less)."""
NAME_BYTES_MAX: Final = 512
"""UTF-8 bytes of a stream's name, a message id, an attribute's name, a worker's name."""
POOL_BYTES_MAX: Final = 256
"""UTF-8 bytes of a pool's name, which is part of its stream's and of message ids."""
ATTRIBUTE_BYTES_MAX: Final = 2_048
"""UTF-8 bytes of an attribute's value: every value is indexed, and PostgreSQL's B-tree takes less than 2,704."""
MAILBOX_PAGE: Final = 1_000
"""Waiting messages that a `StreamHead` carries, oldest first; the rest follow when these are consumed."""
MAILBOX_BYTES: Final = 8 << 20
"""Bytes of their headers and payloads together: the page ends before the message that would exceed them, but that it
holds at least one, however large."""
CONTROL_PAGE: Final = 100
"""Of the oldest control messages a `StreamHead` shows this many, also those that wait behind its page: no number of
data messages hides what unpauses, cancels or ends a held stream."""
CONTROL_BYTES: Final = 1 << 20
"""Bytes of the headers and payloads of these together, but that there is at least one, however large."""
GRANT_SECONDS: Final = 30.0
"""How long a permit that was granted waits for its holder to take it, before it goes to the next in the queue."""
TRANSACTION_SECONDS_MAX: Final = 5.0
"""Seconds that one `Commit.transaction` may take: every other commit waits meanwhile."""
MOVED_STREAMS_MAX: Final = 1_000_000
"""Streams that are installed at once, in one transaction: some 500 bytes of each are held until all has arrived."""
FIND_LIMIT_MAX: Final = 1_000
CLAIM_LIMIT_MAX: Final = 1_000
