"""`holdfast gate` as a process: which runs break with changed code, where, and what to do; nothing else happens."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.cli.bar import Bar
from engine.cli.gate import Findings, progress
from engine.cli.output import Output
from eventstore import StreamQuery
from tests.cli.command import Command, Ended, collect, without_colours
from tests.cli.test_auditing import Turned

SHOP = Path(__file__).parent / "shop.py"
CHARGE = "    found.append(await charge(who))  # here\n"
QUOTE = "    found.append(await quote(who))\n"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 40 open runs of two workflows and their children, some of them paused, and 5 that have ended."""
    folder = tmp_path_factory.mktemp("gate")
    shutil.copy(SHOP, folder / "shop.py")
    asyncio.run(fill(folder, load(folder)))
    return folder


def load(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("gate_shop", folder / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate_shop"] = module
    spec.loader.exec_module(module)
    return module


async def fill(folder: Path, shop: Any) -> None:
    url = f"sqlite:///{folder}/holdfast.db?synchronous=NORMAL"
    async with Engine(url, workflows=[shop.order, shop.other]) as engine, asyncio.timeout(60):
        for n in range(10):
            await engine.start(shop.order(f"customer {n}"), id=f"order-{n}")
            await engine.start(shop.other(n), id=f"other-{n}")
        for n in range(5):
            run = await engine.start(shop.order("done", ends=True), id=f"done-{n}")
            await run.result()
        for n in range(10):
            await engine.run(f"order-{n}").pause() if n % 3 == 0 else None
        while True:
            heads = [await engine.store.head(f"run:order-{n}") for n in range(10)]
            if all(head.owner is None and head.version >= 8 + (n % 3 == 0) for n, head in enumerate(heads)):
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def shop(recorded: Path, tmp_path: Path) -> Command:
    """The command in a folder with the store and the code that wrote it."""
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    return Command(tmp_path)


def change(shop: Command, before: str = CHARGE, after: str = QUOTE) -> None:
    text = SHOP.read_text()
    assert text.count(before) == 1
    (shop.folder / "shop.py").write_text(text.replace(before, after))


def lines(ended: Ended) -> list[Any]:
    return [json.loads(line) for line in ended.out.splitlines()]


def test_the_code_that_wrote_them_fits(shop: Command) -> None:
    before = digest(shop)
    ended = shop("gate", "shop.py", "--closed", "3")
    assert ended.code == 0, ended
    assert "replayed 33 runs of sqlite:///holdfast.db with shop.py" in ended.out
    assert "3 of them ended" in ended.out
    assert "33 fit, 0 break" in ended.out
    assert digest(shop) == before, "the gate changed the store"


def digest(shop: Command) -> str:
    return hashlib.sha256((shop.folder / "holdfast.db").read_bytes()).hexdigest()


def test_changed_code_breaks_the_runs_that_are_past_it(shop: Command) -> None:
    change(shop)
    ended = shop("gate", "shop.py", "--closed", "100")
    assert ended.code == 4, ended
    assert "order: 15 runs break: order-0, order-1, order-2, order-3, order-4 and 10 more" in ended.out
    assert "history has" in ended.out
    assert "the code now asks for" in ended.out
    line = SHOP.read_text().splitlines().index(CHARGE.rstrip()) + 1
    assert 'charge("customer 0")' in ended.out
    assert 'quote("customer 0")' in ended.out
    assert ended.out.count(f"shop.py:{line}") == 2
    assert "durable.patched(...)" in ended.out
    assert "replayed 35 runs" in ended.out
    assert "20 fit, 15 break" in ended.out


def test_json_names_each_that_breaks_and_then_the_sums(shop: Command) -> None:
    change(shop)
    ended = shop("gate", "shop.py", "--json")
    assert ended.code == 4, ended
    *broken, sums = lines(ended)
    assert {each["run"] for each in broken} == {f"order-{n}" for n in range(10)}
    assert {each["status"] for each in broken} == {"running", "paused"}
    for each in broken:
        assert not each["fits"]
        assert each["workflow"] == "order"
        assert each["diagnosis"]["reason"] == "decisions"
        assert each["diagnosis"]["version"] == 4
    assert sums.pop("seconds") >= 0
    assert sums == {"replayed": 30, "closed": 0, "fit": 20, "break": 10, "ahead": 0, "not_in_target": {}}


def test_a_patch_mends_it(shop: Command) -> None:
    patched = "    found.append(await (quote(who) if durable.patched('quote') else charge(who)))\n"
    change(shop, CHARGE, patched)
    assert shop("gate", "shop.py", "--closed", "100").code == 0


@pytest.mark.parametrize("code", ["shop.py", "changed.py"])
def test_other_processes_find_the_same(shop: Command, code: str) -> None:
    change(shop)
    (shop.folder / "shop.py").rename(shop.folder / "changed.py")
    shutil.copy(SHOP, shop.folder / "shop.py")
    here, there = (shop("gate", code, "--processes", processes, "--closed", "2", "--json") for processes in ("1", "3"))
    assert (here.code, there.code) == ((0, 0) if code == "shop.py" else (4, 4)), there
    assert "loaded and run" in there.err
    found = [lines(each) for each in (here, there)]
    for each in found:
        del each[-1]["seconds"]
    assert sorted(map(json.dumps, found[0])) == sorted(map(json.dumps, found[1]))


def test_what_is_not_in_the_target_is_counted_and_named(shop: Command) -> None:
    ended = shop("gate", "shop.py:order")
    assert ended.code == 0, ended
    assert "20 fit, 0 break" in ended.out  # its children are known by its code
    assert "not replayed: 10 runs of workflow other, which shop.py:order does not have" in ended.out
    assert lines(shop("gate", "shop.py:other", "--json"))[-1]["not_in_target"] == {"order": 10, "part": 10}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_workflows_made_while_others_run_are_known_once_a_run_has_shown_them(shop: Command, processes: str) -> None:
    made = """
def _made():
    @workflow(name="part")
    async def made(who: str) -> int:
        return await go.receive()
    return made
"""
    text = SHOP.read_text()
    head, _, tail = text.partition("@workflow\nasync def part")
    text = head + made + "\n\n" + tail[tail.index("@workflow") :].replace("part(who)", "_made()(who)")
    (shop.folder / "shop.py").write_text(text)
    sums = lines(shop("gate", "shop.py", "--json", "--processes", processes))[-1]
    assert (sums["fit"], sums["break"], sums["not_in_target"]) == (30, 0, {})


async def start_later(folder: Path) -> None:
    shop = load(folder)
    async with Engine(f"sqlite:///{folder}/holdfast.db", workflows=[shop.order], only={"late-0", "late-1"}) as client:
        late = await client.start(shop.order("late"), id="late-0", delay=3600, singleton="k")
        behind = await client.start(shop.order("late"), id="late-1", singleton="k", on_conflict="queue")
        assert [await run.status() for run in (late, behind)] == ["queued", "queued"]


def test_runs_that_have_not_begun_are_judged_too(shop: Command) -> None:
    asyncio.run(start_later(shop.folder))
    before = digest(shop)
    sums = lines(shop("gate", "shop.py", "--json"))[-1]
    assert (sums["replayed"], sums["closed"], sums["fit"], sums["ahead"]) == (32, 0, 32, 0)
    change(shop, "def order(who: str, ends", "def order(who: str, day: int, ends")
    *broken, _ = lines(shop("gate", "shop.py", "--json"))
    late = {each["run"]: each for each in broken if each["status"] == "queued"}
    assert {*late} == {"late-0", "late-1"}
    assert "day" in late["late-0"]["diagnosis"]["message"]
    assert digest(shop) == before, "the gate changed the store"


LEDGER = """
from engine import Signal, workflow

go = Signal("go", int)


def made():
    @workflow(name="tally", version="1")
    async def first(n: int) -> int:
        return n if n == 9 else await go.receive()
    return first


@workflow
async def ledger(n: int) -> int:
    return await made()(n)


@workflow(name="tally", version="2")
async def tally(n: int) -> int:
    return await go.receive()
"""


async def keep_ledgers(folder: Path) -> None:
    (folder / "shop.py").write_text(LEDGER)
    code = load(folder)
    first = code.made()
    url = f"sqlite:///{folder}/holdfast.db?synchronous=NORMAL"
    async with Engine(url, workflows=[first, code.tally, code.ledger]) as engine, asyncio.timeout(60):
        await (await engine.start(first(9), id="done")).result()
        for n in range(2):
            await engine.start(first(n), id=f"old-{n}")
        for n in range(3):
            await engine.start(code.ledger(n), id=f"ledger-{n}")
        await engine.start(code.tally(1), id="new")
        children = StreamQuery(streams=tuple(f"run:ledger-{n}/tally#1" for n in range(3)))
        while [head.version > 0 for head in (await engine.store.find(children)).items] != [True] * 3:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("processes", ["1", "3"])
def test_runs_are_of_a_version_and_the_target_may_have_another(tmp_path: Path, processes: str) -> None:
    asyncio.run(keep_ledgers(tmp_path))
    ledger = Command(tmp_path)
    words = ("gate", "shop.py", "--closed", "5", "--processes", processes)
    sums = lines(ledger(*words, "--json"))[-1]  # a run of the ledger shows the version that is made while it runs
    assert (sums["replayed"], sums["closed"], sums["fit"], sums["not_in_target"]) == (10, 1, 10, {})
    (tmp_path / "shop.py").write_text(LEDGER.replace("await made()(n)", "n"))
    ended = ledger(*words)
    assert ended.code == 4, ended
    assert "  not replayed: 6 runs of workflow tally in version 1, which shop.py does not have" in ended.out
    assert lines(ledger(*words, "--json"))[-1]["not_in_target"] == {"tally in version 1": 6}


def test_what_a_crash_kept_from_being_written_or_is_new_is_said(shop: Command) -> None:
    change(
        shop,
        "    if not ends:\n",
        "    if not ends:\n        await asyncio.sleep(0)\n        marked = durable.patched('x')\n",
    )
    ended = shop("gate", "shop.py")
    assert ended.code == 0, ended  # the runs are at the place: they go the new way, and say so
    change(
        shop,
        "    return await go.receive()\n\n\n@workflow\nasync def order",
        "    durable.patched('y')\n    return await go.receive()\n\n\n@workflow\nasync def order",
    )
    ended = shop("gate", "shop.py")
    assert ended.code == 0, ended
    assert "10 of those that fit decide something new as soon as this code has them: " in ended.out


def test_a_run_that_kills_the_process_is_named(shop: Command) -> None:
    change(
        shop,
        CHARGE,
        "    if who == 'customer 7':\n        import os\n        os._exit(9)  # deterministic: a test\n" + CHARGE,
    )
    ended = shop("gate", "shop.py", "--processes", "2", "--json")
    assert ended.code == 4, ended
    (broken, sums) = lines(ended)
    assert (broken["run"], broken["diagnosis"]["reason"]) == ("order-7", "crashes")
    assert (sums["replayed"], sums["break"]) == (30, 1)


def test_a_turn_that_does_not_wait_is_a_break_like_others(shop: Command) -> None:
    change(shop, CHARGE, CHARGE + "    while who == 'customer 3':\n        await asyncio.sleep(0)\n")
    ended = shop("gate", "shop.py")
    assert ended.code == 4, ended
    assert "order: 1 run breaks: order-3" in ended.out
    assert "without waiting" in ended.out


def test_an_exception_in_the_code_is_a_decision_like_others(shop: Command) -> None:
    change(shop, CHARGE, "    raise ValueError(who)\n")
    ended = shop("gate", "shop.py")
    assert ended.code == 4, ended
    assert "raise ValueError" in ended.out, ended


def test_bad_input(shop: Command) -> None:
    ended = shop("gate", "shop.py", "--store", "sqlite:///none.db")
    assert ended.code == 3, ended
    assert "none.db" in ended.err
    assert not (shop.folder / "none.db").exists()
    assert shop("gate", "nowhere.py").code == 2
    assert shop("gate", "shop.py", "--processes", "0").code == 2
    change(shop, CHARGE, CHARGE + "    import random\n    random.random()\n")
    ended = shop("gate", "shop.py")
    assert ended.code == 2, ended
    assert "random.random()" in ended.err


def test_a_terminal_shows_how_far_it_is(shop: Command) -> None:
    change(shop)
    main, side = pty.openpty()
    started = shop.start("gate", "shop.py", fresh=True, stdout=side, stderr=side)
    os.close(side)
    seen = bytearray()
    reader = threading.Thread(target=collect, args=(main, seen))
    reader.start()
    ended = started.end()
    reader.join(10)
    os.close(main)
    text = without_colours(seen.decode())
    assert ended.code == 4, text
    assert re.search(r"replayed 30 runs \([\d,]+/s\), 10 break", text), text
    assert "20 fit, 10 break" in text
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h"), "the cursor is shown again"


def test_elsewhere_a_line_now_and_then_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Turned()
    findings = Findings()
    with Bar(Output(json=False), clock) as bar:
        for _ in range(24):
            findings.replayed += 500
            findings.broken += 1
            clock.time += 0.5
            bar.tell(findings.replayed, lambda rate: progress(findings, rate))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "replayed 5,000 runs (1,000/s), 10 break",
        "replayed 10,000 runs (1,000/s), 20 break",
    ]


def test_interrupted_it_leaves_no_process_behind(shop: Command) -> None:
    change(
        shop,
        CHARGE,
        CHARGE
        + "    open_ = __import__('time').time\n    while True:  # deterministic: a test\n        open_()  # deterministic: a test\n",
    )
    started = shop.start("gate", "shop.py", "--processes", "2", fresh=True)
    started.until(lambda: children_of(started.process.pid), "a process was begun")
    pids = children_of(started.process.pid)
    started.signal(signal.SIGINT)
    ended = started.end()
    assert ended.code == 130, ended
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(each) for each in task.read_text().split()]
    return found
