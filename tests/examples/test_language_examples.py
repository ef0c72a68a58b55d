"""The examples of the workflow language, each run as a reader would; and the pages that show lines of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.source import ROOT
from tests.runtime.slices import some

ID = "[0-9a-f]{12}"
OUTPUTS = {
    "assets": r"""
        stale now: \[\]
        revenue: {'2026-01': 10.0, '2026-02': 22.5, '2026-03': 40.0}
        orders of February: published 1 below 5
        made from: orders, raw_orders
    """,
    "signals": f"""
        refused here and now: the value of signal 'decision' is annotated bool, but the value does not fit: .*
        the engine is closed, the run waits
        paid 120 euros; remarks: train to Hamburg, and back
        run 'expense-{ID}' has ended: it takes no more messages
    """,
    "requests": f"""
        total: 6
        total: 16
        the same request again, answered once: 16
        refused: at least one
        failed: KeyError\\('crown'\\)
        16 euros, please
        result: 16
        run 'basket-{ID}' has ended: it takes no more messages
    """,
    "state": r"""
        report: flights: 7000 rows
        report: planes: 6000 rows
        phase: waiting for a name
        report again: \['flights: 7000 rows', 'planes: 6000 rows'\]
        query: {'flights': 7000, 'planes': 6000}
        result: 13000
        phase: published as flights-2013
    """,
    "tokens": """
        the bank reads: 80 euros
        'no-such-token' is not a completion token
        the result of task 'payment' is annotated str, but the value does not fit: .*
        sent, receipt 4711
    """,
    "memos": f"""
          the bank is asked for USD
        100 USD: 92.00 euros
        250 USD: 230.00 euros
          the bank is asked for CHF
        10 CHF: 10.50 euros
          an index is made by ann
        words: 2
        words: 2
        another process, later: 27.60 euros
          0 attempts, reused from run invoice-{ID}
        forgotten: 1
          the bank is asked for USD
        asked again: 27.60 euros
          the bank is asked for USD
          the bank is asked for USD
        exactly: 27.60 euros, 27.60 euros
    """,
    "collatz": r"""
        part 1: 13255 takes 275 steps
        part 2: 26623 takes 307 steps, killed once, and went on where it was
        part 3: 35655 takes 323 steps
        part 4: 52527 takes 339 steps
        the process that ran task 'search' was killed by signal 9 \(SIGKILL\); the system does that when memory runs out
    """,
    "changing": r"""
        gate of careless: the code decides otherwise than it did
        gate of tuesday: fits
        careless: old is suspended
        tuesday: old went on by itself: \['reserved a lamp'\]
        friday: new went the new way: \['checked a desk', 'reserved a desk'\]
        first: reserved a lamp, on the first version
        second: reserved a desk, on the second
    """,
    "limits": r"""
        bob is done long before ann: True; at most [2-8] at once
        70 orders
        mail: 4 in 0\.5 s
        task/look_up: 100 in 60 s
        warehouse: 8 at once the night shift has gone home
    """,
    "searching": r"""
        bed is in Oslo
        on the road: customer of the wardrobe 12\.0 kg
        on the road: customer of the lamp 6\.0 kg
        delivered: 1
        deliver awaits signal arrived in place = await arrived\.receive\(\) {'parcel': "'lamp'", .*'kilograms': '6\.0'}
    """,
    "starting": r"""
        the reminders are queued and queued
        ann, your table is waiting
        cancelled: bob has called
        refused: True
        attached: True
        queued: queued True
        replaced: True
        replaced: True
        the import of customer-7, done
        report\.txt is indexed: final
        the first of them: cancelled
    """,
    "audit": r"""
        sealed \d+ events of example\.com/payments
        proven: version 3 of the run is in the log of example\.com/payments
        the log: by its chains True, against the seal True
        the copy: by its chains True, against the seal False
            seal: against the seal of example\.com/payments at size .*: the first .* are not those that were sealed
    """,
    "moving": r"""
          reserved 120 euros
        here: paused, 1 run in travel\.holdfast
        the file is whole: True
        imported 1 run; again: 0
        there: reservation of 120 euros, approved
    """,
    "keeping": r"""
        taken away: \d+ events, \d+ values
        forgotten: \d+ values of one order
        the prices are pruned
        its id stays taken
        verified: True, against the seal True
    """,
    "children": r"""
        34350 rows, heard of \[10, 20, 30\]
        31 children, one of them: /one~1/harvest_page#1
        RunFailedError - run '\.\.\.' failed with .*
        RunFailedError - run '\.\.\./thirteen' failed with LookupError: page 13 is missing
        LookupError - page 13 is missing
    """,
    "cancellation": r"""
        cancel: the workflow may clean up
            cancelled: turning back
            the van is parked
            RunCancelledError - run '\.\.\.' was cancelled: wrong address
        cancel during a shielded section: it takes effect behind it
            box 1 of 2
            box 2 of 2
            RunCancelledError
        deadline: absolute, whatever restarts meanwhile
            cancelled: turning back
            the van is parked
            run out of time
        pause: nothing begins, what arrives is kept
            paused
            box 1 of 1
            nobody gets here when it was cancelled meanwhile
            unloaded
        terminate: ended without its code
            RunTerminatedError - run '\.\.\.' was terminated: the van is gone
    """,
    "saga": r"""
          booked flight
          booked hotel
          unbooked hotel-1
        -- the engine is gone, and comes back --
          unbooked flight-1
        not booked: no car left
          booked flight
          booked hotel
        \['flight-1', 'hotel-1'\]
    """,
    "repair": r"""
            extract\(1\)
            load\(\[1, 2\]\)
        failed: run '\.\.\.' failed with ConnectionError: the warehouse is down
        what if load had returned 30\?
            failed -> "loaded 30 from 2 rows"
        reopen: the failed task is tried anew, what was completed stays
            load\(\[1, 2\]\)
            loaded 3 from 2 rows
            run '\.\.\.' has completed: there is nothing to go on with; .*
        rerun: a new run, from the start, with the same arguments
            extract\(1\)
            load\(\[1, 2\]\)
            loaded 3 from 2 rows
            facts and decisions that differ: 0
        fork: a new run that begins with what this one has lived through
            load\(\[7, 8, 9\]\)
            loaded 24 from 3 rows
            they part at TaskCompleted b'\[1,2\]' b'\[7,8,9\]'
    """,
    "long_lives": """
        total 31125, in epoch 2
        most of a year passes; nothing waits in memory, there is no process
        renewed until 01 January 2028
        expired on 01 January 2028
        and the meter is still there: running
    """,
}
"""What each prints, as patterns."""

OWN_CODE = {"history.md", "determinism.md"}
"""Pages whose Python is theirs: one is executed by tests/eventstore/test_digest.py, one shows what is refused."""


def run_example(name: str, *arguments: str, folder: Path) -> str:
    outcome = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return outcome.stdout


def assert_said(name: str, said: str) -> None:
    lines, expected = said.splitlines(), textwrap.dedent(OUTPUTS[name]).strip("\n").rstrip().splitlines()
    indent = min((len(each) - len(each.lstrip()) for each in expected), default=0)
    for line, pattern in zip(lines, [each[indent:] for each in expected], strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


AGAIN = some(list(OUTPUTS), of=4)
"""Run a second time on the file that they left."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_example_says_what_it_does_also_again_on_the_same_file(name: str, tmp_path: Path) -> None:
    for _ in range(2 if name in AGAIN else 1):
        assert_said(name, run_example(name, "runs.db", folder=tmp_path))
    assert (tmp_path / "runs.db").exists()


