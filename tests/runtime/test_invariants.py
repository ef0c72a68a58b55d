"""The checker of histories must be able to fail: every rule of it meets a history that breaks just that rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from engine import task, workflow
from engine.core.events import (
    AttemptFailed,
    AttemptOutcomeIgnored,
    RunCompleted,
    RunFailed,
    RunResumed,
    RunStarted,
    RunSuspended,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerCancelled,
    TimerFired,
    TimerStarted,
)
from eventstore import Commit, NewEvent, RecordedEvent
from tests.runtime.invariants import Broken, check_chain, check_events, check_history
from tests.runtime.worlds import MemoryWorld, soon

GOOD: list[Any] = [
    RunStarted(at=1, workflow="w", seed="0"),
    TimerStarted(at=1, id="t", deadline=5),
    TaskScheduled(at=1, id="a", task="x"),
    TaskScheduled(at=1, id="b", task="x"),
    TaskStarted(at=1, id="a", attempt=1, worker="w"),
    TaskStarted(at=1, id="b", attempt=1, worker="w"),
    AttemptFailed(at=2, id="a", attempt=1, error="E", retry_at=3),
    TaskStarted(at=3, id="a", attempt=2, worker="w"),
    TaskCompleted(at=4, id="a", attempt=2),
    TaskCancelled(at=4, id="b"),
    AttemptOutcomeIgnored(at=4, id="b", attempt=1, outcome="cancelled"),
    RunSuspended(at=4, reason="values"),
    RunResumed(at=4),
    TimerFired(at=5, id="t"),
    RunCompleted(at=5),
]


def test_a_good_history_is_good() -> None:
    check_events(GOOD)
    for length in range(1, len(GOOD)):
        check_events(GOOD[:length])


Change = Callable[[list[Any]], list[Any]]


def put(index: int, event: Any) -> Change:
    return lambda events: [*events[:index], event, *events[index:]]


def replace(index: int, event: Any) -> Change:
    return lambda events: [*events[:index], event, *events[index + 1 :]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda events: [], "empty"),
        (lambda events: events[1:], "begins with"),
        (put(3, GOOD[0]), "starts twice"),
        (replace(8, TaskCompleted(at=2, id="a", attempt=2)), "time goes back"),
        (put(4, GOOD[2]), "scheduled twice"),
        (put(1, GOOD[4]), "never scheduled"),
        (replace(7, TaskStarted(at=3, id="a", attempt=1, worker="w")), "1 began before"),
        (replace(7, TaskStarted(at=3, id="a", attempt=3, worker="w")), "1 began before"),
        (put(9, TaskStarted(at=4, id="a", attempt=3, worker="w")), "already"),
        (replace(6, AttemptFailed(at=2, id="a", attempt=2, error="E", retry_at=3)), "did not begin"),
        (put(7, GOOD[6]), "has failed already"),
        (replace(6, AttemptFailed(at=2, id="a", attempt=1, error="E", retry_at=0)), "before it was scheduled"),
        (put(9, GOOD[8]), "already"),
        (put(9, TaskFailed(at=4, id="a", attempt=2, error="E")), "already"),
        (replace(8, TaskCompleted(at=4, id="a", attempt=1)), "has failed already"),
        (replace(8, TaskCompleted(at=4, id="a", attempt=3)), "did not begin"),
        (replace(8, TaskCompleted(at=4, id="z", attempt=1)), "never scheduled"),
        (replace(8, TaskFailed(at=4, id="a", attempt=0, error="E")), "did not begin"),
        (put(10, GOOD[9]), "cancelled twice"),
        (put(10, TaskCancelled(at=4, id="a")), "already"),
        (replace(10, AttemptOutcomeIgnored(at=4, id="b", attempt=2, outcome="cancelled")), "did not begin"),
        (put(2, GOOD[1]), "started twice"),
        (replace(13, TimerFired(at=5, id="u")), "no such timer"),
        (
            lambda events: replace(13, TimerFired(at=4, id="t"))(replace(14, RunCompleted(at=4))(events)),
            "before its deadline",
        ),
        (put(14, GOOD[13]), "no such timer"),
        (put(14, TimerCancelled(at=5, id="t")), "no such timer"),
        (put(12, TimerFired(at=5, id="t")), "while suspended"),
        (put(13, GOOD[12]), "not suspended"),
        (lambda events: [*events, RunFailed(at=5, error="E")], "already"),
        (lambda events: [*events, TimerFired(at=6, id="t")], "after RunCompleted"),
    ],
)
def test_a_broken_history_is_found(change: Change, says: str) -> None:
    with pytest.raises(Broken, match=says):
        check_events(change(GOOD))


@task
async def note(n: int) -> int:
    return n


@workflow
async def noting() -> int:
    first, second = await asyncio.gather(note(1), note(2))
    return first + second


async def finished(memory: MemoryWorld) -> list[RecordedEvent]:
    async with memory.engine(noting) as engine:
        await soon((await engine.start(noting(), id="a")).result())
    return [item async for item in memory.data.read("run:a")]


async def test_every_edit_breaks_the_chain(memory: MemoryWorld) -> None:
    recorded = await finished(memory)
    check_chain("run:a", recorded)
    edits = [
        lambda item: msgspec.structs.replace(item, header=item.header.replace(b'"at":1', b'"at":2')),
        lambda item: msgspec.structs.replace(item, payload=(item.payload or b"") + b" "),
        lambda item: msgspec.structs.replace(item, salt=bytes(16)) if item.payload else None,
        lambda item: msgspec.structs.replace(item, version=item.version + 1),
        lambda item: msgspec.structs.replace(item, digest=bytes(32)),
        lambda item: msgspec.structs.replace(item, payload_digest=bytes(31) + b"x"),
    ]
    for index, item in enumerate(recorded):
        for edit in edits:
            if (edited := edit(item)) is not None:
                with pytest.raises(Broken):
                    check_chain("run:a", [*recorded[:index], edited, *recorded[index + 1 :]])
    with pytest.raises(Broken):
        check_chain("run:b", recorded)
    with pytest.raises(Broken):
        check_chain("run:a", recorded[1:])


async def test_what_does_not_replay_is_found(memory: MemoryWorld) -> None:
    await finished(memory)
    await check_history(memory.data, "a", noting)

    @workflow(name="noting")
    async def other() -> int:
        return await note(1) + await note(2)

    with pytest.raises(Broken, match="does not replay"):
        await check_history(memory.data, "a", other)


async def test_marks_that_do_not_agree_are_found(memory: MemoryWorld) -> None:
    await finished(memory)
    head = await memory.data.head("run:a")
    for number, wrong in enumerate(({"attributes": {"status": "failed"}}, {"closed": False})):
        await memory.data.commit(Commit(id=f"x{number}", stream="run:a", expected_version=head.version, **wrong))
        with pytest.raises(Broken):
            await check_history(memory.data, "a", noting)


async def test_events_behind_the_end_are_found(memory: MemoryWorld) -> None:
    await finished(memory)
    head = await memory.data.head("run:a")
    late = NewEvent(b'{"type":"TimerFired","at":9999999999999999,"id":"t"}')
    await memory.data.commit(Commit(id="x", stream="run:a", expected_version=head.version, events=(late,)))
    with pytest.raises(Broken, match="after RunCompleted"):
        await check_history(memory.data, "a", noting)
