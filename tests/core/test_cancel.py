"""Cancellation: abandon or wait, within one turn, twice, late, shielded, and at the end of a run."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from engine import durable, task, workflow
from engine.core.events import (
    CancelRequested,
    RunCancelled,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCancelled,
    TimerFired,
    TimerStarted,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.instance import Decided, Instance
from engine.errors import HistoryError
from tests.core.cases import charge, fail_charge, undo, work
from tests.core.harness import RUN_ID, SEED, START, World, check_crashes, ending, play

LATER = START + 1_000


def begin(fn: Any) -> tuple[Instance, list[Decided]]:
    definition = workflow(fn)
    instance = Instance(definition, RUN_ID, tables=None)
    return instance, instance.deliver(RunStarted(at=START, workflow=definition.name, seed=SEED), b"{}")


def shown(decided: list[Decided]) -> list[str]:
    return [
        f"{type(event).__name__} {event.id.partition('/')[2]}".rstrip() for event in [each.event for each in decided]
    ]


def test_abandon_raises_at_once_and_refuses_the_late_outcome() -> None:
    async def waits() -> str:
        try:
            return await work("a")
        except asyncio.CancelledError:
            return "told"

    instance, _ = begin(waits)
    decided = instance.deliver(CancelRequested(at=LATER, reason="why"))
    assert shown(decided) == ["TaskCancelled work#1", "RunCompleted"]
    assert decided[-1].payload == b'"told"'
    with pytest.raises(HistoryError, match="has ended"):
        instance.deliver(TaskCompleted(at=LATER, id="waits/work#1"), b'"late"')


def test_a_late_fact_for_a_run_that_goes_on_is_refused() -> None:
    async def waits() -> str:
        try:
            return await work("a")
        except asyncio.CancelledError:
            return await work("b")

    instance, _ = begin(waits)
    instance.deliver(CancelRequested(at=LATER))
    for late in (TaskCompleted(at=LATER, id="waits/work#1"), TaskFailed(at=LATER, id="waits/work#1", error="X")):
        with pytest.raises(HistoryError, match="does not wait for such a task"):
            instance.deliver(late, b'"late"')
    with pytest.raises(HistoryError, match="no such timer"):
        instance.deliver(TimerFired(at=LATER, id="waits/timer#1"))
    decided = instance.deliver(TaskCompleted(at=LATER, id="waits/work#2"), b'"b"')
    assert shown(decided) == ["RunCompleted"]


def test_wait_ends_with_the_recorded_result_and_then_cancels() -> None:
    log: list[str] = []

    async def pays() -> str:
        log.append(await charge("a"))
        try:
            await work("next")
        except asyncio.CancelledError as error:
            log.append(f"cancelled {error}")
            raise
        return "never"

    instance, _ = begin(pays)
    assert shown(instance.deliver(CancelRequested(at=LATER, reason="why"))) == ["TaskCancelled charge#1"]
    assert instance.pending["pays/charge#1"].asked_to_end
    assert shown(instance.deliver(CancelRequested(at=LATER, reason="again"))) == []
    decided = instance.deliver(TaskCompleted(at=LATER, id="pays/charge#1"), b'"charged"')
    assert shown(decided) == ["RunCancelled"], "the next call was made and cancelled in one turn: no trace"
    assert log == ["charged", "cancelled why"]
    event = decided[0].event
    assert isinstance(event, RunCancelled)
    assert event.reason == "why"


def test_wait_ends_with_the_recorded_failure() -> None:
    async def pays() -> str:
        try:
            return await fail_charge("a")
        except ValueError as error:
            return f"failed {error}"

    instance, _ = begin(pays)
    instance.deliver(CancelRequested(at=LATER))
    info = encode_error(ErrorInfo(type="ValueError", message="a", args=("a",)))
    decided = instance.deliver(TaskFailed(at=LATER, id="pays/fail_charge#1", error="ValueError"), info)
    assert shown(decided) == ["RunCompleted"]
    assert decided[0].payload == b'"failed a"', "nothing was waited for after it: the cancellation found nobody"


def test_wait_at_the_end_of_a_run_is_not_waited_for_but_recorded() -> None:
    async def leaves() -> str:
        asyncio.create_task(charge("left"))
        asyncio.create_task(work("left"))
        asyncio.get_running_loop().call_later(60, print)
        return await work("main")

    instance, decided = begin(leaves)
    assert len(decided) == 4
    decided = instance.deliver(TaskCompleted(at=LATER, id="leaves/work#1"), b'"x"')
    assert sorted(shown(decided)) == [
        "RunCompleted",
        "TaskCancelled charge~1/charge#1",
        "TaskCancelled work~1/work#1",
        "TimerCancelled timer#1",
    ]
    assert shown(decided)[-1] == "RunCompleted"
    assert not instance.pending
    assert not instance.timers


@pytest.mark.parametrize("callee", [work, charge], ids=["abandon", "wait"])
def test_a_call_made_and_cancelled_in_one_turn_leaves_no_trace(callee: Any) -> None:
    async def changes_its_mind() -> str:
        branch = asyncio.create_task(callee("unwanted"))
        await asyncio.sleep(0)
        branch.cancel()
        never_run = asyncio.create_task(callee("not even begun"))
        never_run.cancel()
        await asyncio.wait([branch, never_run])
        assert branch.cancelled()
        assert never_run.cancelled()
        return await callee("wanted")

    instance, decided = begin(changes_its_mind)
    assert shown(decided) == [f"TaskScheduled {callee.name}#1"]
    assert set(instance.pending) == {f"changes_its_mind/{callee.name}#1"}
    history = play(World(workflow(changes_its_mind)()))
    check_crashes(World(workflow(changes_its_mind)()), history)


def test_timers_cancelled_in_the_turn_they_were_started_leave_no_trace_and_later_ones_do() -> None:
    async def limits() -> None:
        async with asyncio.timeout(5):
            pass
        async with asyncio.timeout(5):
            await work("a")

    _, decided = begin(limits)
    assert shown(decided) == ["TimerStarted timer#2", "TaskScheduled work#1"]
    history = play(World(workflow(limits)()))
    kinds = [type(e.event).__name__ for e in history if isinstance(e.event, TimerStarted | TimerCancelled)]
    assert kinds == ["TimerStarted", "TimerCancelled"]


def test_shield_keeps_the_call_and_the_run_cancels_it_at_its_end() -> None:
    async def shields() -> str:
        inner = asyncio.ensure_future(work("inner"))
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            return f"{await work('after')} {inner.done()}"

    instance, _ = begin(shields)
    assert shown(instance.deliver(CancelRequested(at=LATER))) == ["TaskScheduled work#1"]
    decided = instance.deliver(TaskCompleted(at=LATER, id="shields/work#1"), b'"x"')
    assert shown(decided) == ["TaskCancelled work~1/work#1", "RunCompleted"]


def test_cancelled_before_its_first_wait() -> None:
    """A run whose first turn ends it takes no cancellation; one that waits is cancelled where it waits."""

    async def at_once() -> int:
        return 1

    instance, _ = begin(at_once)
    with pytest.raises(HistoryError, match="has ended"):
        instance.deliver(CancelRequested(at=LATER))


def test_cancelled_while_nothing_durable_is_pending() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    instance, decided = begin(waits)
    assert decided == []
    assert shown(instance.deliver(CancelRequested(at=LATER))) == ["RunCancelled"]


def test_a_workflow_may_clean_up_and_be_cancelled_again_meanwhile() -> None:
    async def cleans() -> None:
        try:
            await work("a")
        finally:
            await undo("a")

    instance, _ = begin(cleans)
    assert shown(instance.deliver(CancelRequested(at=LATER, reason="one"))) == [
        "TaskCancelled work#1",
        "TaskScheduled undo#1",
    ]
    decided = instance.deliver(CancelRequested(at=LATER, reason="two"))
    assert shown(decided) == ["TaskCancelled undo#1", "RunCancelled"]


def expiring(fn: Any, *, parent: str = "") -> Instance:
    """A run that has begun, of a workflow function of no arguments, with a deadline at `LATER`."""
    definition = workflow(fn)
    instance = Instance(definition, RUN_ID, tables=None)
    started = RunStarted(at=START, workflow=definition.name, seed=SEED, deadline=LATER, parent=parent)
    decided = instance.deliver(started, b"{}")
    assert shown(decided)[0] == "TimerStarted timer#1"
    return instance


async def cleans() -> None:
    try:
        await work("a")
    finally:
        await undo("a")


def passed() -> TimerFired:
    return TimerFired(at=LATER, id="cleans/timer#1")


UNDONE = TaskCompleted(at=LATER, id="cleans/undo#1")


@pytest.mark.parametrize("by", ["run p", "somebody"])
def test_a_deadline_leaves_a_run_to_its_clean_up_that_was_asked_to_end_before(by: str) -> None:
    instance = expiring(cleans, parent="p")
    assert shown(instance.deliver(CancelRequested(at=LATER, by=by))) == ["TaskCancelled work#1", "TaskScheduled undo#1"]
    assert shown(instance.deliver(passed())) == []
    assert shown(instance.deliver(UNDONE, b'"undone"')) == ["RunCancelled"]


def test_a_parent_leaves_a_run_to_its_clean_up_that_is_past_its_deadline() -> None:
    instance = expiring(cleans, parent="p")
    assert shown(instance.deliver(passed())) == ["TaskCancelled work#1", "TaskScheduled undo#1"]
    assert shown(instance.deliver(CancelRequested(at=LATER, by="run p"))) == []
    decided = instance.deliver(UNDONE, b'"undone"')
    assert shown(decided) == ["RunFailed"]
    assert decided[-1].event.error == "engine.errors.RunDeadlineExceeded"  # type: ignore[union-attr]


def test_whoever_cancels_a_run_that_is_past_its_deadline_means_it() -> None:
    instance = expiring(cleans, parent="p")
    instance.deliver(passed())
    decided = instance.deliver(CancelRequested(at=LATER, by="somebody"))
    assert shown(decided) == ["TaskCancelled undo#1", "RunCancelled"]


async def work_that_is_called_off() -> None:
    """Whoever awaits this goes on after a cancellation, and says so as asyncio asks."""
    try:
        await work("a")
    except asyncio.CancelledError:
        task_ = asyncio.current_task()
        assert task_ is not None
        task_.uncancel()


def test_a_deadline_cancels_a_run_that_took_its_cancellation_back() -> None:
    async def goes_on() -> None:
        await work_that_is_called_off()
        await work("b")

    instance = expiring(goes_on)
    instance.deliver(CancelRequested(at=LATER))
    decided = instance.deliver(TimerFired(at=LATER, id="goes_on/timer#1"))
    assert shown(decided) == ["TaskCancelled work#2", "RunFailed"]


def test_a_deadline_is_not_lost_when_a_timeout_within_has_just_passed() -> None:
    async def goes_on() -> None:
        await work_that_is_called_off()
        async with asyncio.timeout(0.0005):
            try:
                await work("b")
            finally:
                await undo("b")

    instance = expiring(goes_on)
    instance.deliver(CancelRequested(at=START + 1))
    decided = instance.deliver(TimerFired(at=START + 501, id="goes_on/timer#2"))
    assert shown(decided) == ["TaskCancelled work#2", "TaskScheduled undo#1"]
    decided = instance.deliver(TimerFired(at=LATER, id="goes_on/timer#1"))
    assert shown(decided) == ["TaskCancelled undo#1", "RunFailed"]


@pytest.mark.parametrize(("first", "ending_"), [("deadline", "RunFailed"), ("cancel", "RunCancelled")])
def test_a_deadline_waits_until_a_shielded_section_is_left(first: str, ending_: str) -> None:
    async def careful() -> None:
        try:
            async with durable.shielded():
                await work("a")
            await work("never")
        finally:
            await undo("a")

    instance = expiring(careful, parent="p")
    facts = [TimerFired(at=LATER, id="careful/timer#1"), CancelRequested(at=LATER, by="run p")]
    for fact in facts if first == "deadline" else reversed(facts):
        assert shown(instance.deliver(fact)) == []
    left = instance.deliver(TaskCompleted(at=LATER, id="careful/work#1"), b'"a"')
    assert shown(left) == ["TaskScheduled undo#1"]
    assert shown(instance.deliver(TaskCompleted(at=LATER, id="careful/undo#1"), b'"a"')) == [ending_]


def test_a_workflow_that_cancels_itself_says_why() -> None:
    async def cancels_itself() -> None:
        task_ = asyncio.current_task()
        assert task_ is not None
        task_.cancel("enough")
        await work("never")

    _, decided = begin(cancels_itself)
    assert [each.event for each in decided] == [RunCancelled(at=START, reason="enough")]


@pytest.mark.parametrize("payload", [b'"one"', None])
def test_a_destroyed_or_unfitting_result_is_not_swallowed(payload: bytes | None) -> None:
    async def waits() -> None:
        await counts()

    @task
    async def counts() -> int:
        return 1

    instance, _ = begin(waits)
    with pytest.raises(Exception, match="counts#1|the result of task 'counts'"):
        instance.deliver(TaskCompleted(at=LATER, id="waits/counts#1"), payload)


def test_gather_of_waiting_calls_keeps_every_outcome() -> None:
    async def pays() -> list[str]:
        branches = [asyncio.create_task(charge(label)) for label in "ab"]
        try:
            return list(await asyncio.gather(*branches))
        except asyncio.CancelledError:
            return ["cancelled", *[branch.result() for branch in branches]]

    instance, _ = begin(pays)
    assert sorted(shown(instance.deliver(CancelRequested(at=LATER)))) == [
        "TaskCancelled charge~1/charge#1",
        "TaskCancelled charge~2/charge#1",
    ]
    assert shown(instance.deliver(TaskCompleted(at=LATER, id="pays/charge~2/charge#1"), b'"B"')) == []
    decided = instance.deliver(TaskCompleted(at=LATER, id="pays/charge~1/charge#1"), b'"A"')
    # gather was asked to cancel while its children went on: it ends as cancelled, and they have their outcomes.
    assert shown(decided) == ["RunCompleted"]
    assert decided[0].payload == b'["cancelled","A","B"]'


def test_anyio_cancellation_waits_for_a_waiting_call_without_spinning() -> None:
    async def pays() -> list[Any]:
        log: list[Any] = []
        async with anyio.create_task_group() as group:

            async def pay() -> None:
                log.append(await charge("a"))
                log.append(await work("never"))

            group.start_soon(pay)
            log.append(await work("main"))
            group.cancel_scope.cancel()
        return [*log, group.cancel_scope.cancelled_caught]

    instance, _ = begin(pays)
    assert shown(instance.deliver(TaskCompleted(at=LATER, id="pays/work#1"), b'"m"')) == [
        "TaskCancelled pay~1/charge#1"
    ]
    decided = instance.deliver(TaskCompleted(at=LATER, id="pays/pay~1/charge#1"), b'"c"')
    assert shown(decided) == ["RunCompleted"]
    assert decided[0].payload == b'["m","c",true]'


def test_level_cancellation_is_not_lost_over_a_shielded_part() -> None:
    """Every await after the shielded one is cancelled, turns later."""

    async def stubborn() -> list[str]:
        log = []
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                log.append(await work("shielded", 1))
                log.append(await work("shielded", 2))
            for n in range(3):
                try:
                    await work("cancelled", n)
                except asyncio.CancelledError:
                    log.append(f"told {n}")
        return [*log, await work("after")]

    history = play(World(workflow(stubborn)()))
    assert ending(history) == (
        "completed",
        b'["shielded:1","shielded:2","told 0","told 1","told 2","after:0"]',
    )
    scheduled = [e.event.id for e in history if isinstance(e.event, TaskScheduled)]
    assert len(scheduled) == 3
    assert not [e for e in history if isinstance(e.event, TaskCancelled)]
