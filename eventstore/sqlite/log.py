"""Room in the write-ahead log, written before it is needed.

A commit that makes the log's file longer makes the file system write down the new length, too, and that takes about as
long again as all else that a small commit waits for. So once a small commit has made it longer, the next one first
writes a stretch of zeros behind its end, which those that follow overwrite. SQLite takes the log to end where a frame's
checksum does not fit, so zeros there mean nothing (https://sqlite.org/fileformat2.html#walformat); PostgreSQL keeps the
files of its log for the same reason. A large commit pays for the length once for all its rows, and gets no room.

Only whoever has the write lock, and has written nothing under it yet, may write there: nobody else appends meanwhile.
"""

from __future__ import annotations

import os
from typing import Final

from eventstore.sqlite.guard import Identity

__all__ = ["ROOM_BYTES", "Log"]

ROOM_BYTES: Final = 1 << 20
"""What is written at a time: for some sixty small commits."""
SMALL_BYTES: Final = 64 << 10
"""What a commit adds to the log at most for room to be worth it."""

_ZEROS: Final = bytes(ROOM_BYTES)


class Log:
    """Of one writable connection, on its thread."""

    __slots__ = ("_bytes", "_identity", "_is_full")

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._bytes = 0  # of its file, as the transaction began
        self._is_full = False  # the last small commit found no room

    def make_room(self) -> None:
        """A transaction has begun, and nothing is written yet. A disk that has no room is left alone."""
        self._bytes = self._identity.log_bytes()
        if self._is_full:
            self._is_full = False
            self._bytes += self._write_zeros()

    def verify(self, *, added_bytes: int = ROOM_BYTES) -> int:
        """As `Identity.verify`, behind a transaction that has added about so much."""
        file_bytes = self._identity.verify()
        self._is_full = file_bytes > self._bytes and added_bytes <= SMALL_BYTES
        return file_bytes

    def _write_zeros(self) -> int:
        """How many bytes the log is longer by."""
        try:
            log = os.open(self._identity.log_path, os.O_WRONLY)
        except OSError:
            return 0
        try:
            return os.pwrite(log, _ZEROS, self._bytes) if self._identity.is_log(log) else 0
        except OSError:
            return 0
        finally:
            os.close(log)
