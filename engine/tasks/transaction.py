"""What a transactional task is given: SQL on tables of its own, in the transaction that records its completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Transaction"]


class Transaction(Protocol):
    """The first parameter of a task with ``effect="transactional"``; a store's `eventstore.Transaction` is one.

    (Said here once more, for tasks do not know the store; a test holds the two to each other.) Usable until the
    function returns, on the thread that it is called on. Both methods raise `eventstore.TransactionRefused` for what is
    not allowed (the store's own tables, transaction control, settings, what is temporary or attached, more time than
    there is), and the database's own errors as they are.
    """

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> list[tuple[Any, ...]]:
        """Execute one statement; all its rows."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any] | Mapping[str, Any]], /) -> None:
        """Execute one statement that writes, once for each row of parameters."""
