"""Leases that need no transaction to stay alive: a locked file per worker, and a beat written into it.

A lease is alive while its process holds the `flock` on its file *and* the beat in that file is younger than the time to
live that stands beside it. Death of the process frees the lock at once; a stopped process keeps the lock, and its beat
grows old. The beat is written by a thread of its own, so that a blocked event loop does not kill its leases; the thread
measures by how much the loop is late instead.

A lapse is final. A process that was paused for longer than the time to live finds, when it goes on, that somebody may
have judged it dead, so its lease is never fresh again and beats no more; its commits stay fenced by ownership, as ever.

The files are created and swept under the guard, so that nobody judges a file between its creation and its lock. This
module deliberately does not know which streams a lease owns.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from eventstore.clock import Clock
from eventstore.sqlite.guard import close_in_child

__all__ = ["BEATS_PER_TTL", "Judge", "LeaseFiles", "SqliteLease"]

BEATS_PER_TTL: Final = 5
"""Beats in one time to live: four may be late before anybody believes the worker dead."""

Judge: TypeAlias = Callable[[int], bool]
"""Whether the lease of a token, not ended in the database, is alive."""

_BEAT_BYTES_MAX: Final = 128
_READS_MAX: Final = 3  # of a beat that changes while it is read


class SqliteLease:
    """A lease of a `SqliteStore`. Created on the writer's thread, inside the transaction that gives out its token."""

    __slots__ = (
        "__weakref__",
        "_beat_at",
        "_clock",
        "_descriptor",
        "_ended",
        "_lag_seconds",
        "_lapsed",
        "_lock",
        "_loop",
        "_path",
        "_pinged_at",
        "_stop",
        "_thread",
        "_ttl_seconds",
        "dead_seen",
        "due_at",
        "seen",
        "token",
        "waited",
        "worker",
    )

    def __init__(self, token: int, worker: str, *, path: str, ttl_seconds: float, clock: Clock) -> None:
        """Create, lock and beat once. Raises `OSError`."""
        self.token: Final = token
        self.worker: Final = worker
        self._path: Final = path
        self._ttl_seconds: Final = ttl_seconds
        self._clock: Final = clock
        self._ended = False
        self._lapsed = False
        self._lag_seconds = 0.0
        self._pinged_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name=f"holdfast-lease-{token}", daemon=True)
        # What `claim` and `wait` remember for this worker.
        self.seen = -1  # the store's news that the first claim since the last wait has taken in
        self.waited = True
        self.due_at: int | None = None  # the next alarm of a stream that this lease could claim
        self.dead_seen: frozenset[int] = frozenset()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._beat_at = clock.monotonic()
            self._write(self._beat_at)
        except BaseException:
            os.close(self._descriptor)
            raise
        close_in_child(self)

    @property
    def lag(self) -> float:
        """Seconds by which the event loop was late at the last beat."""
        return self._lag_seconds

    def fresh(self) -> bool:
        """Whether nobody else can believe this lease dead yet. No I/O."""
        if self._ended or self._lapsed:
            return False
        if self._clock.monotonic() - self._beat_at >= self._ttl_seconds:
            self._lapsed = True
            return False
        return True

    @property
    def ended(self) -> bool:
        return self._ended

    def hint(self, alarm: int | None) -> bool:
        """Take in that an alarm was set; whether it is earlier than what `wait` knew of."""
        if alarm is None or (self.due_at is not None and self.due_at <= alarm):
            return False
        self.due_at = alarm
        return True

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to beat; `loop` is the one whose lateness is measured."""
        self._loop = loop
        self._thread.start()

    def end(self) -> None:
        """Stop beating, give up the lock, remove the file. Ending it twice does nothing."""
        self._ended = True
        self._stop.set()
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(descriptor)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def forget(self) -> None:
        """In a forked child: this process never had the lease."""
        self._ended = True
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def beat(self) -> bool:
        """Write the present time into the file, unless the lease has lapsed. False when it beats no more.

        Raises `OSError` when the medium fails: the beat then counts as not given.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._descriptor < 0 or not self.fresh():
                return False
            self._write(now)
            self._beat_at = now
        return True

    def _write(self, now: float) -> None:
        os.pwrite(self._descriptor, _beat_line(now, self._ttl_seconds), 0)

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._ttl_seconds / BEATS_PER_TTL):
            with suppress(OSError):  # tried again at the next beat; without one in time the lease lapses
                if not self.beat():
                    return
            self._measure_lag()

    def _measure_lag(self) -> None:
        loop = self._loop
        if loop is None:
            return
        now = self._clock.monotonic()
        if self._pinged_at is not None:  # the last call has not come through yet
            self._lag_seconds = now - self._pinged_at
            return
        self._pinged_at = now
        try:
            loop.call_soon_threadsafe(self._answer, now)
        except RuntimeError:  # the loop is closed
            self._loop = None

    def _answer(self, pinged_at: float) -> None:
        self._lag_seconds = self._clock.monotonic() - pinged_at
        self._pinged_at = None


class LeaseFiles:
    """The directory of lease files beside a database, and the judgement whether somebody lives."""

    __slots__ = ("_clock", "_directory", "_ttl_seconds")

    def __init__(self, directory: str, *, ttl_seconds: float, clock: Clock) -> None:
        self._directory: Final = directory
        self._ttl_seconds: Final = ttl_seconds
        self._clock: Final = clock

    def create(self, token: int, worker: str) -> SqliteLease:
        """A new, locked, beating lease. The caller holds the guard. Raises `OSError`."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return SqliteLease(token, worker, path=self._path(token), ttl_seconds=self._ttl_seconds, clock=self._clock)

    def alive(self, token: int) -> bool:
        """Whether the lease of this token may still be believed: its file is locked and its beat is young."""
        try:
            descriptor = os.open(self._path(token), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _unlocked(descriptor) and self._beats(descriptor)
        finally:
            os.close(descriptor)

    def gone(self, token: int) -> bool:
        """Whether the process that held this lease can never come back to it: nobody holds the lock."""
        try:
            descriptor = os.open(self._path(token), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return _unlocked(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, token: int) -> None:
        """Remove the file of a lease that is gone or has ended."""
        with suppress(OSError):
            os.unlink(self._path(token))

    def sweep(self) -> None:
        """Remove the files of all leases that are gone. The caller holds the guard."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        for name in names:
            if name.isdecimal() and self.gone(int(name)):
                self.remove(int(name))

    def _path(self, token: int) -> str:
        return os.path.join(self._directory, str(token))

    def _beats(self, descriptor: int) -> bool:
        for _ in range(_READS_MAX):
            beat = _parse_beat(os.pread(descriptor, _BEAT_BYTES_MAX, 0))
            if beat is not None:
                beat_at, ttl_seconds = beat
                return self._clock.monotonic() - beat_at < ttl_seconds
        return True  # torn at every look: somebody writes it all the time


def _unlocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _beat_line(now: float, ttl_seconds: float) -> bytes:
    """The beat, twice, at a fixed length: a reader in the middle of a write sees two that differ."""
    half = f"{now:024.6f} {ttl_seconds:016.6f}\n"
    return (half + half).encode()


def _parse_beat(line: bytes) -> tuple[float, float] | None:
    first, _, rest = line.partition(b"\n")
    if not first or rest != first + b"\n":
        return None
    beat_at, _, ttl_seconds = first.partition(b" ")
    return float(beat_at), float(ttl_seconds)
