"""`holdfast export` as a process: histories for the tests of a repository, with and without what people wrote."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import Engine, HistoryEvent
from engine.cli.redaction import Redaction
from engine.core.events import RunStarted, SignalReceived, TaskCompleted, TaskFailed, TaskScheduled, encode_header
from engine.testing import assert_replays, load_history
from tests.cli.command import Command, Ended
from tests.cli.test_gate import CHARGE, QUOTE, SHOP, change, load, recorded, shop  # noqa: F401 - fixtures


def written(shop: Command, *words: str) -> Path:  # noqa: F811
    ended: Ended = shop("export", *words)
    assert ended.code == 0, ended
    (shop.folder / "history.jsonl").write_text(ended.out)
    return shop.folder / "history.jsonl"


@pytest.mark.parametrize("redact", [(), ("--redact",)])
@pytest.mark.parametrize("run", ["order-3", "done-1"])
def test_an_exported_history_replays_and_finds_what_was_changed(
    shop: Command,  # noqa: F811
    run: str,
    redact: tuple[str, ...],
) -> None:
    file = written(shop, run, *redact)
    history = load_history(file)
    assert (history.run, history.redacted) == (run, bool(redact))
    assert_replays(history, load(shop.folder).order)
    change(shop)
    with pytest.raises(AssertionError) as caught:
        assert_replays(history, load(shop.folder).order)
    text = str(caught.value)
    for part in ("history.jsonl does not replay", "history has", "charge", "quote", ">    4  TaskCompleted"):
        assert part in text
    assert ("The history is redacted" in text) == bool(redact)


def test_nothing_that_was_said_is_left_in_a_redacted_one(shop: Command) -> None:  # noqa: F811
    open_, redacted = (written(shop, "order-3", *words).read_text() for words in ((), ("--redact",)))
    assert "customer 3" in open_
    assert "checked" in open_
    assert "customer" not in redacted
    assert "checked" not in redacted
    kept, other = (load_history_text(text) for text in (open_, redacted))
    assert [line["version"] for line in kept] == [line["version"] for line in other]
    for before, after in zip(kept, other, strict=True):
        assert {**before["header"], "worker": ""} == {**after["header"], "worker": ""}
    assert other[0]["payload"].keys() == kept[0]["payload"].keys()
    assert len(other[0]["payload"]["who"]) == len("customer 3")
    again = written(shop, "order-3", "--redact").read_text()
    assert again != redacted, "placeholders are guessed by nobody: each export has its own"


async def start_single(folder: Path) -> None:
    code, key = load(folder), "ann@example.org/7"
    async with Engine(f"sqlite:///{folder}/holdfast.db", workflows=[code.order], only={"one", "two"}) as client:
        await client.start(code.order(key), id="one", delay=3600, by=key, singleton=key)
        await client.start(code.order(key), id="two", delay=3600, singleton=key, on_conflict="queue")


def test_the_key_of_a_singleton_is_said_no_more_than_anything_else(shop: Command) -> None:  # noqa: F811
    asyncio.run(start_single(shop.folder))
    for run in ("one", "two"):
        assert "ann@example.org" in written(shop, run).read_text()
        file = written(shop, run, "--redact")
        text = file.read_text()
        assert "ann@" not in text
        assert "example" not in text
        started, *others = load_history_text(text)
        key = started["header"]["singleton"]
        assert (len(key), key[3], key[-2]) == (len("ann@example.org/7"), "@", "/")
        assert started["payload"]["who"] == key, "the same string is the same placeholder, wherever it stands"
        assert [each["header"]["key"] for each in others] == ([key] if run == "two" else [])
        assert_replays(load_history(file), load(shop.folder).order)


def load_history_text(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_bad_input(shop: Command) -> None:  # noqa: F811
    ended = shop("export", "nobody")
    assert ended.code == 2, ended
    assert ended.out == ""
    assert "no run 'nobody'" in ended.err
    ended = shop("export", "order-1", "--keep", "who")
    assert ended.code == 2, ended
    assert "say --redact, too" in ended.err


# -- placeholders ------------------------------------------------------------------------------------------------------


def redacted(value: Any, *, event: Any = None, keep: tuple[str, ...] = ()) -> Any:
    event = event or SignalReceived(at=1, id="m", name="s")
    item = HistoryEvent(1, 1, event, msgspec.json.encode(value), encode_header(event), b"")
    found = Redaction(secret=b"s", keep=keep).payload(item)
    return None if found is None else json.loads(found)


def test_placeholders_have_the_shape_of_what_they_stand_for() -> None:
    value = {
        "name": "Ann Börg-7",
        "same": "Ann Börg-7",
        "n": 7,
        "f": 1.5,
        "none": None,
        "yes": True,
        "date": "2026-01-31",
        "time": "2026-01-31T12:00:00.5Z",
        "span": "PT1.5S",
        "price": "-12.50",
        "uuid": "123e4567-e89b-42d3-a456-426614174000",
        "list": ["a", "b", ""],
    }
    found = redacted(value)
    assert found["name"] == found["same"] != value["name"]
    assert [(c.isalpha(), c.isdigit(), c.isupper()) for c in found["name"]] == [
        (c.isalpha(), c.isdigit(), c.isupper()) for c in value["name"]
    ]
    for kept in ("n", "f", "none", "yes", "date", "time", "span", "price"):
        assert found[kept] == value[kept]
    import uuid

    assert uuid.UUID(found["uuid"]).version == 4
    assert found["uuid"] != value["uuid"]
    assert len(set(found["list"])) == 3
    assert found["list"][2] == ""


def test_no_two_strings_become_one() -> None:
    values = [f"{a}{b}" for a in "abcdefghij" for b in "0123456789"]
    assert len(set(redacted(values))) == len(values)


def test_what_is_kept_when_it_is_said() -> None:
    value = {"kind": "express", "deep": [{"kind": {"a": "b"}, "who": "ann"}]}
    found = redacted(value, keep=("kind",))
    assert found["kind"] == "express"
    assert found["deep"][0]["kind"] == {"a": "b"}
    assert found["deep"][0]["who"] != "ann"


def test_errors_keep_their_types_and_decisions_say_nothing() -> None:
    error = {
        "type": "shop.Declined",
        "message": "no, ann",
        "args": ["ann", 3],
        "traceback": "File secret",
        "cause": {"type": "KeyError", "message": "k"},
    }
    found = redacted(error, event=TaskFailed(at=1, id="t", error="shop.Declined"))
    assert found["type"] == "shop.Declined"
    assert found["cause"]["type"] == "KeyError"
    assert "traceback" not in found
    assert "ann" not in json.dumps(found)
    assert redacted({"who": "ann"}, event=TaskScheduled(at=1, id="t", task="t")) is None
    assert redacted("done", event=TaskCompleted(at=1, id="t")) != "done"
    started = RunStarted(at=1, workflow="w", seed="ff", by="ann")
    item = HistoryEvent(1, 1, started, None, encode_header(started), b"")
    assert Redaction(secret=b"s").header(item)["by"] != "ann"
    assert (SHOP.exists(), CHARGE != QUOTE) == (True, True)
