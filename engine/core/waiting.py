"""A run that is recorded and has not begun: what its code is to begin with, and what may reach it before.

Its time does not pass meanwhile: its loop is made when it begins (`RunBegun`), so that `asyncio.timeout(60)` means a
minute from there. Signals are kept for it. A cancellation ends it without its code, as it does an asyncio task that is
cancelled before its first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engine.core.decided import Decided
from engine.core.events import CancelRequested, Fact, RunCancelled, SignalReceived
from engine.errors import HistoryError

__all__ = ["Waiting"]


class _Inbox(Protocol):
    def accept_signal(self, fact: SignalReceived, payload: bytes | None) -> None: ...


class WaitingHost(Protocol):
    """What it needs of its instance."""

    run_id: str
    outcome: Any
    over: bool
    waiting: Any

    @property
    def inbox(self) -> _Inbox: ...


class Waiting:
    """See the module. `arguments` are those of the workflow function."""

    def __init__(self, host: WaitingHost, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.arguments = (args, kwargs)
        self._host = host

    def take(self, fact: Fact, payload: bytes | None) -> list[Decided]:
        """A fact other than that it begins. Raises `HistoryError` for one that nobody can wait for yet."""
        host = self._host
        match fact:
            case SignalReceived():
                host.inbox.accept_signal(fact, payload)
                return []
            case CancelRequested():
                host.outcome, host.over, host.waiting = RunCancelled(at=fact.at, reason=fact.reason), True, None
                return [Decided(host.outcome, None)]
            case _:
                raise HistoryError(f"run {host.run_id!r} has not begun; {fact!r} cannot be delivered")
