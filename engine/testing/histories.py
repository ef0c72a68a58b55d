"""Histories as tests look at them: events with the names and arguments of what they are about, shown in lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine import HistoryEvent, RunHandle

__all__ = ["History", "Seen", "history"]

_SHOWN: Final = 80  # characters of a value


class Seen(Struct, frozen=True):
    """One event. `name` and `arguments` are those of the task or workflow that it is about."""

    version: int
    header: dict[str, Any]
    payload: bytes | None
    name: str = ""
    arguments: bytes | None = None

    @property
    def type(self) -> str:
        """As histories name it."""
        return str(self.header["type"])

    @property
    def site(self) -> str:
        """File and line that asked for it; "" for what nobody asked for."""
        return str(self.header.get("site", ""))

    def text(self) -> str:
        """In one line."""
        about = self.name or str(self.header.get("name") or self.header.get("error") or "")
        shown = self.payload if self.payload is not None else b""
        words = [self.type, about, _clipped(shown.decode(errors="replace"))]
        if (id_ := self.header.get("id")) and self.type not in ("SignalReceived", "RequestReceived"):
            words.append(f"[{id_}]")
        if source := self.header.get("reused_run"):
            words.append(f"reused from run {source}")
        elif "attempt" in self.header:
            words.append(f"attempt {self.header['attempt']}")
        return " ".join(filter(None, words))


class History(Sequence[Seen]):
    """The events of a run, in order. Made of what `RunHandle.events` gives, live or kept from earlier."""

    def __init__(self, events: Iterable[HistoryEvent]) -> None:
        self.events = tuple(events)
        self._seen = list(_seen(self.events))

    def __len__(self) -> int:
        return len(self._seen)

    def __getitem__(self, index: Any) -> Any:
        return self._seen[index]

    def __iter__(self) -> Iterator[Seen]:
        return iter(self._seen)

    def text(self, *, marked: Iterable[int] = ()) -> str:
        """One line for each event, with its version and its place in the code; `marked`: versions that stand out."""
        stands_out = set(marked)
        lines = []
        for seen in self._seen:
            line = f"{'>' if seen.version in stands_out else ' '} {seen.version:4}  {seen.text()}"
            lines.append(f"{line}  at {seen.site}" if seen.site else line)
        return "\n".join(lines)


async def history(run: RunHandle[Any]) -> History:
    """The history of a run, as it stands. Raises `RunNotFound`."""
    return History([item async for item in run.events()])


def _seen(events: Iterable[HistoryEvent]) -> Iterator[Seen]:
    calls: dict[str, tuple[str, bytes | None]] = {}
    for item in events:
        header = msgspec.json.decode(item.header)
        match header["type"]:
            case "RunStarted":
                calls = {}  # of a new epoch: ids mean others now
                yield Seen(item.version, header, item.payload, header["workflow"], item.payload)
                continue
            case "TaskScheduled":
                calls[header["id"]] = header["task"], item.payload
            case "ChildStarted":
                calls[header["id"]] = header["workflow"], item.payload
            case _:
                pass
        name, arguments = calls.get(str(header.get("id", "")).rstrip("!"), ("", None))
        yield Seen(item.version, header, item.payload, name, arguments)


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
