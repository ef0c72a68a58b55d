"""`plan`, `materialize` and `assets` as processes: what is shown, JSON, kill -9, a terminal, wrong words."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.cli.settings import Settings
from tests.cli.command import Command, collect, without_colours

MADE = ["fruits[a]", "fruits[b]", "fruits[c]", "harvest", "plants[a]", "plants[b]", "plants[c]", "seeds", "umbrella"]


@pytest.fixture
def garden(holdfast: Command) -> Command:
    shutil.copy(Path(__file__).parent / "garden.py", holdfast.folder / "garden.py")
    (holdfast.folder / "pyproject.toml").write_text('[tool.holdfast]\ndefinitions = "garden.py:garden"\n')
    return holdfast


def versions(garden: Command) -> dict[str, Any]:
    """What stands in the catalog, without times and runs."""
    found = garden("assets", "--json").json()["assets"]
    return {
        each["asset"]: sorted((one["partition"], one["data_version"], one["provenance"]) for one in each["history"])
        for each in found
    }


def test_a_plan_says_what_and_why_and_changes_nothing(garden: Command) -> None:
    ended = garden("plan", fresh=True)
    assert ended.code == 0, ended
    assert ended.out.startswith("plan: 9 steps to make 5 assets, 1 external asset to observe\n")
    assert re.search(r"^  beds +plants +3 +missing, seeds is made first +a\.\.c$", ended.out, re.MULTILINE), ended
    assert not list(garden.folder.glob("holdfast.db*")), "a command that looks makes no store"
    document = garden("plan", "garden.py", "--select", "+plants", "--partitions", "b", "--json").json()
    assert [(each["asset"], each["partitions"], each["count"]) for each in document["steps"]] == [
        ("seeds", "", 1),
        ("plants", "b", 1),
    ]
    blocked = garden("plan", "--select", "harvest")
    assert "harvest is blocked: nothing was made yet of fruits" in blocked.out, blocked
    assert garden("materialize", "--select", "harvest").code == 1


def test_what_is_stale_is_made_and_then_nothing(garden: Command) -> None:
    ended = garden("materialize", "--select", "+harvest", "--reason", "first", fresh=True)
    assert ended.code == 0, ended
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert any(re.fullmatch(r"materialize: new run materialize-\w{6}, 8 steps", line) for line in lines), ended
    assert re.search(r"^\[.{8}\] published 8/8  harvest  \d+ B, in .*$", ended.out, re.MULTILINE), ended
    assert re.search(r"^  plants +3 .* 6$", ended.out, re.MULTILINE), "checks are counted"
    assert not re.search(r"[ \t]$", ended.out, re.MULTILINE), "no line ends in spaces"
    again = garden("materialize", "--select", "+harvest")
    assert (again.code, again.out) == (0, "nothing to do: 8 partitions of 4 assets are up to date\n"), again
    assert garden("materialize", "--select", "+harvest", "--json").json()["status"] == "nothing to do"
    assert sorted(garden.effects()) == [each for each in MADE if each != "umbrella"]
    assert len(garden.inside("runs", "--json").json()) == 1, "nothing to do is no run"


def test_failures_skips_and_warnings_are_told_with_what_did_it(garden: Command) -> None:
    (garden.folder / "broken").write_text("a")
    (garden.folder / "slugs").touch()
    (garden.folder / "more").touch()
    ended = garden("materialize", "--select", "+harvest")
    (garden.folder / "slugs").write_text("many")
    (garden.folder / "more").write_text("yes")
    assert ended.code == 1, ended
    assert "✘ plants[a] failed: ValueError: frost in bed a" in ended.out
    assert "⊘ fruits[a], harvest skipped because of plants[a]" in ended.out
    ended = garden("materialize", "--select", "+harvest", "--force")
    assert ended.code == 1, ended
    assert "✘ plants[c] failed: checks did not pass: alive (eaten)" in ended.out
    assert '      {"by":"slugs","plant":3}' in ended.out
    assert "! plants[b]: published with warnings\n    check small (warning): did not pass" in ended.out
    document = garden("materialize", "--select", "+harvest", "--json").json()
    assert document["status"] == "failed"
    assert {(each["asset"], each["partition"]) for each in document["failed"]} == {("plants", "a"), ("plants", "c")}
    assert document["steps"]["skipped"] == 3


def test_kill_9_and_the_same_command_again_makes_the_same_versions(garden: Command, tmp_path_factory: Any) -> None:
    undisturbed = Command(tmp_path_factory.mktemp("undisturbed"))
    for name in ("garden.py", "pyproject.toml"):
        shutil.copy(garden.folder / name, undisturbed.folder)
    assert undisturbed("materialize").code == 0
    (garden.folder / "held").write_text("b")
    started = garden.start("materialize", fresh=True)
    started.until(lambda: {"plants[a]", "plants[b]", "plants[c]"} <= set(garden.effects()), "plants were begun")
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    (garden.folder / "held").unlink()
    ended = garden("materialize")
    assert ended.code == 0, ended
    assert "goes on with what was planned at" in ended.out
    assert re.search(r"of 10 steps had ended before, and were not made again", ended.out), ended
    assert versions(garden) == versions(undisturbed)
    assert sorted(set(garden.effects())) == MADE
    assert garden.effects().count("seeds") == 1, "what was published is not made again"
    assert len(garden.inside("runs", "--json").json()) == 1


def test_ctrl_c_leaves_what_goes_on_and_an_id_attaches(garden: Command) -> None:
    (garden.folder / "held").write_text("b")
    started = garden.start("materialize", "--select", "+plants", "--id", "m1", "--grace", "0.1")
    started.until(lambda: "plants[b]" in garden.effects(), "the held one was begun")
    second = garden.start("materialize", "--id", "m1")
    second.wait_for("materialize: run m1")
    other = garden("materialize", "--select", "seeds", "--id", "m1")
    assert (other.code, "run m1 was asked for something else" in other.err) == (2, True), other
    started.signal(signal.SIGINT)
    ended = started.end()
    assert ended.code == 130, ended
    assert "    holdfast materialize --select +plants\n" in ended.out
    (garden.folder / "held").unlink()
    attached = second.end()
    assert attached.code == 0, "it has taken over"
    assert re.search(r"published 4/4", attached.out), attached
    document = garden("materialize", "--id", "m1", "--json").json()
    assert (document["run"], document["status"], document["steps"]["ended_before"]) == ("m1", "completed", 4)


def test_a_step_that_another_run_makes_says_so(garden: Command) -> None:
    (garden.folder / "held").write_text("b")
    started = garden.start("materialize", "--select", "+plants", "--id", "m1")
    started.until(lambda: "plants[b]" in garden.effects(), "the held one was begun")
    second = garden.start("materialize", "--select", "plants", "--partitions", "b", "--id", "m2")
    second.wait_for("plants[b] waits for run m1, which began to make it and has not ended")
    (garden.folder / "held").unlink()
    assert started.end().code == 0
    assert second.end().code == 0
    assert garden.effects().count("plants[b]") == 1, "no asset is made twice of the same"


def test_external_assets_are_observed_and_what_they_change_is_made(garden: Command) -> None:
    first = garden("materialize", "--select", "weather+")
    assert first.code == 0, first
    assert "1 external asset to observe" in first.out
    assert garden("materialize", "--select", "weather+", "--json").json()["steps"]["unchanged"] == 1
    stale = garden("assets", "--select", "umbrella", "--json").json()["assets"][0]
    assert stale["stale"] == 0, "what could be observed makes nothing stale"
    (garden.folder / "sky").write_text("rain")
    garden("materialize", "--select", "weather+")
    assert garden.effects() == ["umbrella", "umbrella"]


def test_configuration_is_read_by_its_types(garden: Command) -> None:
    garden("materialize", "--select", "+plants")
    words = [word for each in ("water=2", 'days=["mo"]', "key=BARN") for word in ("--config", f"plants.{each}")]
    ended = garden("materialize", "--select", "plants", *words)
    assert ended.code == 0, ended
    shown = garden("asset", "show", "plants[b]", "--json").json()
    assert shown["config"] == {"water": 2, "days": ["mo"], "key": {"name": "BARN"}}
    for word, why in (
        ("plants.water=wet", "water needs an int, got 'wet'"),
        ("plants.watr=1", "did you mean water?"),
        ("seeds.water=1", "seeds takes no configuration"),
        ("plants=1", "is not of the form KEY.FIELD=VALUE"),
        ("plant.water=1", "Did you mean 'plants'?"),
    ):
        refused = garden("materialize", "--config", word)
        assert refused.code == 2, refused
        assert why in refused.err, refused


def test_a_list_tells_partitions_staleness_and_history(garden: Command) -> None:
    garden("materialize", "--select", "+harvest")
    garden("materialize", "--select", "plants", "--config", "plants.water=2")
    ended = garden("assets")
    assert ended.code == 0, ended
    assert re.search(r"^plants +beds +3/3 +@\d+ +3 stale: configuration changed ", ended.out, re.MULTILINE), ended
    assert re.search(r"^seeds +outside +yes +@2 +up to date .*▄$", ended.out, re.MULTILINE), ended
    assert re.search(r"[▁▂▃▄▅▆▇█]{6}$", ended.out, re.MULTILINE), "durations of six versions"
    found = {each["asset"]: each for each in garden("assets", "--json").json()["assets"]}
    assert (found["plants"]["made"], found["plants"]["stale"], len(found["plants"]["history"])) == (3, 3, 6)
    assert found["plates"]["partitions"] == 0
    assert garden("assets", "--select", "group:beds", "--json").json()["assets"][0]["asset"] == "plants"


def test_a_terminal_shows_a_tree_of_assets(garden: Command) -> None:
    (garden.folder / "held").write_text("b")
    main, side = pty.openpty()
    started = garden.start("materialize", "--select", "+harvest", fresh=True, stdout=side, stderr=side)
    os.close(side)
    seen = bytearray()
    reader = threading.Thread(target=collect, args=(main, seen))
    reader.start()
    started.until(lambda: "plants[b]" in garden.effects(), "the held one was begun")
    started.until(lambda: "b running" in without_colours(seen.decode(errors="replace")), "a frame that names it")
    (garden.folder / "held").unlink()
    ended = started.end()
    reader.join(10)
    os.close(main)
    text = seen.decode()
    plain = without_colours(text)
    assert ended.code == 0, plain
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden once and shown again"
    assert re.search(r"beds\s+… plants +\d/3", plain), plain
    assert re.search(r"· harvest +0/1 +waiting", plain), plain
    assert "✔ materialize completed in" in plain


@pytest.mark.parametrize(
    ("setting", "words", "why"),
    [
        ("", ("plan",), "which definitions? Name FILE.py or module:attribute; no pyproject.toml says which"),
        ("", ("plan", "garden.py:plates"), "'plates' in garden.py is a Asset, not a Definitions"),
        ("", ("plan", "garden.py:gardn"), "garden.py has no 'gardn'; its Definitions: garden. Did you mean garden?"),
        ("", ("plan", "work.py"), "work.py has no Definitions: put its assets into one"),
        ("", ("plan", "two.py"), "two.py has 2 Definitions; say which one:\n  two.py:one\n  two.py:two"),
        ("", ("plan", "bad.py"), "bad.py cannot be loaded: bad.py:3: asset x: its parameter 'y' is no asset"),
        ('definition = "x"', ("plan",), "[tool.holdfast] has no setting 'definition'; did you mean definitions?"),
        ("definitions = 3", ("plan",), "definitions in [tool.holdfast] is a string, not 3"),
        ('definitions = "gone:x"', ("plan",), "definitions = 'gone:x': no module 'gone' can be imported"),
        ("definitions = ", ("plan",), "pyproject.toml is not valid TOML"),
        ("", ("plan", "garden.py", "--select", "plant"), "Did you mean 'plants'?"),
        ("", ("plan", "garden.py", "--env", "nowhere"), "there is no environment 'nowhere'"),
        ("", ("plan", "garden.py", "--select", "plants", "--partitions", "z"), "plants"),
    ],
)
def test_wrong_words_are_answered(setting: str, words: tuple[str, ...], why: str, garden: Command) -> None:
    file = garden.folder / "pyproject.toml"
    file.write_text(f"[tool.holdfast]\n{setting}\n") if setting else file.unlink()
    (garden.folder / "two.py").write_text(
        "from engine.assets import Definitions\none, two = Definitions(), Definitions()\n"
    )
    (garden.folder / "bad.py").write_text(
        "from engine.assets import Definitions, asset\n\n@asset\ndef x(y: int) -> int:\n    return y\n\nd = Definitions([x])\n"
    )
    ended = garden(*words)
    assert ended.code == 2, ended
    assert why in ended.err, ended
    assert "Traceback" not in ended.err


def test_settings_are_found_from_a_folder_below(garden: Command) -> None:
    (garden.folder / "pyproject.toml").write_text(
        '[tool.holdfast]\ndefinitions = "garden"\nstore = "sqlite:///g.db"\nstorage = "values"\n'
    )
    below = garden.folder / "below"
    below.mkdir()
    ended = Command(below)("materialize", "--select", "seeds")
    assert ended.code == 0, ended
    assert (garden.folder / "g.db").exists()
    assert list((garden.folder / "values").rglob("*.json"))
    assert list(below.iterdir()) == [below / "effects"]


def test_a_run_in_the_store_of_the_settings_says_how_it_goes_on(garden: Command, nobody_works: None) -> None:
    (garden.folder / "pyproject.toml").write_text(
        '[tool.holdfast]\ndefinitions = "garden.py:garden"\nstore = "sqlite:///g.db?storage=large"\n'
    )
    below = Command(garden.folder / "below")
    below.folder.mkdir()
    (below.folder / "held").write_text("a")
    store = ("--store", f"sqlite:///{garden.folder}/g.db?storage={garden.folder}/large")
    started = below.start("materialize", "--select", "+plants", "--id", "m1", "--grace", "0.1")
    started.until(lambda: "plants[a]" in below.effects(), "the held one was begun")
    assert below.inside("pause", "m1", "--by", "bob", *store).code == 0
    goes_on = shlex.join(["holdfast", "unpause", "m1", *store])
    started.wait_for(f"run m1 is paused by bob; it goes on after: {goes_on}\n")
    started.signal(signal.SIGINT)
    stopped = started.end()
    assert stopped.code == 130, stopped
    assert f"    holdfast materialize --select +plants\n  Run m1 is paused by bob; it goes on after: {goes_on}.\n" in (
        stopped.out
    )
    assert below.inside(*shlex.split(goes_on)[1:]).code == 0, "the command that is shown finds the run"
    beds = (garden.folder / "garden.py").read_text()
    (garden.folder / "garden.py").write_text(beds.replace('Static(["a", ', 'Static(["a", "new", '))
    suspended = below("materialize", "--id", "m1")
    assert suspended.code == 4, suspended
    (garden.folder / "garden.py").write_text(beds)
    (below.folder / "held").unlink()
    done = below("materialize", "--select", "+plants", "--by", "ann", "--reason", "the beds as they were")
    assert done.code == 0, done
    history = [json.loads(line) for line in below.inside("history", "m1", "--json", *store).out.splitlines()]
    resumed = [each["header"] for each in history if each["header"]["type"] == "RunResumed"]
    assert [(each["by"], each["reason"]) for each in resumed] == [("ann", "the beds as they were")]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("sqlite:///shop.db", "sqlite:////proj/a%20%23%3F/shop.db"),
        (
            "sqlite:///shop.db?synchronous=FULL&storage=v%3F",
            "sqlite:////proj/a%20%23%3F/shop.db?synchronous=FULL&storage=/proj/a%20%23%3F/v%3F",
        ),
        ("sqlite:////x.db?storage=v", "sqlite:////x.db?storage=/proj/a%20%23%3F/v"),
        ("memory:?storage=v/w", "memory:?storage=/proj/a%20%23%3F/v/w"),
        ("sqlite:////x.db?storage=/v", "sqlite:////x.db?storage=/v"),
        ("sqlite:////x.db?storage=s3://b/v%20w", "sqlite:////x.db?storage=s3://b/v%20w"),
        ("sqlite:////x.db?storage=", "sqlite:////x.db?storage="),
        ("sqlite:////x.db?storages=v", "sqlite:////x.db?storages=v"),
        ("", ""),
    ],
)
def test_what_is_relative_in_the_settings_is_so_to_their_folder(said: str, meant: str) -> None:
    assert Settings(file="/proj/a #?/pyproject.toml", store=said).store_url == meant
