"""What runs were given to do, as it is on record."""

from __future__ import annotations

import json
from typing import Any

from engine.core.events import RunStarted, decode_header
from eventstore import EventStore

__all__ = ["number_of", "programs_of"]


def number_of(run_id: str) -> int | None:
    """Of whose run it is, or a descendant or a copy of that; None: of nobody's."""
    of = run_id.partition("/")[0].partition("-")[0].removeprefix("r")
    return int(of) if of.isdecimal() else None


async def programs_of(store: EventStore, run_id: str) -> tuple[Any, ...]:
    """The programs of a run that has begun, one for each epoch; a child has one."""
    async for item in store.read(f"run:{run_id}"):
        if isinstance(decode_header(item.header), RunStarted):
            given = json.loads(item.payload or b"")  # of `Remembered`: whatever has been taken away since
            return tuple(given["epochs"]) if "epochs" in given else (given["program"],)
    return ()
