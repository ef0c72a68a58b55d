"""Recorded histories in tests: read from files, replayed against workflows, in versions and epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import HistoryEvent, Signal, diagnose, durable, task, workflow
from engine.errors import HoldfastError
from engine.testing import assert_replays, engine, history, load_history

go = Signal("go", int)


@task
async def work(n: int) -> int:
    return n


@workflow(name="meter", version="1")
async def first(n: int) -> int:
    await work(n)
    await durable.continue_as_new(first(n + 1))


@workflow(name="meter", version="2")
async def second(n: int) -> int:
    await work(n)
    return await work(n + 1)


async def recorded() -> list[HistoryEvent]:
    async with engine(first, second) as lab:
        run = await lab.start(first(0), id="m")
        assert await lab.result(run) == 2
        return list((await history(run)).events)


def file_of(events: list[HistoryEvent], path: Path, **first_line: Any) -> Path:
    lines = [json.dumps({"holdfast": "history", "form": 1, "run": "m", **first_line})]
    for item in events:
        payload = {} if item.payload is None else {"payload": json.loads(item.payload)}
        lines.append(json.dumps({"version": item.version, "header": json.loads(item.header), **payload}))
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_versions_and_epochs(tmp_path: Path) -> None:
    events = await recorded()
    kept = load_history(file_of(events, tmp_path / "m.jsonl"))
    assert [item.event for item in kept.events] == [item.event for item in events]
    assert_replays(kept, first, second)
    with pytest.raises(HoldfastError, match="of workflow 'meter' in version '1', which is not given"):
        assert_replays(kept, second)
    assert diagnose(events, first, run_id="m") is not None  # it goes on as the second
    assert diagnose(events[:3], first, run_id="m") is None

    @workflow(name="meter", version="2")
    async def changed(n: int) -> int:
        await work(n)
        return n

    with pytest.raises(AssertionError, match="does not replay") as caught:
        assert_replays(kept, first, changed)
    assert "return 1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no history of `holdfast export`"),
        ("{}", "line 1: no history of `holdfast export`"),
        ('{"holdfast":"history","form":2,"run":"m"}', "line 1: 'history' in form 2, this version reads 1"),
        ('{"holdfast":"history","form":1,"run":"m"}\n{"version":1}', "line 2: "),
        ('{"holdfast":"history","form":1,"run":"m"}\n{"version":1,"header":{"type":"Nothing","at":1}}', "line 2: "),
    ],
)
def test_what_is_no_history(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "h.jsonl"
    file.write_text(text)
    with pytest.raises(HoldfastError) as caught:
        load_history(file)
    assert str(caught.value).startswith(f"{file}, {said}")


def test_a_history_without_its_beginning() -> None:
    with pytest.raises(HoldfastError, match="a history begins with RunStarted"):
        diagnose([], first)
