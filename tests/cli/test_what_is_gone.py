"""Every verb against a run that was pruned, and against one that has forgotten: it works, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command

WORK = """
from engine import Feed, Memo, Query, Request, Signal, State, durable, task, workflow

go = Signal("go", str)
phase = State("phase", str, initial="none yet")
log = Feed("log", str)
progress = Query("progress", None, int)
review = Request("review", str, str)


@task(memo=Memo())
async def load(text: str) -> str:
    return text * 2


@workflow
async def child(text: str) -> str:
    return await load(text)


@workflow
async def flow(text: str) -> str:
    durable.set_attributes(customer=text)
    await phase.publish("loading")
    await log.publish("begun")
    return await child.options(id=f"{durable.run_id()}-child")(text)
"""


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs: p is pruned, f has forgotten, w is whole, and so is k, a fork of p from before."""
    folder: Path = tmp_path_factory.mktemp("gone")
    (folder / "work.py").write_text(WORK)
    holdfast = Command(folder)
    for run_id in ("p", "f", "w"):
        ended = holdfast("run", "work.py:flow", f"text={run_id}", "--id", run_id)
        assert ended.code == 0, ended
    assert holdfast("fork", "work.py", "p", "--at", "3", "--id", "k").code == 0
    assert holdfast("archive", "--out", "before").code == 0
    assert holdfast("forget", "f", "--yes").code == 0
    pruned = holdfast("prune", "--workflow", "flow", "--older-than", "0s", "--keep", "3", "--yes")
    assert "1 run pruned" in pruned.out, pruned
    assert holdfast.inside("show", "p", "--json").json()["status"] == "pruned"
    return holdfast


PRUNED = "error: run 'p' was pruned: its history was taken away; `holdfast show p` says by whom, and why"
ENDED = 6
OF_PRUNED: list[tuple[tuple[str, ...], int, str]] = [
    (("show", "p"), 0, "✂ pruned"),
    (("show", "p", "--at", "2"), ENDED, PRUNED),
    (("history", "p"), 0, "RunPruned"),
    (("history", "p", "--json"), 0, "RunPruned"),
    (("export", "p"), ENDED, PRUNED),
    (("export", "p", "--redact"), ENDED, PRUNED),
    (("diff", "p", "w"), ENDED, PRUNED),
    (("diff", "k", "p"), ENDED, PRUNED),
    (("replay", "work.py", "p"), ENDED, PRUNED),
    (("what-if", "work.py", "p", "--at", "2"), ENDED, PRUNED),
    (("fork", "work.py", "p", "--at", "2"), ENDED, PRUNED),
    (("rerun", "work.py", "p"), ENDED, PRUNED),
    (("reopen", "work.py", "p"), ENDED, PRUNED),
    (("resume", "work.py", "p"), ENDED, PRUNED),
    (("state", "work.py", "p"), ENDED, PRUNED),
    (("state", "work.py", "p", "phase"), ENDED, PRUNED),
    (("feed", "work.py", "p", "log"), ENDED, PRUNED),
    (("query", "work.py", "p", "progress"), ENDED, PRUNED),
    (("signal", "work.py", "p", "go", "x"), ENDED, "run 'p'"),
    (("request", "work.py", "p", "review", "x"), ENDED, "run 'p'"),
    (("cancel", "p"), ENDED, "has already ended: pruned"),
    (("terminate", "p"), ENDED, "has already ended: pruned"),
    (("pause", "p"), ENDED, "has already ended: pruned"),
    (("unpause", "p"), ENDED, "has already ended: pruned"),
    (("forget", "p"), ENDED, PRUNED),
    (("forget", "p", "--yes"), ENDED, PRUNED),
    (("run", "work.py:flow", "text=p", "--id", "p"), 2, "Its id stays taken: choose another"),
    (("verify", "p"), 0, "which is no damage"),
]
DESTROYED = "payloads of run 'f' were destroyed"
OF_FORGOTTEN: list[tuple[tuple[str, ...], int, str]] = [
    (("show", "f"), 0, "values of all events before that destroyed"),
    (("show", "f", "--at", "2"), 0, "running"),
    (("history", "f"), 0, "all values before this are made to be forgotten"),
    (("export", "f"), 5, DESTROYED),
    (
        ("diff", "f", "w"),
        0,
        "values were destroyed: what happened is compared, and no values are 1 facts and decisions are alike",
    ),
    (("replay", "work.py", "f"), 5, DESTROYED),
    (("what-if", "work.py", "f", "--at", "2"), 5, DESTROYED),
    (("fork", "work.py", "f", "--at", "2"), 5, DESTROYED),
    (("rerun", "work.py", "f"), 5, "the arguments of run 'f' were destroyed"),
    (("reopen", "work.py", "f"), 5, "run 'f'"),
    (("resume", "work.py", "f"), 0, "flow completed before; nothing was left to do"),
    (("state", "work.py", "f"), 0, "phase (none) destroyed"),
    (("state", "work.py", "f", "phase"), 3, "the value of state 'phase' of run 'f' was destroyed"),
    (("feed", "work.py", "f", "log"), 0, ""),
    (("query", "work.py", "f", "progress"), 5, DESTROYED),
    (("cancel", "f"), ENDED, "has already ended: completed"),
    (("forget", "f", "--yes"), 0, "0 destroyed"),
    (("run", "work.py:flow", "text=f", "--id", "f"), 2, "its arguments were destroyed, so that nobody can tell"),
    (("verify", "f"), 0, "which is no damage"),
]
BESIDE: list[tuple[tuple[str, ...], int, str]] = [
    (("show", "k"), 0, "fork of run p at version"),
    (("gate", "work.py", "--closed", "20"), 0, "0 break"),
    (("diff", "k", "w"), 0, ""),
    (("runs", "--status", "pruned"), 0, "✂ pruned"),
    (("verify",), 0, "which is no damage"),
]


@pytest.mark.parametrize(
    ("words", "code", "said"), [*OF_PRUNED, *OF_FORGOTTEN, *BESIDE], ids=lambda each: str(each)[:60]
)
def test_a_verb(gone: Command, words: tuple[str, ...], code: int, said: str) -> None:
    ended = gone.inside(*words)
    assert ended.code == code, ended
    text = " ".join((ended.out + ended.err).split())
    assert said in text, ended
    assert "unexpected" not in text


def test_lists_and_searches_show_neither_what_is_gone(gone: Command) -> None:
    listed = [each["run"] for each in gone.inside("runs", "--workflow", "flow", "--json").json()]
    assert sorted(listed) == ["f", "k", "w"]
    for customer, runs in (("p", ["k"]), ("f", []), ("w", ["w"])):  # k has what p had when it was forked
        found = gone.inside("runs", "--attribute", f"customer={customer}", "--json").json()
        assert [each["run"] for each in found] == runs, customer


def test_an_archive_from_before_has_it_and_a_later_one_has_what_is_left(gone: Command) -> None:
    import polars as pl

    assert gone("archive", "--out", "before").code == 0, "it is brought up to date"
    assert gone("archive", "--out", "behind").code == 0
    for folder, kinds in (("before", {"RunStarted", "RunCompleted", "RunPruned"}), ("behind", {"RunPruned"})):
        events = pl.concat(
            [pl.read_parquet(each) for each in sorted((gone.folder / folder / "events").glob("*.parquet"))]
        )
        of_pruned = events.filter(pl.col("stream") == "run:p")
        assert kinds <= set(of_pruned["type"]), folder
        left = of_pruned.filter(pl.col("header").is_null())
        assert len(left) == (0 if folder == "before" else len(of_pruned) - 1), folder
