"""What ties an attempt's code to whoever runs it: notices that reach the code, heartbeats that come back.

The two sides may be in different threads. Executors carry a contact's words over whatever lies between; the engine
makes one for each attempt and listens. Nothing here knows a clock, an event loop of its own, or a history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock
from typing import Final

__all__ = ["Contact", "Notice"]


class Notice:
    """Something that is said once and never taken back. Every method may be called from every thread."""

    __slots__ = ("_listeners", "_lock", "given")

    def __init__(self) -> None:
        self.given = False
        self._lock = Lock()
        self._listeners: list[Callable[[], None]] = []

    def give(self) -> None:
        """Say it: whoever waits goes on. Again: nothing happens."""
        with self._lock:
            self.given = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def when_given(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back once, in the thread that gives it, or at once if it was given. Returns what ends that."""
        with self._lock:
            if not self.given:
                self._listeners.append(listener)
                return lambda: self._forget(listener)
        listener()
        return _nothing

    def wait(self, seconds: float | None) -> bool:
        """Block this thread until it is given, at most so many seconds (None: for ever). Whether it was given."""
        woken = Event()
        forget = self.when_given(woken.set)
        try:
            woken.wait(seconds)
        finally:
            forget()
        return self.given

    async def until(self) -> None:
        """Wait in a coroutine until it is given."""
        loop = asyncio.get_running_loop()
        given: asyncio.Future[None] = loop.create_future()
        forget = self.when_given(lambda: _resolve_from_anywhere(loop, given))
        try:
            await given
        finally:
            forget()

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock, suppress(ValueError):  # given meanwhile
            self._listeners.remove(listener)


class Contact:
    """One attempt's. Made for each, and used by few: what is in it is made when it is asked for."""

    __slots__ = ("_cancelled", "_listener", "_stopping", "preparing")

    def __init__(self, listener: Callable[[bytes | None], None] | None = None) -> None:
        self._listener = listener
        self._cancelled: Notice | None = None
        self._stopping: Notice | None = None
        self.preparing = False  # its place is being made ready (a process starts): silence is not the code's

    @property
    def cancelled(self) -> Notice:
        """The attempt is asked to end."""
        if self._cancelled is None:
            with _making:
                self._cancelled = self._cancelled or Notice()
        return self._cancelled

    @property
    def stopping(self) -> Notice:
        """The engine closes; the attempt has the rest of the grace period."""
        if self._stopping is None:
            with _making:
                self._stopping = self._stopping or Notice()
        return self._stopping

    def beat(self, details: bytes | None) -> None:
        """The attempt's code lives, and gives details, as JSON, or None for none. From every thread."""
        if self._listener is not None:
            self._listener(details)

    def begin(self) -> None:
        """Its code begins now; for executors that have set `preparing`."""
        self.preparing = False


_making: Final = Lock()


def _nothing() -> None:
    """There is nothing to end."""


def _resolve_from_anywhere(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
