"""`durable.patched`: which way a run goes at a change of its code, whatever it was doing when the code came."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from engine import Query, Request, durable, workflow
from engine.core.compare import Mismatch
from engine.core.events import ContinuedAsNew, PatchMarked, RunStarted, TaskScheduled
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.errors import ForbiddenInWorkflow, HoldfastError
from tests.core.cases import undo, work
from tests.core.harness import (
    RUN_ID,
    History,
    World,
    ending,
    executions,
    explore,
    groups,
    play,
    rebuild,
    request,
    resume,
    seeded,
    signal,
)
from tests.core.test_replay import refused, replay


def of(definition: Any, *args: Any, **more: Any) -> World:
    return World(definition(*args), **more)


def markers(history: History) -> list[str]:
    return [entry.event.name for entry in history if isinstance(entry.event, PatchMarked)]


def tasks(history: History) -> list[str]:
    return [id_.rpartition("/")[2] for id_ in executions(history)]


@workflow(name="order")
async def before(customer: str) -> list[str]:
    return [await work("check", 1), await work("old", 1), await work("end")]


@workflow(name="order")
async def patched(customer: str) -> list[str]:
    found = [await work("check", 1)]
    found.append(await (undo("new") if durable.patched("undo") else work("old", 1)))
    return [*found, await work("end")]


@workflow(name="order")
async def deprecated(customer: str) -> list[str]:
    found = [await work("check", 1)]
    durable.deprecate_patch("undo")
    return [*found, await undo("new"), await work("end")]


@workflow(name="order")
async def removed(customer: str) -> list[str]:
    return [await work("check", 1), await undo("new"), await work("end")]


def test_a_new_run_goes_the_new_way_and_says_so() -> None:
    history = play(of(patched, "ann"))
    assert markers(history) == ["undo"]
    assert tasks(history) == ["work#1", "undo#1", "work#2"]
    marker = next(entry.event for entry in history if isinstance(entry.event, PatchMarked))
    assert marker.id == "patch:undo"
    assert marker.site.startswith("test_patches.py:")
    behind = [type(entry.event) for entry in history]
    assert behind.index(PatchMarked) == behind.index(TaskScheduled, behind.index(PatchMarked)) - 1


@pytest.mark.parametrize("length", range(1, len(play(of(before, "ann"))) + 1))
def test_a_history_of_the_old_code_goes_on_from_any_event(length: int) -> None:
    """Past the place: the old way, with no decision of the patch's own. At the place or before: the new one."""
    old = play(of(before, "ann"))
    world = of(patched, "ann")
    again = resume(world, old[:length])
    went_past = any(
        isinstance(entry.event, TaskScheduled) and entry.event.id.endswith("work#2") for entry in old[:length]
    )
    assert markers(again) == ([] if went_past else ["undo"])
    assert again[:length] == old[:length]
    assert ending(again)[0] == "completed"
    for crash in range(length, len(again) + 1):  # and from there it is as stable as any other
        assert groups(resume(world, again[:crash])) == groups(again)


def test_all_stages_fit_what_the_stage_before_wrote() -> None:
    by_stage = {each: play(of(each, "ann")) for each in (before, patched, deprecated, removed)}
    assert markers(by_stage[deprecated]) == ["undo"]  # a worker with the code that asks, finds the marker
    fits = {
        before: [before],
        patched: [before, patched, deprecated],
        deprecated: [patched, deprecated, removed],
        removed: [patched, deprecated, removed],
    }
    for code, good in fits.items():
        for writer, history in by_stage.items():
            if writer in good:
                assert replay(code, history).finish() == []
            else:
                assert refused(code, history).reason == "decisions"


def test_a_mismatch_says_which_patch_was_not_seen() -> None:
    diagnosis = refused(deprecated, play(of(before, "ann")))
    (hint,) = diagnosis.hints
    line = deprecated.fn.__code__.co_firstlineno + 3
    assert f"patch 'undo', asked for at test_patches.py:{line}, is not in this history" in hint
    assert f"  note: {hint}" in diagnosis.render()
    assert "patched" in diagnosis.advice


def test_a_mismatch_says_which_patch_the_code_does_not_ask_for() -> None:
    diagnosis = refused(before, play(of(patched, "ann")))
    (hint,) = diagnosis.hints
    assert hint.startswith("this history has patch 'undo' (from test_patches.py:")
    assert [(d.recorded.partition("(")[0], d.decided.partition("(")[0]) for d in diagnosis.differences] == [
        ("undo", "work")
    ]


