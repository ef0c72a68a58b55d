"""What the store has refused can be collected: nothing that knows an error is hidden from the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore import NEW, Commit, NewEvent, VersionConflict
from eventstore.sqlite import SqliteStore

EVENT = NewEvent(b'{"type":"a"}')


class Refused(Exception):
    """What a caller's own transaction raises."""


class Own:
    """A transaction that remembers how it failed."""

    def __init__(self) -> None:
        self.failed_with: BaseException | None = None

    def __call__(self, _: Any) -> bytes:
        try:
            raise Refused
        except Refused as error:
            self.failed_with = error
            raise


@pytest.mark.parametrize(
    ("kind", "commit"),
    [
        (VersionConflict, lambda: Commit(id="b", stream="run:a", expected_version=NEW, events=(EVENT,))),
        (Refused, lambda: Commit(id="b", stream="run:a", expected_version=1, events=(EVENT,), transaction=Own())),
    ],
)
async def test_a_commit_that_was_refused_is_gone(
    kind: type[Exception], commit: Callable[[], Commit], tmp_path: Path
) -> None:
    store = await SqliteStore.open(tmp_path / "a.db")
    try:
        await store.commit(Commit(id="a", stream="run:a", expected_version=NEW, events=(EVENT,)))
        for _ in range(5):
            with pytest.raises(kind):
                await store.commit(commit())
        await asyncio.sleep(0)
        assert await store.head("run:a")  # the writer has something else in its hands
        await store.commit(Commit(id="c", stream="run:a", expected_version=1, events=(EVENT,)))
        gc.collect()
        assert sum(isinstance(found, kind) for found in gc.get_objects()) <= 1, "but for the one that pytest holds"
    finally:
        await store.aclose()
