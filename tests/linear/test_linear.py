"""What clients in several processes see of a store can have happened in one order; a store that lies is caught."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eventstore import Commit, EventStore, StreamHead
from eventstore.memory import MemoryStore
from tests.linear.__main__ import recorded
from tests.linear.checker import Op, not_linearizable
from tests.linear.client import client, set_up


def test_processes_on_one_file(tmp_path: Path) -> None:
    ops = recorded(tmp_path, 2, 1, seconds=20.0, operations=40)
    assert len(ops) > 100
    assert not_linearizable(ops) is None


class Around:
    """A store around a memory store, which lets others in before each call, as a real one does."""

    def __init__(self) -> None:
        self.inner = MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, commit: Commit) -> StreamHead:
        await asyncio.sleep(0)
        return await self.inner.commit(commit)


class ServesStaleHeads(Around):
    """Shows each stream as it was when it was looked at before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, StreamHead] = {}

    async def head(self, stream: str) -> StreamHead:
        head = await self.inner.head(stream)
        last = self.seen.get(stream, head)
        self.seen[stream] = head
        return last


class AnswersBeforeItCommits(Around):
    """Says what the head will be, and writes a moment later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: set[asyncio.Task[Any]] = set()

    async def commit(self, commit: Commit) -> StreamHead:
        if not commit.stream.startswith("s:") or not commit.events:
            return await super().commit(commit)
        head = await self.inner.head(commit.stream)

        async def write() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            await asyncio.gather(self.inner.commit(commit), return_exceptions=True)

        self.later.add(asyncio.create_task(write()))
        return type(head)(
            **{**{name: getattr(head, name) for name in head.__struct_fields__}, "version": commit.expected_version + 1}
        )


class LendsTwice(Around):
    """A pool with a slot too many."""

    async def commit(self, commit: Commit) -> StreamHead:
        if commit.attributes == {"limit": 2}:
            commit = Commit(id=commit.id, stream=commit.stream, expected_version=-1, attributes={"limit": 3})
        return await super().commit(commit)


async def seen_of(store: EventStore, seed: int = 1) -> list[Op]:
    ops: list[Op] = []
    await set_up(store)
    await asyncio.gather(*(client(store, f"c{n}", seed, ops.append, seconds=20.0, operations=150) for n in range(4)))
    return ops


async def test_a_store_that_tells_the_truth() -> None:
    assert not_linearizable(await seen_of(Around())) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("store", [ServesStaleHeads, AnswersBeforeItCommits, LendsTwice])
async def test_a_store_that_lies_is_caught(store: type[Around]) -> None:
    assert "no order explains" in str(not_linearizable(await seen_of(store())))  # type: ignore[arg-type]


def test_two_owners_are_caught() -> None:
    one, other = Op(0, 1, "a", "owned:a", "claim"), Op(2, 3, "b", "owned:a", "claim")
    assert not_linearizable([one]) is None
    assert not_linearizable([one, other]) is not None
    let_go = Op(1, 4, "a", "owned:a", "write", "release", "done")
    assert not_linearizable([one, let_go, other]) is None  # it was let go meanwhile


def test_an_operation_of_unknown_end_may_have_happened_or_not() -> None:
    unknown = Op(0, None, "a", "s:a", "commit", [0, "e", ""])
    for seen in ([0, []], [1, []]):
        assert not_linearizable([unknown, Op(1, 2, "b", "s:a", "head", None, seen)]) is None
    back = [Op(1, 2, "b", "s:a", "head", None, [1, []]), Op(3, 4, "b", "s:a", "head", None, [0, []])]
    assert not_linearizable([unknown, *back]) is not None