def test_an_example_without_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    assert_said("tokens", run_example("tokens", folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


# -- what the pages show --------------------------------------------------------------------------------------------------


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def pieces(block: str) -> list[list[str]]:
    """A block, cut where a line of dots stands for what was left out."""
    return [found for piece in re.split(r"^\s*\.\.\.\n", block, flags=re.M) if (found := lines_of(piece))]


def lines_of(text: str) -> list[str]:
    """Without empty lines: the formatter has its own mind about them on pages."""
    return [line.rstrip() for line in textwrap.dedent(text).splitlines() if line.strip()]


@cache
def sources() -> list[list[str]]:
    files = [*sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
    return [lines_of(file.read_text(encoding="utf-8")) for file in files]


def is_quoted(piece: list[str], files: list[list[str]]) -> bool:
    """Whether the lines stand somewhere in a file, one behind the other, at any depth of indentation."""
    for lines in files:
        for start, line in enumerate(lines):
            if line.strip() == piece[0].strip():
                if lines_of("\n".join(lines[start : start + len(piece)])) == piece:
                    return True
    return False


PAGES = [
    page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in OWN_CODE and blocks(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_stands_in_an_example_or_a_test(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        for piece in pieces(block):
            assert is_quoted(piece, sources()), "\n".join(piece)


def test_every_example_is_shown_on_a_page() -> None:
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in OUTPUTS if f"../examples/{name}.py" not in shown] == []


def test_a_line_that_was_made_up_is_noticed() -> None:
    files = [["def f():", "    if a:", "        b()", "        c()"]]
    assert is_quoted(["if a:", "    b()"], files)
    assert is_quoted(["b()", "c()"], files)
    assert not is_quoted(["if a:", "b()"], files)
    assert not is_quoted(["b()", "d()"], files)
    assert pieces("a\n...\n    b\n") == [["a"], ["b"]]