def test_no_mismatch_no_hint() -> None:
    @workflow(name="order")
    async def other(customer: str) -> list[str]:
        return [await undo("other")]

    assert refused(other, play(of(before, "ann"))).hints == ()


def test_the_answer_stands_for_the_run() -> None:
    """Asked first where the history went past, a run goes the old way at later places, too, live ones included."""

    @workflow(name="twice")
    async def once() -> list[str]:
        return [await work("a"), await work("b"), await work("c")]

    @workflow(name="twice")
    async def twice() -> list[str]:
        first = await (undo("a") if durable.patched("p") else work("a"))
        second = await work("b")
        return [first, second, await (undo("c") if durable.patched("p") else work("c"))]

    old = play(of(once))
    for length in range(1, len(old) + 1):
        again = resume(of(twice), old[:length])
        assert markers(again) == (["p"] if length == 1 else [])
        assert tasks(again) == (["undo#1", "work#1", "undo#2"] if length == 1 else ["work#1", "work#2", "work#3"])


def test_a_marker_that_an_earlier_place_contradicts_is_explained() -> None:
    @workflow(name="moved")
    async def late() -> list[str]:
        return [await work("a"), await (undo("b") if durable.patched("p") else work("b"))]

    @workflow(name="moved")
    async def early() -> list[str]:
        first = await (undo("a") if durable.patched("p") else work("a"))
        return [first, await (undo("b") if durable.patched("p") else work("b"))]

    diagnosis = refused(early, play(of(late)))
    assert "give the earlier place a patch of another name" in diagnosis.message
    assert f"test_patches.py:{early.fn.__code__.co_firstlineno + 2}" in diagnosis.message


def test_a_patch_that_another_branch_asked_for_first_is_found() -> None:
    """The branch that marked it asks no more; another, which asks later, finds it all the same."""

    async def one(asks: bool) -> str:
        if asks:
            durable.patched("p")
        return await work("one")

    async def two() -> str:
        await work("two")
        return await (undo("two") if durable.patched("p") else work("old"))

    @workflow(name="branches")
    async def both() -> list[str]:
        return await asyncio.gather(one(True), two())

    @workflow(name="branches")
    async def second_only() -> list[str]:
        return await asyncio.gather(one(False), two())

    for _, history in explore(of(both), limit=20):
        assert markers(history) == ["p"]
        assert replay(second_only, history).finish() == []


def test_in_branches_under_every_schedule() -> None:
    """Old histories of two branches, cut anywhere: each run goes one way at the patch, and replays to the same."""

    async def old_branch(k: int) -> str:
        return await work("a", k) + await work("b", k)

    async def new_branch(k: int) -> str:
        return await work("a", k) + await (undo(f"b{k}") if durable.patched("p") else work("b", k))

    new_branch.__qualname__ = old_branch.__qualname__

    @workflow(name="branches")
    async def old() -> list[str]:
        return await asyncio.gather(old_branch(1), old_branch(2))

    @workflow(name="branches")
    async def new() -> list[str]:
        return await asyncio.gather(new_branch(1), new_branch(2))

    for world, history in explore(of(old), limit=30):
        for length in range(1, len(history) + 1):
            this = replace(world, call=new(), widths=[])
            again = resume(this, history[:length])
            ways = {"undo" if each.startswith("undo") else "b" for each in map(str, _second_calls(again))}
            assert len(ways) == 1, (length, tasks(again))
            assert markers(again) == (["p"] if ways == {"undo"} else [])
            for crash in range(length, len(again) + 1):
                assert groups(resume(replace(this, widths=[]), again[:crash])) == groups(again)


def _second_calls(history: History) -> list[str]:
    """Of each branch, what it called second."""
    ids = [(id_.rpartition("/")[0], id_.rpartition("/")[2], args) for id_, args in executions(history).items()]
    return [name for _, name, args in ids if name.startswith("undo") or b'"b"' in (args or b"")]


def test_a_large_group_written_in_part() -> None:
    """The last group may be cut anywhere: a marker that was still to be written is written, one of later code is not."""

    @workflow(name="wide")
    async def wide() -> list[str]:
        first = [asyncio.ensure_future(work("a", k)) for k in range(5)]
        await asyncio.sleep(0)
        way = undo("new") if durable.patched("p") else work("old")
        rest = [asyncio.ensure_future(work("b", k)) for k in range(5)]
        return [*await asyncio.gather(*first), await way, *await asyncio.gather(*rest)]

    @workflow(name="wide")
    async def wide_before() -> list[str]:
        first = [asyncio.ensure_future(work("a", k)) for k in range(5)]
        await asyncio.sleep(0)
        way = work("old")
        rest = [asyncio.ensure_future(work("b", k)) for k in range(5)]
        return [*await asyncio.gather(*first), await way, *await asyncio.gather(*rest)]

    new = play(of(wide))
    for length in range(1, 14):
        assert groups(resume(of(wide), new[:length])) == groups(new)
    old = play(of(wide_before))
    for length in range(1, 14):
        decided = [entry.event for entry in old[:length] if isinstance(entry.event, TaskScheduled)]
        assert markers(resume(of(wide), old[:length])) == (["p"] if len(decided) <= 5 else [])


