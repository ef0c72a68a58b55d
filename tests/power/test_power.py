"""A slice of the crash images (`python -m tests.power` makes them by the hundred thousand), and canaries among them.

It always cuts a recording that is kept beside it, so that it needs no tool of the machine; where strace is there and may
trace, today's store is recorded and cut, too. `python -m tests.power --seed 9 --record tests/power/recorded.xz` made the file,
and the same with `engine.xz` the other.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.power import __main__ as command
from tests.power import canaries, trace
from tests.power.check import examine
from tests.power.disk import KINDS, Cut, Disk, draw
from tests.power.engine_check import EngineRound, live_on
from tests.power.journal import Journal, replay
from tests.power.rounds import STORE, Report, Round, check, load
from tests.power.trace import DirectorySync, Mark, Name, NoRecorder, Recorded, Recording, Size, Sync, UnknownCall, Write

KEPT = trace.read(Path(__file__).with_name("recorded.xz"))
ENGINE = trace.read(Path(__file__).with_name("engine.xz"))
IMAGES = 60


def cut(recorded: Recorded, folder: Path, images: int, canary: str = "") -> Report:
    round_ = Round(recorded.seed, folder, folder / "kept", canary, faults_max=1)
    round_.cut(recorded, images, random.Random(recorded.seed))
    return round_.report


def at_the_end(recorded: Recorded = KEPT) -> tuple[dict[str, bytes], Journal]:
    """What is on the disk when the workload has ended, and all that was asked."""
    disk = Disk()
    for op in recorded.ops:
        disk.take(op)
    marks = [op.what for op in recorded.ops if isinstance(op, Mark)]
    return disk.image(Cut("as written", 512, 1.0), random.Random(0)), replay(recorded.seed, marks)


def test_whatever_a_power_cut_leaves_is_a_store_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    report = cut(KEPT, tmp_path, IMAGES)
    assert report.faults == []
    assert report.images > 0.9 * IMAGES
    assert report.kinds.keys() == set(KINDS)
    assert {"creating", "working", "checkpoint"} <= report.moments.keys()
    assert report.acknowledged > 10 * IMAGES


def test_a_store_whose_making_is_cut_is_made_by_the_next_to_open_it(tmp_path: Path) -> None:
    """Behind the first write of its file, for that is short: an image without the first sector was no store, to us."""
    disk = Disk()
    for op in KEPT.ops:
        disk.take(op)
        if isinstance(op, Write) and KEPT.names[op.file] == STORE:
            break
    dice = random.Random(6)
    images = {tuple(disk.image(draw(dice), dice).items()) for _ in range(40)}
    assert any(dict(image).get(STORE, b"SQLite").startswith(bytes(6)) for image in images)
    for image in images:
        assert check(tmp_path / "image", dict(image), Journal(KEPT.seed), through_store=True) == []


def test_todays_store_recorded_and_cut_and_cut_again_while_it_is_recovered(tmp_path: Path) -> None:
    try:
        trace.check_recorder()
    except NoRecorder as missing:  # what is kept was cut above; the command says what it lacks
        assert "strace" in str(missing)
        pytest.skip(str(missing))
    round_ = Round(2, tmp_path, tmp_path / "kept", commits=3)
    assert round_.run(40).faults == []
    assert round_.report.recordings == 2
    assert round_.report.moments["recovered and going on"] > 4


def test_an_engine_goes_on_from_whatever_a_power_cut_leaves(tmp_path: Path) -> None:
    round_ = EngineRound(ENGINE.seed, tmp_path, tmp_path / "kept", recoveries=0)
    round_.cut(ENGINE, 12, random.Random(1))
    assert round_.report.faults == []
    assert round_.report.checked["Engine"] > 8


@pytest.mark.parametrize("missing", ["a value", "half a value", "the record of a beginning", "a result"])
def test_what_an_engine_promised_and_is_not_there_is_found(missing: str, tmp_path: Path) -> None:
    image, journal = at_the_end(ENGINE)
    value = next(name for name in image if name.startswith("values/") and name.endswith(".json"))
    match missing:
        case "a value":
            del image[value]
        case "half a value":
            image[value] = image[value][:100_000]
        case "the record of a beginning":
            journal.take({"began": ["day-900", "day/small~9/small#1", 1]})
        case "a result":
            journal.take({"result": 999})
    assert live_on(tmp_path / "image", image, journal)


def test_of_a_store_that_may_lose_all_that_is_there_must_be_whole(tmp_path: Path) -> None:
    image, journal = at_the_end()
    lenient = replay(KEPT.seed, journal.marks, lenient=True)
    assert check(tmp_path / "image", {}, lenient, through_store=True) == []
    assert check(tmp_path / "image", {}, journal, through_store=True)
    (tmp_path / STORE).write_bytes(image[STORE])
    with closing(sqlite3.connect(tmp_path / STORE)) as connection, connection:
        connection.execute(HARMED["own rows"])
    assert examine(tmp_path / STORE, lenient)


@pytest.mark.parametrize("canary", canaries.LYING)
def test_a_disk_that_lies_about_a_sync_is_found(canary: str, tmp_path: Path) -> None:
    report = cut(KEPT, tmp_path, 150, canary)
    assert len(report.faults) == 1
    ((saved,),) = [report.saved]
    image, journal, _ = load(Path(saved))
    again = [check(tmp_path / "again", image, journal, through_store=each) for each in (False, True)]
    assert any(again), "what was saved is found wrong again"


def test_one_acknowledged_commit_that_is_missing_is_found(tmp_path: Path) -> None:
    """And a commit that is there though it was refused, and a payload that came back: the marks are turned, not the image."""
    image, journal = at_the_end()
    marks = journal.marks
    folder = tmp_path / "image"
    assert check(folder, image, replay(KEPT.seed, marks), through_store=False) == []
    more = {"do": 10**6, "kind": "commit", "parts": [["box:0", 10**3, 1]], "sends": []}
    promised = [more, {"done": 10**6, "heads": {"box:0": [1_001, "00"]}}]
    assert "was acknowledged" in check(folder, image, replay(KEPT.seed, [*marks, *promised]), through_store=False)[0]
    commits = [mark for mark in marks if mark.get("kind") == "commit" and mark["parts"][0][0].startswith("box:")]
    refused = [*marks, {"refused": commits[-1]["do"]}]
    assert check(folder, image, replay(KEPT.seed, refused), through_store=False)
    forgotten = {"do": 10**6, "kind": "forget", "stream": "came:1"}
    assert check(folder, image, replay(KEPT.seed, [*marks, forgotten, {"done": 10**6}]), through_store=False)
    assert check(folder, image, replay(KEPT.seed + 1, marks), through_store=True)


HARMED = {
    "an event": "DELETE FROM events WHERE position = (SELECT max(position) FROM events)",
    "a header": "UPDATE events SET header = '{}' WHERE position = 40",
    "a payload": "UPDATE events SET payload = 'x' WHERE position = (SELECT max(position) FROM events WHERE payload IS NOT NULL)",
    "a waiting message": "DELETE FROM messages WHERE arrival = (SELECT max(arrival) FROM messages WHERE consumed_at IS NULL)",
    "a tombstone": "UPDATE messages SET consumed_at = 1 WHERE arrival = (SELECT max(arrival) FROM messages WHERE consumed_at IS NULL)",
    "mail of nobody": "INSERT INTO messages (stream, id, control, header, sent_at) VALUES (1, 'x', 0, '{}', 1)",
    "mail in a mailbox": "UPDATE messages SET payload = 'x' WHERE consumed_at IS NULL",
    "a count": "UPDATE streams SET data = data + 1 WHERE name = 'box:1'",
    "an attribute": "DELETE FROM attributes WHERE value = 'odd'",
    "an alarm": "UPDATE streams SET alarm = ifnull(alarm, 0) + 1 WHERE name = 'box:1'",
    "a commit's id": "UPDATE streams SET commit_id = 'x' WHERE name = 'box:1'",
    "own rows": "DELETE FROM ledger WHERE n = (SELECT max(n) FROM ledger)",
    "a permit": "DELETE FROM permits WHERE pool = 'p'",
    "a pool's count": "UPDATE permit_pools SET held = held + 1",
    "what is left of a pruned event": "DELETE FROM kept_digests WHERE position = (SELECT max(position) FROM kept_digests)",
    "a forgotten payload": "UPDATE events SET payload = 'x', salt = x'00' WHERE payload IS NULL AND payload_digest IS NOT NULL",
    "a lease": "DELETE FROM leases WHERE token = 1",
    "the end of a lease": "UPDATE leases SET ended_at = NULL WHERE token = 1",
    "a stream": "UPDATE streams SET name = 'x:' || name WHERE name = 'came:1'",
    "the version of the schema": "PRAGMA user_version = 3",
}


@pytest.mark.parametrize("what", HARMED)
def test_what_is_missing_or_too_much_in_a_table_is_found(what: str, tmp_path: Path) -> None:
    image, journal = at_the_end()
    (tmp_path / STORE).write_bytes(image[STORE])
    assert examine(tmp_path / STORE, journal) == []
    with closing(sqlite3.connect(tmp_path / STORE)) as connection, connection:
        assert connection.execute(HARMED[what]).rowcount
    assert examine(tmp_path / STORE, journal)


def test_what_was_synced_is_in_every_image_and_what_was_not_may_be_in_none() -> None:
    disk = Disk()
    ops = [Name("", "a", 1), Write(1, 0, b"1" * 1_024), Sync(1, 1), DirectorySync("", 1)]
    ops += [Write(1, 512, b"2" * 1_024), Size(1, 700), Name("", "b", 2)]
    for op in ops:
        disk.take(op)
    dice = random.Random(0)
    images = [disk.image(draw(dice), dice) for _ in range(2_000)]
    found = {image["a"] for image in images}
    assert all(content[:512] == b"1" * 512 for content in found)
    assert b"1" * 1_024 in found
    assert b"1" * 512 + b"2" * 1_024 in found
    assert b"1" * 1_024 + b"2" * 512 in found
    assert b"1" * 512 + b"2" * 188 in found
    assert {"b" in image for image in images} == {True, False}
    assert disk.uncertain() == 3


def test_a_sync_covers_what_was_done_before_it_began_and_nothing_else(tmp_path: Path) -> None:
    """Threads interleave: a write that ends while a sync is under way may be lost behind it; a mark counts from its beginning."""
    said = json.dumps({"do": 1}).encode().hex()
    mark = "".join(f"\\x{said[at : at + 2]}" for at in range(0, len(said), 2))
    path, marks = ("".join(f"\\x{byte:02x}" for byte in text.encode()) for text in ("/r/store.db", "/m"))
    lines = f"""
