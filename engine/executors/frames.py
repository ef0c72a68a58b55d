"""What an engine and its worker processes say to each other, and how: msgpack behind a length of four bytes.

Values stand in it as they stand in histories, as JSON that the task's own codecs wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from engine.core.carriage import PAYLOAD_INLINE_BYTES
from engine.executors.functions import FunctionName

__all__ = ["Answer", "Beat", "Begun", "Do", "Done", "Frames", "Later", "Order", "Raised", "Stopping", "frame"]

T = TypeVar("T")

_LENGTH_BYTES: Final = 4
_encoder: Final = msgspec.msgpack.Encoder()


class Do(Struct, frozen=True, tag=True, kw_only=True):
    """To the process: run this attempt."""

    function: FunctionName
    arguments: bytes
    run_id: str
    task_id: str
    task: str
    number: int
    idempotency_key: str
    scheduled_at: int
    token: str
    last_heartbeat: bytes | None
    last_failure: bytes | None
    bytes_max: int = PAYLOAD_INLINE_BYTES  # of the result


class Stopping(Struct, frozen=True, tag=True):
    """To the process: the engine closes."""


class Begun(Struct, frozen=True, tag=True):
    """From the process: the function was found, and is called now."""


class Beat(Struct, frozen=True, tag=True):
    """From the process: a heartbeat."""

    details: bytes | None


class Done(Struct, frozen=True, tag=True):
    """From the process: the function has returned this."""

    payload: bytes


class Raised(Struct, frozen=True, tag=True):
    """From the process: it has raised this (`failures.ErrorInfo`)."""

    error: bytes


class Later(Struct, frozen=True, tag=True):
    """From the process: it has handed the task out."""


Order: TypeAlias = Do | Stopping
Answer: TypeAlias = Begun | Beat | Done | Raised | Later


def frame(message: Order | Answer) -> bytes:
    """A message as it is written into a pipe."""
    data = _encoder.encode(message)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class Frames(Generic[T]):
    """Cuts what is read from a pipe into messages of a type."""

    def __init__(self, type_: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)
        self._read = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that are whole with this."""
        self._read += data
        while len(self._read) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._read[:_LENGTH_BYTES], "big")
            if len(self._read) < end:
                return
            message = self._decoder.decode(bytes(self._read[_LENGTH_BYTES:end]))
            del self._read[:end]
            yield message
