"""Ctrl-C and SIGTERM: the first asks for a graceful stop, the second ends the process at once.

The handlers are Python's own, not the loop's, so that the second one works also while a task blocks the loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["StopRequest"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered (on the main thread, inside a running loop), catches both signals.

    `wait` returns when the first has come; `before_exit` is called before the second ends the process, to leave a
    terminal as it was found.
    """

    def __init__(self, *, exit_code: int) -> None:
        self.exit_code = exit_code
        self.before_exit: Callable[[], None] | None = None
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._asked = False
        self._found: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether the user has asked to stop."""
        return self._asked

    async def wait(self) -> None:
        """Return when a stop was asked for."""
        await self._event.wait()

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._found[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._found.items():
            signal.signal(number, handler)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            if self.before_exit is not None:
                self.before_exit()
            os._exit(self.exit_code)
        self._asked = True
        self._loop.call_soon_threadsafe(self._event.set)