def test_a_fix_reaches_a_run_that_stands_in_the_turn_it_mends() -> None:
    """A run whose last fact led to no decision (it waits for a signal, or was suspended there) goes the new way."""

    from engine import Signal

    go = Signal("go", int)

    @workflow(name="waits")
    async def old() -> int:
        await work("a")
        return await go.receive()

    @workflow(name="waits")
    async def new() -> int:
        await work("a")
        if durable.patched("p"):
            await undo("mended")
        return await go.receive()

    history = play(of(old, mail=signal("go", "1")))
    cut = [index for index, entry in enumerate(history) if type(entry.event).__name__ == "SignalReceived"][0]
    again = resume(of(new, mail=signal("go", "1")), history[:cut])
    assert markers(again) == ["p"]
    assert replay(new, history).finish() == []  # one that went on without it stays as it is


def test_each_epoch_is_asked_anew() -> None:
    @workflow(name="epochs")
    async def old(n: int) -> str:
        await work("a", n)
        if n == 1:
            return "end"
        await durable.continue_as_new(old(n + 1))

    @workflow(name="epochs")
    async def new(n: int) -> str:
        await (undo("a") if durable.patched("p") else work("a", n))
        if n == 1:
            return "end"
        await durable.continue_as_new(new(n + 1))

    history = play(of(old, 0))
    (end,) = [index for index, entry in enumerate(history) if isinstance(entry.event, ContinuedAsNew)]
    begins = [index for index, entry in enumerate(history) if isinstance(entry.event, RunStarted)][1]
    for length, marked in ((end, ["p"]), (end + 1, ["p"]), (begins + 1, ["p"]), (len(history), [])):
        assert markers(resume(of(new, 0), history[:length])) == marked


def test_names_that_cannot_be() -> None:
    for name in ("", "a\nb", "x" * 101, 7):

        @workflow(name="bad")
        async def bad(name: Any = name) -> str:
            try:
                durable.patched(name)
            except HoldfastError as error:
                return str(error)
            return "taken"

        assert b"cannot name a patch: 1 to 100 printable characters" in (ending(play(of(bad)))[1] or b"")
    with pytest.raises(HoldfastError, match=r"durable.patched\(\) works only inside a workflow"):
        durable.patched("p")


def test_validators_and_queries_decide_nothing() -> None:
    """They may ask for what the workflow has asked for already."""
    ask = Request("ask", int, int)
    way = Query("way", None, str)

    @workflow(name="asked")
    async def asked() -> str:
        durable.patched("known")
        way.provide(lambda: f"{durable.patched('known')} {durable.patched('unknown')}")
        async with ask.serve(echo, validator=small):
            return await work("a")

    def small(n: int) -> None:
        if not durable.patched("known"):
            raise ValueError(n)

    async def echo(n: int) -> int:
        return n

    world = of(asked, mail=request("ask", "1"))
    history = play(replace(world, pick=seeded(3)))
    assert markers(history) == ["known"]
    replayer, _ = rebuild(world, history[: [type(e.event).__name__ for e in history].index("TaskCompleted")])
    instance = replayer.instance
    with pytest.raises(ForbiddenInWorkflow, match="patch 'unknown' was asked for by a validator or a query first"):
        instance.ask(instance.inbox.queries["way"])
    assert instance.inbox.refusal("ask", b"2") is None
    instance.evict()


def test_a_replay_that_asks_in_vain_leaves_nothing_behind() -> None:
    """In an old history the patch is no decision, and after the replay the instance is a live one."""
    old = play(of(before, "ann"))
    replayer = Replayer(patched, RUN_ID, versions=None, tables=None)
    for version, entry in enumerate(old[:-3], 1):
        replayer.feed(version, entry.event, entry.payload)
    assert replayer.finish() == []
    instance: Instance = replayer.instance
    assert instance.patches.recorded is None
    assert not instance.decided
    instance.evict()
    with pytest.raises(Mismatch):
        replay(removed, old).finish()