1 openat(AT_FDCWD, "{path}", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3
1 openat(AT_FDCWD, "{marks}", O_WRONLY|O_CREAT|O_APPEND, 0600) = 4
1 pwrite64(3, "\\x61\\x62", 2, 0)   = 2
1 fdatasync(3 <unfinished ...>
2 pwrite64(3, "\\x63", 1, 0 <unfinished ...>
3 write(4, "{mark}", 9 <unfinished ...>
2 <... pwrite64 resumed>)           = 1
1 <... fdatasync resumed>)          = 0
3 <... write resumed>)              = 9
2 pwrite64(3, "\\x64\\x65", 2, 9)   = -1 ENOSPC (No space left on device)
2 pwrite64(3, "\\x64\\x65", 2, 9)   = 1
""".strip()
    (tmp_path / "trace").write_text(lines)
    ops = list(Recording(Path("/r"), Path("/m")).ops(tmp_path / "trace"))
    assert ops == [
        Name("", "store.db", 1),
        Write(1, 0, b"ab"),
        Mark({"do": 1}),
        Write(1, 0, b"c"),
        Sync(1, 1),
        Write(1, 9, b"d"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        "fallocate(3, 0, 0, 4096) = 0",
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0) = 0x7f0000000000",
        'link("{path}", "{path}") = 0',
        'writev(3, [{iov_base="\\x61", iov_len=1}], 1) = 1',
        'write(3, "\\x61", 1) = 1',
    ],
)
def test_what_the_recorder_does_not_know_is_an_error(call: str, tmp_path: Path) -> None:
    path = "".join(f"\\x{byte:02x}" for byte in b"/r/store.db")
    opened = f'1 openat(AT_FDCWD, "{path}", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3\n'
    (tmp_path / "trace").write_text(opened + "1 " + call.replace("{path}", path) + "\n")
    with pytest.raises(UnknownCall):
        list(Recording(Path("/r"), Path("/m")).ops(tmp_path / "trace"))


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("tests.power", "--images", "1"), "strace is not installed"),
        (("tests.power.mounted", "--cuts", "1"), "not possible here: "),
    ],
)
def test_what_the_machine_lacks_is_said(command: tuple[str, ...], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=trace.ROOT,
        env=os.environ | {"PATH": "/nowhere", "PYTHONPATH": str(trace.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_saved_image_is_opened_again_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = cut(KEPT, tmp_path, 150, "lying-log")
    assert command.check_saved(Path(report.saved[0])) == 1
    assert capsys.readouterr().out != "nothing is wrong\n"
