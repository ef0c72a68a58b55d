"""`asset`, `why`, `lineage` and `environment` as processes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Command


@pytest.fixture
def garden(holdfast: Command) -> Command:
    shutil.copy(Path(__file__).parent / "garden.py", holdfast.folder / "garden.py")
    (holdfast.folder / "pyproject.toml").write_text('[tool.holdfast]\ndefinitions = "garden.py:garden"\n')
    return holdfast


def test_versions_are_listed_shown_held_against_each_other_and_restored(garden: Command) -> None:
    garden("materialize", "--select", "+harvest")
    (garden.folder / "more").write_text("yes")
    garden("materialize", "--select", "+harvest", "--force")
    listed = garden("asset", "versions", "plants", "b", fresh=True)
    assert re.fullmatch(r"version +partition .*\n +@\d+ +current +b .*\n +@\d+ +b .*\n", listed.out), listed
    found = garden("asset", "versions", "plants[b]", "--json").json()["versions"]
    assert [each["current"] for each in found] == [True, False]
    new, old = (f"plants@{each['version']}" for each in found)
    shown = garden("asset", "show", new)
    assert re.search(r"^  seeds +@4$", shown.out, re.MULTILINE), shown
    assert "  check small (warning): did not pass" in shown.out
    assert "✔ check alive passed" in shown.out
    differs = garden("asset", "diff", old, new)
    assert "  other data, the same code\n" in differs.out
    assert "    (value): 2 → 20\n" in differs.out
    assert "    seeds: @2 → @4\n" in differs.out
    assert garden("asset", "diff", "harvest", "--json").json()["values"] == [{"place": "b", "old": 20, "new": 200}]
    restored = garden("asset", "restore", old, "--reason", "too many")
    assert restored.code == 0, restored
    why = garden("why", "plants", "b")
    assert re.search(r"was made the current one again at .* by \w+: too many\.", why.out), why
    stale = garden("assets", "--select", "fruits", "--json").json()["assets"][0]
    assert (stale["stale"], stale["reasons"][0]) == (1, "plants changed")


def test_what_names_nothing_is_refused(garden: Command) -> None:
    garden("materialize", "--select", "seeds")
    for words, why in (
        (("asset", "show", "seed"), "there is no asset 'seed'. Did you mean 'seeds'?"),
        (("asset", "show", "seeds@99"), "seeds@99 is no version of it in prod"),
        (("asset", "show", "plants[b]"), "plants[b] has no version in prod: nothing was published"),
        (("asset", "show", "seeds@"), "'seeds@' names no asset: write KEY, KEY[PARTITION]"),
        (("asset", "diff", "seeds"), "seeds@2 is the only version there is"),
        (("asset", "restore", "seeds"), "which version of seeds? Say seeds@VERSION"),
        (("asset", "partitions", "add", "guest", "x"), "no asset has dynamic partitions 'guest'; there are guests"),
        (("why", "plants[a]", "b"), "plants[a] names partition 'a', and 'b' stands behind it"),
        (("why", "plants", "z"), "z"),
        (("lineage", "plants"), "plants has no version in prod"),
        (("environment", "promote", "prod"), "'prod' branches off nothing"),
    ):
        ended = garden(*words)
        assert ended.code == 2, (words, ended)
        assert why in ended.err, (words, ended)


def test_why_follows_the_log_to_the_root(garden: Command) -> None:
    never = garden("why", "harvest")
    assert "Nothing was ever planned, made or observed of harvest in prod." in never.out, never
    assert "It cannot be made now: nothing was made yet of" not in never.out
    assert "It is stale now" in never.out
    (garden.folder / "slugs").write_text("many")
    garden("materialize", "--select", "+harvest", "--id", "m1")
    ended = garden("why", "harvest")
    lines = ended.out.splitlines()
    assert re.match(r"harvest was planned, and run m1 skipped it at .* because of what is upstream of it:", lines[0])
    assert re.match(r"  fruits\[c\] was planned, and run m1 skipped it", lines[1])
    assert re.match(
        r"    plants\[c\] was not made by run m1 at .*, which tried because of this: missing, seeds", lines[2]
    )
    assert lines[3] == "      check alive (blocking): eaten"
    assert '  row of plants[c] that alive found: {"by":"slugs","plant":3}' in lines
    document = garden("why", "harvest", "--json").json()
    assert document["because"][0]["because"][0]["outcome"] == "failed"
    (garden.folder / "slugs").unlink()
    garden("materialize", "--select", "+harvest", "--id", "m2")
    made = garden("why", "plants[c]").out
    assert re.search(r"plants\[c\] was made by run m2 at .* because of this: missing, failed last time\.", made), made
    assert "It is up to date, so that nothing would make it now." in made
    garden("materialize", "--select", "seeds+", "--force", "--id", "m3")
    garden("materialize", "--select", "weather+")
    garden("materialize", "--select", "weather+", "--id", "m4")
    unchanged = garden("why", "umbrella").out
    assert "umbrella was planned because of this: weather is made first, and run m4 did not make it at" in unchanged
    assert "It is external" in garden("why", "weather").out


def test_lineage_goes_up_and_down_across_runs(garden: Command) -> None:
    garden("materialize", "--select", "+plants", "--id", "m1")
    garden("materialize", "--select", "+harvest", "--id", "m2")
    up = garden("lineage", "harvest")
    assert up.code == 0, up
    lines = up.out.splitlines()
    assert re.match(r"harvest@2  published, .*, run m2  made from$", lines[0])
    assert re.match(r"├── fruits\[a\]@\d+  published, .*, run m2$", lines[1])
    assert re.match(r"│   └── plants\[a\]@\d+  published, .*, run m1$", lines[2])
    assert re.match(r"│       └── seeds@2  published, .*, run m1$", lines[3])
    down = garden("lineage", "seeds", "--down", "--depth", "2", "--json").json()
    assert down["direction"] == "down"
    assert sorted({each["key"] for each in down["versions"]}) == ["fruits", "plants", "seeds"]
    assert len(down["edges"]) == 6
    flowchart = garden("lineage", "plants", "b", "--up", "--down", "--mermaid").out
    assert flowchart.count("flowchart LR") == 2
    assert re.search(r'^    v0\["plants\[b\]@\d+"\]\n    v1\["seeds@2"\]\n    v1 --> v0\n', flowchart, re.MULTILINE)


def test_a_branch_shares_what_it_does_not_make_and_is_promoted(garden: Command) -> None:
    garden("materialize", "--select", "+harvest")
    created = garden("environment", "create", "dev", "--reason", "a trial")
    assert created.code == 0, created
    assert "nothing to do in dev" in garden("materialize", "--select", "+harvest", "--env", "dev").out
    changed = garden(
        "materialize", "--select", "plants+", "--env", "dev", "--config", "plants.water=3", "--json"
    ).json()
    assert changed["steps"]["published"] == 7
    up = garden("lineage", "harvest", "--env", "dev").out
    assert re.search(
        r"plants\[a\]@\d+  published, .* in dev, .*\n│       └── seeds@2  published, [^\n]*$", up, re.MULTILINE
    )
    assert re.search(r"^dev +prod .* a trial$", garden("environment", "list").out, re.MULTILINE)
    assert garden("environment", "list", "--json").json()["environments"][1]["base"] == "prod"
    promoted = garden("environment", "promote", "dev")
    assert "promoted plants, 3 partitions\n" in promoted.out, promoted
    assert "was promoted from a branch at" in garden("why", "harvest").out
    assert "nothing to promote" in garden("environment", "promote", "dev").out
    reset = garden("environment", "reset", "dev", "--select", "plants", "--reason", "as it was")
    assert reset.out == "reset plants, 3 partitions\n", reset
    why = garden("why", "plants", "a", "--env", "dev").out
    assert re.search(r"plants\[a\] was reset at .*: as it was: what the branch had made", why), why
    assert garden("environment", "reset", "dev", "--select", "plants").out == (
        "nothing to reset: dev has nothing of its own\n"
    )
    assert "branches off nothing" in garden("environment", "reset", "prod").err


def test_partitions_are_added_and_removed_by_name(garden: Command) -> None:
    assert "guests: added ann, ben" in garden("asset", "partitions", "add", "guests", "ann", "ben").out
    assert garden("asset", "partitions", "add", "guests", "ben", "--json").json()["added"] == []
    assert garden("asset", "partitions", "remove", "guests", "ann", "--json").json()["removed"] == ["ann"]
    assert garden("assets", "--select", "plates", "--json").json()["assets"][0]["partitions"] == 1
