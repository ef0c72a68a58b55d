"""A lab's storage: it does at once, on the event loop, what others do in threads, which a turned clock does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from engine.storage import Storage

__all__ = ["LabStorage"]

R = TypeVar("R")


class LabStorage(Storage):
    """Where another storage is, with nothing in between."""

    def __init__(self, storage: Storage | str) -> None:
        self.blocking = (Storage(storage) if isinstance(storage, str) else storage).blocking

    async def _in_thread(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        return fn(*args, **kwargs)
