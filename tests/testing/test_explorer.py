"""The crash explorer: it finds what is planted, finds nothing in what is right, and says so in a way that helps."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import Happened, NotHappened, Signal, State, task, testing, workflow
from engine.errors import HoldfastError
from engine.testing import Bounds, Lab, explore
from engine.testing.schedules import Crash, Schedule, Swap, Told, parse
from tests.architecture.source import ROOT
from tests.runtime.slices import some
from tests.testing.shop import approve, charge, converted, order, parent, rate, ship


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("explorer_example", ROOT / "examples" / "explorer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = load_example()
HOUR = 3_600.0  # of real time: what is found on a slow machine is what is found on a quick one
SOME = Bounds(schedules=len(some(range(Bounds().schedules))), seconds=HOUR)
FOUND = {
    "counts twice": ("crash before commit 2", "return await deposit"),
    "reads a global": ("crash after commit 2", "await post_letter"),
    "order of answers": ("at choice 1 take option 2", "found.append(await quote(shop))"),
    "signal in time": ("at choice 1 take option 2", "await quote(what)"),
    "effect outside tasks": ("crash before commit 2", "length = await look_up(name)"),
}


@pytest.mark.parametrize("name", FOUND)
async def test_a_classical_mistake_is_found_and_its_twin_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that disturbs alone is tried by default, and some of what does together."""
    monkeypatch.setattr(EXAMPLE, "explore", partial(explore, bounds=SOME))
    wrong, right = await EXAMPLE.examine(name)
    schedule, line = FOUND[name]
    assert str(wrong.schedule) == schedule
    assert len(wrong.findings) == 1
    assert re.search(rf"at explorer.py:\d+  {re.escape(line)}", wrong.text())
    assert wrong.exit_code == 1
    with pytest.raises(AssertionError, match="to see it again"):
        wrong.raise_for_findings()
    right.raise_for_findings()
    assert right.exit_code == 0
    assert "nothing that makes a difference" in right.text()
    assert right.schedule is None
    assert (EXAMPLE.account, EXAMPLE.payments, EXAMPLE.letters) == ({"ann": 0}, {}, [])


async def test_what_was_found_can_be_seen_again() -> None:
    report = await explore(EXAMPLE.salary("ann"), outside=[EXAMPLE.account])
    assert (await report.replay()).result == "200"
    assert (await report.replay("undisturbed")).result == "100"
    again = await explore(EXAMPLE.salary("ann"), outside=[EXAMPLE.account], schedule=str(report.schedule))
    assert again.schedule == report.schedule
    assert again.played == 3
    assert (await explore(EXAMPLE.salary("ann"), outside=[EXAMPLE.account], schedule="undisturbed")).findings == ()


async def test_a_memo_that_is_lost_in_a_crash_makes_no_difference() -> None:
    """Its commits are crashed as all others: the second call then runs once more, which is a miss and no effect."""

    def prepare(lab: Lab) -> None:
        lab.fake(rate, returns=2)

    report = await explore(converted(10), prepare=prepare, bounds=Bounds(schedules=100))
    report.raise_for_findings()
    undisturbed = await report.replay("undisturbed")
    assert (undisturbed.result, undisturbed.effects) == ("40", [])


async def test_it_is_the_same_each_time() -> None:
    texts = {(await explore(EXAMPLE.invoice("ann"), bounds=SOME)).text() for _ in range(3)}
    assert len(texts) == 1


def faked(lab: Lab) -> None:
    lab.fake(charge, returns="paid")
    lab.fake(ship, outcomes=[ConnectionError("down"), "shipped"])


async def test_fakes_are_made_afresh_for_each_run_and_time_passes_when_nothing_else_can() -> None:
    seen: list[tuple[int, int, int]] = []
    report = await explore(
        order("ann"),
        signals=[approve.message(True)],
        prepare=faked,
        only_fakes=True,
        bounds=Bounds(schedules=60, seconds=HOUR),
        progress=lambda *state: seen.append(state),
    )
    report.raise_for_findings()
    assert report.outcome.result == '"paid, shipped"'
    assert report.outcome.states == {"phase": '"charged"'}
    assert report.outcome.effects == ["charge(customer='ann', cents=100)", "ship(what='ann')"]
    assert report.played == 62
    assert seen[-1] == (62, 60, 0)


async def test_bounds_leave_things_out() -> None:
    report = await explore(EXAMPLE.salary("ann"), outside=[EXAMPLE.account], bounds=Bounds(crashes=False))
    assert (report.played, report.findings) == (2, ())
    report = await explore(EXAMPLE.quotes(["a", "b"]), bounds=Bounds(orders=False, schedules=20))
    assert report.findings == ()


async def test_child_runs_are_disturbed_too() -> None:
    report = await explore(parent(["ann", "ben"]), prepare=faked, bounds=Bounds(schedules=60))
    report.raise_for_findings()
    assert report.outcome.result == '["not approved","not approved"]'
    report = await explore(adds_as_a_child(), outside=[sums], bounds=SOME)
    assert report.findings[0].differences[-1].instead == "{'all': 2}"


