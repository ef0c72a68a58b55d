"""`holdfast runs --attribute`, times and pages, and `show`, as processes on one store."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.testing import assert_replays, load_history
from tests.cli.command import Command

FILE = Path(__file__).parent / "standing.py"
YEAR = 31_536_000_000_000


class Clock:
    """A year a look: so many runs, so many years."""

    def __init__(self, start: int) -> None:
        self.at = start

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(FILE, folder)
    spec = importlib.util.spec_from_file_location("searched_standing", folder / "standing.py")
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code
    spec.loader.exec_module(code)
    asyncio.run(fill(folder, code))
    return Command(folder)


async def fill(folder: Path, code: Any) -> None:
    clock = Clock(1_577_836_800_000_000)  # 2020-01-01
    url = f"sqlite:///{folder}/holdfast.db?synchronous=NORMAL"
    async with Engine(url, workflows=[code.part], clock=clock, grace=0) as engine, asyncio.timeout(60):
        for n in range(6):
            attributes = {"region": "eu" if n % 2 else "us", "zip": "01234" if n == 3 else 1234, "even": not n % 2}
            await engine.start(code.part(n), id=f"r{n}", attributes=attributes)
            clock.at += YEAR
        # 2026: those that follow are of today
    async with Engine(url, workflows=[code.part], grace=0) as engine, asyncio.timeout(60):
        await engine.start(code.part(7), id="today", attributes={"region": "two words", "odd": '"'})
        await (await engine.start(code.part(8), id="done")).signal(code.go, 1)
        await engine.run("done").result()


def found(command: Command, *words: str) -> list[str]:
    ended = command("runs", "--json", *words)
    assert ended.code == 0, ended
    return [each["run"] for each in ended.json()]


def test_by_attributes_of_every_kind(recorded: Command) -> None:
    assert found(recorded, "--attribute", "region=eu") == ["r5", "r3", "r1"]
    assert found(recorded, "--attribute", "region=eu", "--attribute", "zip=1234") == ["r5", "r1"]
    assert found(recorded, "--attribute", 'zip="01234"') == ["r3"]
    assert found(recorded, "--attribute", "zip=01234") == ["r3"], "it is no JSON: a number has no leading zero"
    assert found(recorded, "--attribute", "zip=1234.0", "--attribute", "even=true") == ["r4", "r2", "r0"]
    assert found(recorded, "--attribute", "region=eu", "--attribute", "region=two words") == ["today", "r5", "r3", "r1"]
    assert found(recorded, "--attribute", "region=null") == ["done"]
    assert found(recorded, "--attribute", 'odd="\\""') == ["today"]
    assert found(recorded, "--attribute", "part=3", "--workflow", "part", "--status", "running") == ["r3"]
    assert found(recorded, "--attribute", "status=running") == [], "it is no attribute of the engine's"
    none = recorded("runs", "--attribute", "region=mars", "--attribute", "zip=1", "--attribute", "zip=two")
    assert (none.code, none.out) == (0, "no runs of region=mars, zip=1 or zip=two in this store\n")


def test_by_time(recorded: Command) -> None:
    assert found(recorded, "--since", "2021-06-01T00:00Z", "--until", "2024-06-01T00:00Z") == ["r4", "r3", "r2"]
    assert found(recorded, "--until", "2020-06-01") == ["r0"]
    assert found(recorded, "--since", "1d") == ["done", "today"]
    assert found(recorded, "--since", "90m", "--attribute", "region=eu") == []
    assert found(recorded, "--until", "1d", "--attribute", "region=eu") == ["r5", "r3", "r1"]


def test_page_by_page(recorded: Command) -> None:
    seen: list[str] = []
    words: tuple[str, ...] = ()
    while True:
        page = recorded("runs", "--json", "--limit", "3", *words).json()
        assert all(each["next"] is None for each in page[:-1])
        seen += [each["run"] for each in page]
        if page[-1]["next"] is None:
            break
        words = ("--after", page[-1]["next"])
    assert seen == ["done", "today", "r5", "r4", "r3", "r2", "r1", "r0"]
    shown = recorded("runs", "--limit", "7")
    cursor = shown.out.rstrip().rpartition("the next page: --after ")[2]
    assert found(recorded, "--after", cursor) == ["r0"]
    last = recorded("runs", "--after", recorded("runs", "--json", "--limit", "7").json()[-1]["next"])
    assert "the next page" not in last.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attribute", "region"), "is not NAME=VALUE"),
        (("--attribute", "=eu"), "is not NAME=VALUE"),
        (("--attribute", "region=[1]"), "a text, a number or a boolean"),
        (("--attribute", "a b=1"), "cannot name an attribute"),
        (("--attribute", f"big={1 << 70}"), "64 bits"),
        (("--since", "yesterday"), "'yesterday' is no time: say 2026-01-31"),
        (("--until", "2026-13-01"), "is no time"),
        (("--since", "999999999d"), "before there was anything"),
        (("--after", "nonsense"), "cursor 'nonsense' is none"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(recorded: Command, words: tuple[str, ...], said: str) -> None:
    ended = recorded("runs", *words)
    assert ended.code == 2, ended
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_show_and_history_tell_them_now_and_then(recorded: Command) -> None:
    now = recorded("show", "r3", "--json").json()
    assert now["attributes"] == {"region": "eu", "zip": "01234", "even": False, "part": 3}
    assert recorded("show", "r3", "--at", "1", "--json").json()["attributes"] == {}
    assert recorded("show", "r3", "--at", "2", "--json").json()["attributes"].keys() == {"region", "zip", "even"}
    assert "\n  attributes  even=false region=eu zip=01234 part=3\n" in recorded("show", "r3").out
    assert 'odd="\\"" region="two words"' in recorded("show", "today").out
    history = recorded("history", "r3").out
    assert 'AttributesGiven   {"even":false,"region":"eu","zip":"01234"}' in history
    assert 'AttributesSet     set:attributes#1  {"part":3}' in history
    assert "even=true region=us zip=1234 part=4" in recorded("runs").out


def test_a_redacted_history_still_replays(recorded: Command) -> None:
    """What was given and set is left out of it, the names are kept."""
    ended = recorded("export", "r3", "--redact")
    assert ended.code == 0, ended
    assert "eu" not in ended.out.replace('"queue', "")
    (recorded.folder / "r3.jsonl").write_text(ended.out)
    history = load_history(recorded.folder / "r3.jsonl")
    assert_replays(history, sys.modules["searched_standing"].part)


def test_the_column_is_there_when_it_says_something(recorded: Command) -> None:
    assert "attributes" in recorded("runs").out.splitlines()[0]
