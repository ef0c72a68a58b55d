"""`verify`, `seal`, `prove`, `check-proof`, `keygen`, as processes."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.audit import AuditProgress
from engine.cli.auditing import told_by
from engine.cli.bar import Bar
from engine.cli.output import Output
from tests.architecture.source import ROOT
from tests.cli.command import Command, without_colours

WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from engine.cli import main
main()
"""
NEEDS = 'error: signing seals and checking signatures needs the package cryptography: pip install "holdfast[audit]"\n'


@pytest.fixture
def sealed(holdfast: Command) -> Command:
    """A store with two runs, sealed once."""
    for n in ("1", "2"):
        assert holdfast("run", "work.py:quick", f"n={n}", "--id", f"r{n}").code == 0
    assert holdfast.inside("keygen", "example.com/shop", "--out", "shop.key").code == 0
    assert holdfast.inside("seal", "--key", "shop.key", "--out", "shop.seal").code == 0
    return holdfast


def change(command: Command, sql: str) -> None:
    with closing(sqlite3.connect(command.folder / "holdfast.db")) as connection, connection:
        assert connection.execute(sql).rowcount > 0


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_keygen(holdfast: Command) -> None:
    ended = holdfast("keygen", "example.com/shop", "--out", "shop.key")
    assert ended.code == 0, ended
    public = (holdfast.folder / "shop.key.pub").read_text()
    assert ended.out == f"wrote shop.key, which is secret, and shop.key.pub:\n{public}"
    assert (holdfast.folder / "shop.key").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in ended.out
    again = holdfast("keygen", "example.com/shop", "--out", "shop.key")
    assert (again.code, again.out) == (2, "")
    assert again.err == "error: shop.key is there already: a key is never overwritten; choose another name\n"
    document = holdfast("keygen", "example.com/mail", "--out", "mail.key", "--json").json()
    assert document == {
        "name": "example.com/mail",
        "private": "mail.key",
        "public": "mail.key.pub",
        "key": (holdfast.folder / "mail.key.pub").read_text().strip(),
    }
    assert holdfast("keygen", "a b", "--out", "x").code == 2


# -- verify ----------------------------------------------------------------------------------------------------------------


def test_verify_what_was_not_changed(sealed: Command) -> None:
    ended = sealed("verify")
    assert ended.code == 0, ended
    assert ended.out.startswith("verified ")
    assert " events of 3 streams in " in ended.out
    assert ended.out.endswith("/s; 1 seals in the log agree\n")
    against = sealed("verify", "--against", "shop.seal", "--key", "shop.key.pub")
    assert against.code == 0, against
    assert against.out.splitlines()[0].endswith("the log begins with what it covers, signed by the key")
    document = sealed("verify", "--against", "shop.seal", "--json").json()
    assert (document["verifies"], document["findings"], document["seals_in_the_log"]) == (True, [], 1)
    assert document["seals"] == [
        {"origin": "example.com/shop", "size": document["size"] - 1, "holds": True, "signed": None}
    ]
    unsigned = sealed("verify", "--against", "shop.seal")
    assert "whether the key has signed the seals was not looked at; --key PUBLIC does\n" in unsigned.out
    some = sealed("verify", "r1", "r2", "--json").json()
    assert (some["verifies"], some["streams"], some["root"]) == (True, 2, None)


def test_verify_names_what_was_changed_and_ends_with_8(sealed: Command) -> None:
    change(sealed, "UPDATE events SET payload = '8' WHERE header LIKE '%RunCompleted%' AND payload = '1'")
    ended = sealed("verify")
    assert ended.code == 8, ended
    first, last = ended.out.splitlines()
    assert first.startswith("payload  run r1, version ")
    assert first.endswith("its payload is not the one that was recorded")
    assert last.startswith("DOES NOT VERIFY: ")
    document = sealed("verify", "r1", "--json")
    assert document.code == 8
    (finding,) = document.json()["findings"]
    assert (finding["what"], finding["stream"]) == ("payload", "run:r1")
    assert {"version", "position", "message"} <= finding.keys()
    assert sealed("verify", "r2").code == 0


def test_verify_against_a_seal_finds_what_was_cut_off(sealed: Command) -> None:
    for table, column in (("events", "stream"), ("streams", "id")):
        change(sealed, f"DELETE FROM {table} WHERE {column} = (SELECT id FROM streams WHERE name = 'run:r2')")
        if table == "events":
            change(sealed, "DELETE FROM events WHERE header LIKE '%LogSealed%'")
    change(sealed, "DELETE FROM streams WHERE name LIKE 'seal:%'")
    assert sealed("verify").code == 0, "a removed stream leaves nothing behind"
    ended = sealed("verify", "--against", "shop.seal", "--key", (sealed.folder / "shop.key.pub").read_text().strip())
    assert ended.code == 8, ended
    assert "truncated  position" in ended.out
    assert "its end was cut off, streams were removed, or an older copy was put in its place" in ended.out
    assert "DOES NOT HOLD, signed by the key" in ended.out
    again = sealed("seal", "--key", "shop.key", "--out", "shop.seal")
    assert again.code == 8, again
    assert "it was not sealed again: look with holdfast verify --against" in again.err


