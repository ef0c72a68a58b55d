"""When the write-ahead log is copied into the database, so that it stays small and commits seldom wait for it.

SQLite does not tell how long its log is without a lock, and once the log has started over, its file's size does not
tell either. So what batches add is estimated, and every checkpoint, which does tell, corrects the estimate for the next
round; a file that grows is believed before any estimate.

A checkpoint that copies waits for nobody. Only when readers have kept it from being complete until the log is over its
limit does one wait for them, a moment, so that the log can be cut.
"""

from __future__ import annotations

from typing import Final

from eventstore.errors import StoreUnavailable
from eventstore.sqlite.opening import LOG_BYTES_MAX
from eventstore.sqlite.requests import BatchOutcome
from eventstore.sqlite.transaction import Transactor

__all__ = ["CHECKPOINT_BYTES", "Checkpoints"]

CHECKPOINT_BYTES: Final = 8 << 20
"""What is written to the log before it is copied."""

_SCALE_MIN: Final = 0.25
_SCALE_MAX: Final = 64.0


class Checkpoints:
    """Runs a transactor's checkpoints, on its thread."""

    __slots__ = ("_estimate_bytes", "_file_bytes", "_scale", "_transactor")

    def __init__(self, transactor: Transactor) -> None:
        self._transactor: Final = transactor
        self._estimate_bytes = 0.0  # added since the last checkpoint, before scaling
        self._scale = 1.0  # what was really added, by what was estimated, the last time
        self._file_bytes = 0  # size of the log's file at the last checkpoint

    def after(self, outcome: BatchOutcome) -> None:
        """Take in a committed batch; copy the log if it is time."""
        self._estimate_bytes += outcome.log_bytes
        grown = outcome.log_file_bytes - self._file_bytes
        if max(self._estimate_bytes * self._scale, grown) < CHECKPOINT_BYTES:
            return
        file_bytes = outcome.log_file_bytes
        try:
            length, complete = self._transactor.checkpoint(truncate=False)
            if complete:
                self._scale = min(max(length / max(self._estimate_bytes, 1.0), _SCALE_MIN), _SCALE_MAX)
            elif length > LOG_BYTES_MAX and self._transactor.checkpoint(truncate=True)[1]:
                file_bytes = 0
        except StoreUnavailable:
            return  # the next batch meets the same trouble, and has somebody to tell
        self._estimate_bytes = 0.0
        self._file_bytes = file_bytes
