"""The comparison with the peers, without the peers: what is right, the tables, and how processes are killed and resumed."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.peers import children, peers
from benchmarks.peers.__main__ import main, together
from benchmarks.peers.crashes import crash
from benchmarks.peers.judge import RESULTS, effects_of, judge, ran_again
from benchmarks.peers.speed import one
from benchmarks.peers.table import counts, crash_cell, crash_table, ratios, speed_cell, speed_table
from tests.architecture.source import ROOT

FOLDER = ROOT / "benchmarks" / "peers"
BRANCHES = "begin step a\nend step a\nbegin step b\nend step b\nbegin step a.step\n"
FAKE = """
import os, sys, time, json
from pathlib import Path
folder, arguments = Path(sys.argv[2]), json.loads(sys.argv[3])
def note(line):
    with open(os.environ["PEERS_EFFECTS"], "a") as file:
        file.write(line + "\\n")
print("a library says hello", flush=True)
if sys.argv[1] == "program":
    begun = folder / "begun"
    again = begun.exists()
    begun.touch()
    print(json.dumps({"ready": True}), flush=True)
    note("begin race x")
    if again and arguments["name"] == "raises":
        sys.exit("it cannot go on")
    if not again and "undisturbed" not in folder.name:
        time.sleep(60)
    note("begin follow x.race")
    if again and arguments["name"] == "forgets":
        note("begin race x")
    note("begin close x.race.follow")
    print(json.dumps({"result": "x.race.follow.close"}), flush=True)
elif sys.argv[1] == "stopped":
    if os.environ["PEERS_STOP_AT"].endswith("say"):
        print(json.dumps({"reached": time.time()}), flush=True)