def test_verify_counts_what_was_forgotten(sealed: Command) -> None:
    change(sealed, "UPDATE events SET payload = NULL, salt = NULL WHERE header LIKE '%RunCompleted%'")
    ended = sealed("verify", "--against", "shop.seal", "--key", "shop.key.pub")
    assert ended.code == 0, ended
    assert "2 payloads were destroyed, which is no damage: the digests are there\n" in ended.out


def test_a_row_that_no_store_has_written_is_a_finding_and_no_defect(sealed: Command) -> None:
    change(sealed, "UPDATE events SET payload = 5 WHERE header LIKE '%RunCompleted%' AND payload = '1'")
    ended = sealed("verify")
    assert ended.code == 8, ended
    assert "unreadable  the log: the log cannot be read behind position 0" in ended.out
    assert "removed  run r1, version 1: version 1 cannot be read" in ended.out
    shown = sealed("history", "r1")
    assert (shown.code, "holds a row that no store has written" in shown.err) == (3, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("verify", "x"), 2, "no run 'x' in this store"),
        (("verify", "r1", "--against", "shop.seal"), 2, "a seal is over the whole log: leave RUN out"),
        (("verify", "--against", "gone.seal"), 3, "gone.seal: No such file or directory"),
        (("verify", "--against", "shop.key"), 2, "shop.key: this is no seal"),
        (("verify", "--key", "shop.key"), 2, "shop.key: this is a private key: to check seals give the public one"),
        (("verify", "--store", "sqlite:///gone.db"), 3, "there is no such file"),
        (("seal", "--key", "shop.key.pub"), 2, "can be read by other users"),
        (("seal", "--key", "shop.key", "--out", "gone/shop.seal"), 3, "No such file or directory"),
        (("prove", "--seal", "shop.seal"), 2, "name RUN and VERSION, or an earlier seal with --since"),
        (("prove", "r1", "--seal", "shop.seal"), 2, "name RUN and VERSION"),
        (("prove", "r1", "1", "--seal", "shop.seal", "--since", "shop.seal"), 2, "name RUN and VERSION"),
        (("prove", "x", "1", "--seal", "shop.seal"), 2, "no run 'x' in this store"),
        (("prove", "r1", "99", "--seal", "shop.seal"), 2, "stream 'run:r1' has no version 99: it has 1 to"),
        (("check-proof", "shop.seal"), 2, "shop.seal: this is no proof"),
        (("check-proof", "gone"), 3, "gone: No such file or directory"),
    ],
)
def test_bad_input(sealed: Command, words: tuple[str, ...], code: int, message: str) -> None:
    ended = sealed.inside(*words)
    assert (ended.code, ended.out) == (code, ""), ended
    assert message in " ".join(ended.err.replace("│", " ").split())


# -- seal ------------------------------------------------------------------------------------------------------------------


def test_seal(holdfast: Command) -> None:
    assert holdfast("run", "work.py:quick", "n=1", "--id", "r1").code == 0
    assert holdfast("keygen", "example.com/shop", "--out", "shop.key").code == 0
    ended = holdfast("seal", "--key", "shop.key", "--out", "shop.seal", "--by", "ann", "--reason", "monthly")
    assert ended.code == 0, ended
    assert ended.out == "sealed 5 events of example.com/shop (5 of them new), in shop.seal\n"
    again = holdfast("seal", "--key", "shop.key", "--out", "shop.seal", "--json").json()
    assert (again["new"], again["size"], again["events_read"], again["file"]) == (False, 5, 1, "shop.seal")
    assert again["note"] == (holdfast.folder / "shop.seal").read_text()
    with closing(sqlite3.connect(holdfast.folder / "holdfast.db")) as connection:
        (header,) = connection.execute("SELECT header FROM events WHERE header LIKE '%LogSealed%'").fetchone()
    assert {key: json.loads(header)[key] for key in ("by", "reason", "size")} == {
        "by": "ann",
        "reason": "monthly",
        "size": 5,
    }


def test_seal_on_and_on_until_it_is_interrupted_or_killed(holdfast: Command) -> None:
    """Beside runs that go on; after kill -9 the next goes on from what is in the log."""
    assert holdfast("run", "work.py:quick", "n=0", "--id", "r0").code == 0
    assert holdfast.inside("keygen", "example.com/shop", "--out", "shop.key").code == 0
    folder = holdfast.folder / "seals"
    folder.mkdir()
    words = ("seal", "--key", "shop.key", "--out", "seals", "--every", "0.05")
    for how, code in ((signal.SIGKILL, -9), (signal.SIGINT, 0), (signal.SIGTERM, 0)):
        before = len(list(folder.glob("*.seal")))
        started = holdfast.start(*words)
        started.until(lambda: len(list(folder.glob("*.seal"))) > before, "a first seal")
        now = len(list(folder.glob("*.seal")))
        assert holdfast("run", "work.py:quick", f"n={code + 10}", "--id", f"r{how}").code == 0
        started.until(lambda: len(list(folder.glob("*.seal"))) > now, "another, of what came")
        started.signal(how)
        assert started.end().code == code
        assert holdfast("run", "work.py:quick", f"n={code + 20}", "--id", f"r{how}-2").code == 0
    ended = holdfast("verify", "--against", "seals", "--key", "shop.key.pub", "--json")
    assert ended.code == 0, ended
    assert len(ended.json()["seals"]) == len(list(folder.glob("*.seal"))) >= 6


