"""The trials by themselves: calls are counted, points are hit, and what must not be is noticed."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.kills import lives
from tests.kills.lives import Broken, Outcome, count_calls, trial
from tests.kills.points import POINTS, Hit, Point, count

TRACE = """\
12 openat(AT_FDCWD, "/d/runs.db", O_RDWR|O_CREAT) = 3</d/runs.db>
12 pwrite64(3</d/runs.db>, "x", 1, 0) = 1
13 pwrite64(4</d/runs.db-wal>, "x", 1, 0) = 1
13 pwrite64(4</d/runs.db-wal>, "x", 1, 1) = 1
13 fdatasync(4</d/runs.db-wal>)        = 0
12 pwrite64(9</d/else>, "x", 1, 0) = 1
12 unlink("/d/runs.db-leases/7") = 0
"""


def test_calls_are_counted_by_the_file_that_they_are_on(tmp_path: Path) -> None:
    out = tmp_path / "trace"
    out.write_text(TRACE)
    assert count(out, Path("/d/runs.db")) == Counter(
        {
            ("pwrite64", "wal"): 2,
            ("openat", "database"): 1,
            ("pwrite64", "database"): 1,
            ("fdatasync", "wal"): 1,
            ("unlink", "lease"): 1,
        }
    )


def test_every_call_of_a_point_can_be_chosen(tmp_path: Path) -> None:
    point = Point("pwrite64", "wal", "EIO")
    numbers = {Hit.chosen(Random(seed), Counter({("pwrite64", "wal"): 3}), (point,)).number for seed in range(50)}
    assert numbers == {1, 2, 3}
    command = Hit(point, 2).command(tmp_path / "runs.db", tmp_path / "out")
    assert f"{tmp_path}/runs.db-wal" in command
    assert command[-1] == "inject=pwrite64:error=EIO:when=2+"
    assert Hit(Point("unlink", "wal"), 1).command(tmp_path, tmp_path)[-1] == "inject=unlink:signal=KILL:when=1"
    assert len({each.name for each in POINTS}) == len(POINTS)


def test_a_trial_kills_and_all_is_well(tmp_path: Path) -> None:
    if shutil.which("strace") is None:  # then the kills come from outside, which needs none
        calls: Counter[tuple[str, str]] = Counter()
        made = lives._Trial(tmp_path, Random(1), calls, Outcome(1))
        made.at_random()
        made.ended_well(made.end(made.begin([])))
        return
    calls = count_calls(tmp_path)
    assert calls["fdatasync", "wal"] > 2
    outcome = trial(3, calls)
    assert outcome.broken == ""
    assert outcome.kills + outcome.failures + outcome.stops >= 1
    assert outcome.checks > 50


@pytest.mark.parametrize("what", ["the end", "the table", "a task"])
async def test_what_must_not_be_is_noticed(what: str, tmp_path: Path) -> None:
    made = lives._Trial(tmp_path, Random(1), Counter(), Outcome(1))
    ended = made.end(made.begin([]))
    made.ended_well(ended)
    await made.nothing_ran_again()
    if what == "the end":
        with pytest.raises(Broken, match="exit 1"):
            made.ended_well((1, ended[1], "Traceback"))
    elif what == "the table":
        (made.outside / "table").write_text("[1, 2, 3]")
        with pytest.raises(Broken, match="not what was extracted"):
            await made.all_is_well()
    else:
        effects = made.outside / "effects"
        effects.write_text(effects.read_text() + effects.read_text().splitlines()[0] + "\n")
        with pytest.raises(Broken, match="ran again"):
            await made.nothing_ran_again()