else:
    print(json.dumps({"seconds": 0.5}), flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of a peer that is not there."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(children, "PROGRAMS", tmp_path)
    return tmp_path


def a_peer(name: str) -> peers.Peer:
    return peers.Peer(
        name="holdfast",
        title="A peer",
        environment="holdfast",
        program="fake.py",
        sizes={"steps": 10, "many": 4, "fan_out": 10, "resume": 6},
        durability="none",
        crash_programs={"first_completed": name},
    )


def test_a_task_ran_again_only_if_its_value_had_been_passed_on() -> None:
    assert ran_again(effects_of(BRANCHES)) == ()
    assert ran_again(effects_of(BRANCHES + "begin step b\n")) == ()  # its value was not passed on yet
    assert ran_again(effects_of(BRANCHES + "begin step a\nbegin step a.step\n")) == ("step(a)",)
    joined = "begin b3 b\nbegin join a|b.b3\nbegin b3 b\n"
    assert ran_again(effects_of(joined)) == ("b3(b)",)


@pytest.mark.parametrize("program", peers.PROGRAMS)
def test_what_nobody_killed_is_right(program: str) -> None:
    for result in RESULTS[program]:
        value = result.rpartition(".")[0]
        (*_, last) = result.split(".")
        assert judge(program, effects_of(f"begin {last} {value}\n"), result=result, error=None).outcome == "right"


def test_a_result_of_another_branch_is_wrong() -> None:
    swapped = "b.b1.b2.b3|a.a1.a2.a3.join"
    assert judge("different", [], result=swapped, error=None).outcome == "wrong"
    mixed = "a.step.step|b.step.step.step.join"
    assert judge("same_named", [], result=mixed, error=None).outcome == "wrong"


def test_acting_on_two_choices_is_wrong() -> None:
    effects = effects_of("begin follow x.race\nbegin follow y.race\nbegin close y.race.follow\n")
    verdict = judge("first_completed", effects, result="y.race.follow.close", error=None)
    assert verdict.outcome == "wrong"
    assert "follow acted on x.race" in verdict.why
    late = effects_of("begin follow v.race\nbegin follow late\n")
    assert judge("timeout", late, result="late.follow.close", error=None).outcome == "wrong"


def test_no_result_is_a_failure_or_no_end() -> None:
    assert judge("timeout", [], result=None, error="it raised").outcome == "failed"
    assert judge("timeout", [], result=None, error=None).outcome == "never"


def test_lines_of_a_program_are_told_from_what_a_library_prints() -> None:
    assert children.parsed(b'{"result": "a"}\n') == {"result": "a"}
    for other in (b"hello\n", b'["result"]\n', b"", b"\xff\xfe\n", b"{\n", b"1\n"):
        assert children.parsed(other) is None


def test_a_moment_that_is_over_at_once_is_over(fake: Path) -> None:
    """Kills come at a random moment, the first microsecond among them.

    Of twenty thousand looks at least one waited for ever, mostly, as long as a `SimpleQueue` held what was said.
    """
    arguments, env = {"name": "resumes"}, {"PEERS_EFFECTS": str(fake / "effects")}
    with children.Child(Path(sys.executable), "fake.py", "program", fake, arguments, env) as child:
        for _ in range(20_000):
            child._lines.put({"heard": 1})
            assert child.said("heard", timeout=60) == 1
            assert child.said("result", timeout=1e-9) is None


@pytest.mark.parametrize(
    ("name", "outcome", "again"), [("resumes", "right", 0), ("forgets", "right", 2), ("raises", "failed", 0)]
)
def test_runs_are_killed_resumed_and_judged(fake: Path, name: str, outcome: str, again: int) -> None:
    found = crash(a_peer(name), "first_completed", Path(sys.executable), {}, fake, runs=2, jobs=2, seed=1)
    assert found.undisturbed_right
    assert [verdict.outcome for verdict in found.verdicts] == [outcome] * 2
    assert found.again == again
    assert found.missed == 0
    if outcome == "failed":
        assert found.verdicts[0].why == "it cannot go on"


def test_speeds_are_rates_and_resuming_is_seconds(fake: Path) -> None:
    speed = {
        workload: one(a_peer("resumes"), workload, Path(sys.executable), {}, fake, size=10)
        for workload in ("many", "resume")
    }
    assert speed["many"] == 20.0
    assert speed["resume"] is not None
    assert 0 < speed["resume"] < 60


def test_ratios_are_of_the_same_round_and_more_is_faster() -> None:
    assert ratios([10, 30, None], [100, 100, 100], seconds=False) == [0.1, 0.3]
    assert ratios([10, 30], [1, 1], seconds=True) == [0.1, 1 / 30]
    assert speed_cell([10.0, 30.0, 20.0], [100.0, 100.0, 100.0], "runs/s") == "0.2 (20 runs/s)"
    assert speed_cell([2.0], [1.0], "s") == "0.5 (2 s)"
    assert speed_cell([None], [1.0], "s") == "did not end"


def test_a_table_has_a_column_for_who_was_measured() -> None:
    measured = {
        "steps": {"holdfast": [100.0], "by hand": [250.0], "dbos": [50.0]},
        "many": {},
        "fan_out": {},
        "resume": {},
    }
    head, _, row = speed_table(measured).splitlines()
    assert head == "|  | by hand | Holdfast | DBOS |"
    assert row.endswith("| 2.5 (250 steps/s) | 1 (100 steps/s) | 0.5 (50 steps/s) |")


def test_what_is_not_claimed_says_why_once() -> None:
    right = {"outcome": "right", "ran_again": []}
    again = {"outcome": "wrong", "ran_again": ["a1(a)"]}
    assert counts({"verdicts": [right, right]}) == "2 right"
    assert counts({"verdicts": [again, right]}) == "1 right, 1 wrong, 1 again"
    reasons: list[str] = []
    assert crash_cell("dagster", "timeout", None, reasons) == "not claimed [1]"
    assert crash_cell("dbos_plain", "timeout", {"verdicts": [again]}, reasons).startswith("not claimed [2]: 0 right")
    assert crash_cell("dbos_plain", "first_completed", {"verdicts": [right]}, reasons).startswith("not claimed [2]")
    crashes = {program: {name: {"verdicts": [right]} for name in peers.PEERS} for program in peers.PROGRAMS}
    table = crash_table(crashes)
    for peer in peers.PEERS.values():
        for reason in peer.not_claimed.values():
            assert table.count(reason) == 1


def test_results_are_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = {"outcome": "right", "ran_again": [], "why": ""}
    results = {
        "date": "2026-01-01",
        "machine": "2 processors",
        "load": [0.1, 0.3, 0.2],
        "versions": {"holdfast": "holdfast 0.1.0"},
        "deadline_seconds": 30,
        "speed": {"steps": {"holdfast": [100.0, 110.0]}, "many": {}, "fan_out": {}, "resume": {}},
        "crashes": {"different": {"holdfast": {"verdicts": [verdict] * 3}}},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    main(["--show", str(path)])
    shown = capsys.readouterr().out
    for expected in (
        "2026-01-01",
        "load 0.1 to 0.3",
        "* Holdfast: holdfast 0.1.0",
        "median of 2 rounds",
        "Of 3 runs",
        "within 30 s",
        "3 right",
    ):
        assert expected in shown


def test_every_peer_says_what_is_fsynced_and_has_its_programs() -> None:
    for peer in peers.PEERS.values():
        assert peer.durability
        assert set(peer.crash_programs) | set(peer.not_claimed) >= (
            set(peers.PROGRAMS) if peer.crash_programs else set()
        )
        source = (FOLDER / "programs" / peer.program).read_text(encoding="utf-8")
        defined = {node.name for node in ast.walk(ast.parse(source)) if hasattr(node, "name")}
        assert set(peer.crash_programs.values()) <= defined
    assert set(peers.REQUIREMENTS) == set(peers.SHOWN) == {peer.environment for peer in peers.PEERS.values()}


def test_the_page_names_every_option_and_peer() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    source = (FOLDER / "__main__.py").read_text(encoding="utf-8")
    for option in re.findall(r'add\("(--\w+)"', source):
        assert f"`{option}" in page
    for peer in peers.PEERS.values():
        assert peer.title in page


def test_a_file_of_results_is_gone_on_with_unless_it_is_of_other_versions() -> None:
    earlier = {
        "versions": {"dbos": "dbos 1"},
        "load": [1.0],
        "speed": {"steps": {}},
        "crashes": {"timeout": {}},
        "date": "a",
    }
    now = {"versions": {"holdfast": "holdfast 1"}, "load": [], "speed": {}, "crashes": {}, "date": "b"}
    both = together(earlier, now)
    assert both["versions"] == {"dbos": "dbos 1", "holdfast": "holdfast 1"}
    assert (both["speed"], both["crashes"], both["date"]) == ({"steps": {}}, {"timeout": {}}, "b")
    with pytest.raises(SystemExit, match="are of dbos 1, and what would be measured is dbos 2"):
        together(earlier, {**now, "versions": {"dbos": "dbos 2"}})
