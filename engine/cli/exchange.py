"""What a run was told and what it said, as a pure fold of its history beside `RunState`: signals, requests, feeds."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct, field, json, to_builtins

from engine import HistoryEvent

__all__ = ["Exchange", "RequestRow", "SignalRow"]

_OF_INTEREST: Final = frozenset(
    {"SignalReceived", "RequestReceived", "RequestAnswered", "RequestFailed", "FeedPublished", "TaskHandedOut"}
)


class SignalRow(Struct, kw_only=True):
    """A signal that has arrived. Times are microseconds since the epoch."""

    id: str
    name: str
    by: str
    at: int
    value: bytes | None


class RequestRow(Struct, kw_only=True):
    """A request that was accepted. `status`: "accepted", "answered" or "failed"."""

    id: str
    name: str
    by: str
    at: int
    argument: bytes | None
    status: str = "accepted"
    ended_at: int | None = None
    answer: bytes | None = None
    error: str = ""


class Exchange(Struct):
    """All of it, of all epochs."""

    signals: list[SignalRow] = field(default_factory=list)
    requests: dict[str, RequestRow] = field(default_factory=dict)  # by id
    feeds: dict[str, int] = field(default_factory=dict)  # how many values, by name
    handed_out: dict[str, int] = field(default_factory=dict)  # since when, by the task's id

    def take(self, recorded: HistoryEvent) -> None:
        """Fold one event in."""
        if type(recorded.event).__name__ not in _OF_INTEREST:
            return
        header: dict[str, Any] = to_builtins(recorded.event)
        match header:
            case {"carried": True}:
                return  # has been told already, in an earlier epoch
            case {"type": "SignalReceived", "id": id_, "name": name, "at": at}:
                self.signals.append(
                    SignalRow(id=id_, name=name, by=header.get("by", ""), at=at, value=recorded.payload)
                )
            case {"type": "RequestReceived", "id": id_, "name": name, "at": at}:
                self.requests[id_] = RequestRow(
                    id=id_, name=name, by=header.get("by", ""), at=at, argument=recorded.payload
                )
            case {"type": "RequestAnswered" | "RequestFailed", "request": id_, "at": at}:
                self._answered(id_, at, recorded.payload, failed=header["type"] == "RequestFailed")
            case {"type": "FeedPublished", "name": name}:
                self.feeds[name] = self.feeds.get(name, 0) + 1
            case {"type": "TaskHandedOut", "id": id_, "at": at}:
                self.handed_out[id_] = at

    def _answered(self, id_: str, at: int, payload: bytes | None, *, failed: bool) -> None:
        row = self.requests.get(id_)
        if row is None:
            return  # a damaged or partial history; the fold tells what it can
        row.ended_at = at
        if failed:
            row.status, row.error = "failed", _error_text(payload)
        else:
            row.status, row.answer = "answered", payload


def _error_text(payload: bytes | None) -> str:
    if payload is None:
        return "(destroyed)"
    try:
        info = json.decode(payload)
    except (ValueError, RecursionError):
        return "(unreadable)"
    return f"{info.get('type', '')}: {info.get('message', '')}" if isinstance(info, dict) else "(unreadable)"