# -- proofs ----------------------------------------------------------------------------------------------------------------


def test_prove_and_check_without_the_log(sealed: Command, tmp_path: Path) -> None:
    ended = sealed("prove", "r1", "3", "--seal", "shop.seal", "--out", "proof.json")
    assert ended.code == 0, ended
    assert ended.out.startswith("wrote proof.json: a proof against the seal of example.com/shop at size ")
    printed = sealed("prove", "r1", "3", "--seal", "shop.seal")
    assert printed.out == (sealed.folder / "proof.json").read_text()
    assert sealed("prove", "r1", "3", "--seal", "shop.seal", "--out", "p2.json", "--json").json()["file"] == "p2.json"
    (sealed.folder / "holdfast.db").rename(sealed.folder / "gone.db")
    checked = sealed("check-proof", "proof.json", "--key", "shop.key.pub")
    assert checked.code == 0, checked
    assert checked.out.startswith("proven: versions 1 to 3 of run r1 are in the log of example.com/shop at size ")
    assert sealed("check-proof", "proof.json", "--json").json()["signed"] is None
    assert sealed("check-proof", "proof.json", "--key", "shop.key.pub", "--json").json()["signed"] is True
    text = (sealed.folder / "proof.json").read_text()
    (sealed.folder / "proof.json").write_text(text.replace("TaskScheduled", "TaskCancelled"))
    forged = sealed("check-proof", "proof.json")
    assert forged.code == 8, forged
    assert "error: the proof does not lead from version 3 of stream 'run:r1' to the seal" in forged.err


def test_prove_that_a_log_has_only_grown(sealed: Command) -> None:
    assert sealed("run", "work.py:quick", "n=3", "--id", "r3").code == 0
    assert sealed("seal", "--key", "shop.key", "--out", "later.seal").code == 0
    ended = sealed("prove", "--since", "shop.seal", "--seal", "later.seal", "--out", "grown.json")
    assert ended.code == 0, ended
    checked = sealed("check-proof", "grown.json", "--key", "shop.key.pub")
    assert checked.code == 0, checked
    assert "proven: the log begins with what the earlier seal covers" in checked.out
    backwards = sealed("prove", "--since", "later.seal", "--seal", "shop.seal")
    assert (backwards.code, "is no later one of" in backwards.err) == (2, True)


# -- without the extra, and while it takes long ------------------------------------------------------------------------------


def test_without_the_extra(sealed: Command) -> None:
    """Verifying needs it for signatures only."""
    for words in (
        ("seal", "--key", "shop.key"),
        ("verify", "--against", "shop.seal", "--key", "shop.key.pub"),
        ("keygen", "a", "--out", "a.key"),
    ):
        ended = sealed.start(*words, code=WITHOUT).end()
        assert (ended.code, ended.err) == (2, NEEDS), ended
    assert not (sealed.folder / "a.key").exists()
    ended = sealed.start("verify", "--against", "shop.seal", code=WITHOUT).end()
    assert ended.code == 0, ended


def test_the_script_in_docs_says_the_same(sealed: Command) -> None:
    code = f"import runpy, sys; sys.argv = ['verify.py', *sys.argv[1:]]; runpy.run_path({str(ROOT / 'docs' / 'verify.py')!r}, run_name='__main__')"
    ended = sealed.start("holdfast.db", "shop.seal", code=code).end()
    assert (ended.code, ended.out.startswith("ok: ")) == (0, True), ended
    change(sealed, "UPDATE events SET header = '{}' WHERE version = 2")
    ended = sealed.start("holdfast.db", "shop.seal", code=code).end()
    assert ended.code == 1
    assert "run:r1, version 2, position 2: its digest does not follow" in ended.out
    assert sealed.start(code=code).end().code == 2


class Turned:
    """A clock that is turned by hand."""

    time = 0.0

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.time


def test_progress_elsewhere_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Turned()
    with Bar(Output(json=True), clock, "verifying") as bar:
        for events in range(0, 60_000, 1_000):
            clock.time += 0.25
            told_by(bar)(AuditProgress(events=events, total=80_000, findings=events // 50_000))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "19,000 of 80,000 events, 3,800/s",
        "39,000 of 80,000 events, 3,900/s",
        "59,000 of 80,000 events, 3,933/s, 1 found wrong",
    ]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", screen)
    clock = Turned()
    with Bar(Output(json=False), clock, "verifying") as bar:
        clock.time = 2.0
        told_by(bar)(AuditProgress(events=500, total=1_000, findings=0))
        assert bar._bar is not None
        bar._bar.refresh()
    assert "500 of 1,000 events, 250/s" in without_colours(screen.getvalue())
