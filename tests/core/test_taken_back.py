"""Histories in which a turn was taken back, or that a fork has copied: every construct, cut at every group.

Whatever was taken back was as if it had never been: told once more, the run comes to the same end, and the fold knows
at that place what the instance knows.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import durable, workflow
from engine.core.compare import Mismatch
from engine.core.events import (
    CancelRequested,
    ChildFailed,
    ContinuedAsNew,
    Decision,
    Event,
    Fact,
    PatchMarked,
    PrefixEnded,
    RunCompleted,
    RunFailed,
    RunForked,
    RunReopened,
    RunTerminated,
    TaskFailed,
    decode_header,
    encode_header,
)
from engine.core.fold import RunState
from engine.core.replay import Replayer
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case, work
from tests.core.harness import RUN_ID, Entry, History, World, fold, play, rebuild, seeded

OPEN = ("scheduled", "running", "retrying", "handed out")


def note(event: Event) -> Entry:
    return Entry(encode_header(event), None)


def cuts(history: History) -> Iterator[tuple[int, int]]:
    """Of each group where its fact stands, and where the next one does."""
    facts = [index for index, entry in enumerate(history) if isinstance(entry.event, Fact)]
    return zip(facts, [*facts[1:], len(history)], strict=True)


def variants(history: History) -> Iterator[tuple[str, History, int]]:
    """A name, a history that means the same, and how much of it stands up to where it goes on."""
    for start, end in cuts(history):
        fact, at = history[start].event, history[end - 1].event.at
        group = history[start:end]
        again = [entry for entry in group if isinstance(entry.event, Decision)]
        ended = [note(RunTerminated(at=at)), note(RunReopened(at=at, takes_back="end"))]
        over = end == len(history)
        if not over:
            yield "end", [*history[:end], *ended, *history[end:]], end + 2
        retold = [*history[:end], note(RunReopened(at=at, takes_back="decisions")), *again]
        yield "decisions", [*retold, *history[end:]], len(retold)
        if isinstance(fact, TaskFailed | CancelRequested | ChildFailed):
            anew = [*history[:end], note(RunReopened(at=at)), *group]
            yield "turn", [*anew, *history[end:]], len(anew)
        fork = [note(RunForked(at=at, origin=RUN_ID, version=end, digest=""))]
        if not any(isinstance(entry.event, ContinuedAsNew) for entry in group) and not over:
            whole = [*fork, *history[:end], note(PrefixEnded(at=at))]
            yield "fork behind a turn", [*whole, *history[end:]], len(whole)
        told = [*fork, *history[: start + 1], note(PrefixEnded(at=at, retold=True)), *again]
        yield "fork at a fact", [*told, *history[end:]], len(told)


def replayed(case: Case | World, history: History) -> Replayer:
    replayer = Replayer(case.definition, RUN_ID, versions=None, tables=None)
    for version, entry in enumerate(history, 1):
        replayer.feed(version, entry.event, entry.payload)
    assert replayer.finish() == []
    return replayer


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_what_was_taken_back_is_as_if_it_had_never_been(case: Case) -> None:
    history = play(case.world(seeded(5)))
    expected = fold(history)
    for name, other, until in variants(history):
        replayer = replayed(case, other[:until])
        instance, state = replayer.instance, RunState(run_id=RUN_ID)
        for version, entry in enumerate(other[:until], 1):
            state.apply(version, entry.event, entry.payload)
        wanted = {id_ for id_, pending in instance.pending.items() if not pending.asked_to_end}
        assert {id_ for id_, task in state.tasks.items() if task.status in OPEN} == wanted, name
        assert state.timers == {id_: timer.deadline for id_, timer in instance.timers.items()}, name
        instance.evict()
        whole = replayed(case, other)
        assert whole.instance.over, name
        whole.instance.evict()
        ended = fold(other)
        assert (ended.status, ended.result, ended.error, ended.reason) == (
            expected.status,
            expected.result,
            expected.error,
            expected.reason,
        ), name
        assert {id_: task.status for id_, task in ended.tasks.items()} == {
            id_: task.status for id_, task in expected.tasks.items()
        }, name


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (['{"type":"RunReopened","at":9}', '{"type":"RunReopened","at":9}'], "a turn is taken back, and there is none"),
        (['{"type":"PrefixEnded","at":9}'], "it says that a prefix has ended, but it is no fork"),
    ],
)
def test_histories_that_nobody_writes_are_refused(broken: list[str], said: str) -> None:
    case = CASES["gather_branches"]
    history = play(case.world(seeded(1)))
    replayer = Replayer(case.definition, RUN_ID, versions=None, tables=None)
    with pytest.raises(Mismatch, match=said):
        for version, entry in enumerate(history, 1):
            replayer.feed(version, entry.event, entry.payload)
        for header in broken:
            replayer.feed(99, decode_header(header.encode()), None)
        replayer.finish()


@pytest.mark.parametrize("retold", [True, False])
def test_a_fork_of_nothing(retold: bool) -> None:
    replayer = Replayer(CASES["gather_branches"].definition, RUN_ID, versions=None, tables=None)
    replayer.feed(1, RunForked(at=1, origin="another", version=0, digest=""), None)
    with pytest.raises(Mismatch, match="nothing has happened before"):
        replayer.feed(2, PrefixEnded(at=9, retold=retold), None)


def test_a_fork_that_holds_what_it_was_to_decide() -> None:
    case = CASES["gather_branches"]
    history = play(case.world(seeded(1)))
    replayer = Replayer(case.definition, RUN_ID, versions=None, tables=None)
    replayer.feed(1, RunForked(at=1, origin=RUN_ID, version=1, digest=""), None)
    with pytest.raises(Mismatch, match="holds decisions of the turn that it was to decide anew"):
        for version, entry in enumerate(history[:3], 2):
            replayer.feed(version, entry.event, entry.payload)
        replayer.feed(9, PrefixEnded(at=9, retold=True), None)


def test_a_fork_that_holds_a_marker_of_what_it_was_to_decide() -> None:
    history = play(World(raises_at_a_patch()))
    replayer = Replayer(World(raises_at_a_patch()).definition, RUN_ID, versions=None, tables=None)
    replayer.feed(1, RunForked(at=1, origin=RUN_ID, version=1, digest=""), None)
    with pytest.raises(Mismatch, match="holds decisions of the turn that it was to decide anew"):
        for version, entry in enumerate(history[:2], 2):
            replayer.feed(version, entry.event, entry.payload)
        assert isinstance(history[1].event, PatchMarked)
        replayer.feed(9, PrefixEnded(at=9, retold=True), None)


@workflow(name="patches")
async def raises_at_a_patch() -> str:
    durable.patched("stays")
    await work("check")
    if durable.patched("p"):
        raise ValueError("the new way is wrong")
    return "old"


@workflow(name="patches")
async def asks_for_another_before() -> str:
    durable.patched("stays")
    await work("check")
    if durable.patched("q"):
        return "mended"
    if durable.patched("p"):
        raise ValueError("the new way is wrong")
    return "old"


def test_markers_of_a_turn_that_was_taken_back_count_no_more() -> None:
    """A patch is the mend: it stands before the place that the turn had come to, which nobody has gone past now."""
    history = play(World(raises_at_a_patch()))
    assert isinstance(history[-1].event, RunFailed)
    assert sorted(fold(history).patches) == ["p", "stays"]
    history.append(note(RunReopened(at=history[-1].event.at, takes_back="decisions")))
    assert sorted(fold(history).patches) == ["stays"]
    replayer, recorder = rebuild(World(asks_for_another_before()), history)
    assert isinstance(replayer.instance.outcome, RunCompleted)
    assert [entry.event.name for entry in recorder.history if isinstance(entry.event, PatchMarked)] == [
        "stays",
        "p",
        "q",
    ]
    replayer.instance.evict()
    whole = replayed(World(asks_for_another_before()), recorder.history)  # and what it wrote is told likewise
    assert isinstance(whole.instance.outcome, RunCompleted)
    assert list(whole.instance.patches.hints()) == []
    whole.instance.evict()
    assert sorted(fold(recorder.history).patches) == ["q", "stays"]