sums = {"all": 0}


@task
async def add_one() -> None:
    sums["all"] += 1


@workflow
async def adds() -> None:
    await add_one()


@workflow
async def adds_as_a_child() -> None:
    await adds()


ledger: list[str] = []


async def in_ledger() -> Happened[str] | NotHappened:
    return Happened("booked") if ledger else NotHappened()


def in_ledger_in_a_thread() -> Happened[str] | NotHappened:
    return Happened("booked") if ledger else NotHappened()


@task(reconcile=in_ledger)
async def book() -> str:
    ledger.append("booked")
    return "booked"


@task(reconcile=in_ledger_in_a_thread)
def book_in_a_thread() -> str:
    ledger.append("booked")
    return "booked"


@workflow
async def booking() -> list[str]:
    return [await book()]


@workflow
async def booking_in_a_thread() -> list[str]:
    return [await book_in_a_thread()]


@pytest.mark.parametrize("call", [booking, booking_in_a_thread])
async def test_who_asks_the_outside_first_has_no_findings(call: Any) -> None:
    report = await explore(call(), outside=[ledger], bounds=Bounds(schedules=100))
    report.raise_for_findings()
    assert report.outcome.effects == ["booked"]


count = Signal("count", int)


@task
async def note(number: int) -> int:
    return number


@workflow
async def counts() -> int:
    """Takes every message for a new one."""
    await note(0)
    total = 0
    while count.waiting():
        total += await count.receive()
    return total


async def test_a_message_that_is_sent_twice_is_two_unless_it_has_an_id() -> None:
    early = Bounds(orders=False, crashes=False)
    report = await explore(counts(), signals=[count.message(5)], bounds=early)
    assert str(report.schedule) == "signal 1 twice"
    assert report.findings[0].differences[0].instead == "completed 10"
    report = await explore(counts(), signals=[count.message(5, id="five")], bounds=early)
    assert report.findings == ()


@workflow
async def collects() -> list[int]:
    await note(0)
    return [await count.receive(), await count.receive()]


async def test_signals_keep_their_order() -> None:
    report = await explore(collects(), signals=[count.message(1, id="one"), count.message(2, id="two")], bounds=SOME)
    report.raise_for_findings()
    assert report.outcome.result == "[1,2]"


phase = State("phase", str)


@workflow
async def told_by_branches() -> int:
    """What it returns is the same, what it publishes is not."""

    async def tell(number: int) -> int:
        found = await note(number)
        await phase.publish(f"{found} is done")
        return found

    return sum(await asyncio.gather(tell(1), tell(2)))


async def test_what_is_published_counts_too() -> None:
    report = await explore(told_by_branches(), bounds=SOME)
    (finding,) = report.findings
    assert str(finding.schedule) == "at choice 1 take option 2"
    assert [difference.what for difference in finding.differences] == ["state 'phase'"]


memo: dict[int, int] = {}


@task
async def remember(number: int) -> int:
    memo[number] = number
    return number


@workflow
async def needs_two() -> int:
    """Goes wrong only when the second branch ends first, and the process dies later on."""
    first, second = asyncio.create_task(remember(1)), asyncio.create_task(remember(2))
    done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    result = await remember(3)
    await asyncio.gather(first, second)
    await note(4)
    return memo.get(3, 0) if second in done else result


async def test_what_needs_two_things_is_found_and_made_small() -> None:
    report = await explore(needs_two(), bounds=Bounds(schedules=600, seconds=HOUR))
    (finding,) = report.findings
    assert finding.schedule.kinds == {"crash", "swap"}
    assert len(finding.schedule.parts) == 2
    assert finding.differences[0].instead == "completed 0"
    for part in finding.schedule.parts:
        assert (await report.replay(finding.schedule.without(part))).result == "3"


@workflow
async def unlike_each_time() -> float:
    return await roll()


@task
async def roll() -> float:
    return random.random()


@workflow
async def waits() -> bool:
    return await approve.receive()


async def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(testing.NotRepeatable, match="look for chance or clocks in tasks"):
        await explore(unlike_each_time())
    report = await explore(waits(), bounds=Bounds(schedules=5))
    assert (report.outcome.status, report.findings) == ("stuck", ())
    with pytest.raises(HoldfastError, match="takes a call of a workflow"):
        await explore(roll())
    with pytest.raises(testing.UnfakedTask):
        await explore(unlike_each_time(), only_fakes=True)


SCHEDULES: Sequence[Any] = [
    Schedule(),
    Schedule((Crash(3, "before"),)),
    Schedule((Crash(12, "after", "store call"), Swap(2, 3), Told(1, "twice"), Told(2, "with the start"))),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_is_text_and_back(schedule: Schedule) -> None:
    assert parse(str(schedule)) == schedule


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(HoldfastError, match="no part of a schedule"):
        parse("crash sometime")


def test_the_example_says_what_it_found(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "explorer.py"), "counts twice"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "crash before commit 2" in outcome.stdout
