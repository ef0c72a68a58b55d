"""The gate and `diagnose` on runs that were repaired: what was copied, and what was taken back."""

from __future__ import annotations

import pytest
from msgspec import structs

from engine import Diagnosis, Gate, HistoryEvent, State, diagnose, task, workflow
from engine.core.events import PrefixEnded, RunReopened, TaskCompleted
from engine.errors import HoldfastError, RunFailedError
from engine.runtime import recovery
from engine.runtime.recovery import try_run
from engine.testing import Lab, engine, history
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore

phase = State("phase", str)


class Code:
    """What a deployment changes."""

    mended = False


code = Code()


@pytest.fixture(autouse=True)
def _code() -> None:
    code.mended = False


@task
async def extract(n: int) -> int:
    return n


@task
async def load(n: int) -> int:
    return n * 10


@workflow
async def nightly(n: int) -> int:
    rows = await extract(n)
    return await load(rows)


@workflow(name="nightly")
async def changed(n: int) -> int:
    rows = await extract(n)
    return await extract(rows)


@workflow(name="nightly")
async def wordy(n: int) -> int:
    rows = await load(await extract(n))
    await phase.publish("done")
    return rows


@workflow(name="nightly")
async def broken(n: int) -> int:
    rows = await extract(n)
    if not code.mended:
        raise ValueError(rows)
    return await load(rows)


async def events_of(lab: Lab, run_id: str) -> list[HistoryEvent]:
    return list((await history(lab.engine.run(run_id))).events)


async def judged(lab: Lab, run_id: str, flow: object) -> Diagnosis | None:
    """What the gate finds of a run; `diagnose` must find the same of its history."""
    async with Gate(lab.memory, [flow]) as gate:  # type: ignore[list-item]
        verdict = await gate.check(run_id)
    assert verdict.known
    kept = diagnose(await events_of(lab, run_id), flow, run_id=run_id)  # type: ignore[arg-type]
    assert found(kept) == found(verdict.diagnosis)
    return verdict.diagnosis


def found(diagnosis: Diagnosis | None) -> Diagnosis | None:
    return None if diagnosis is None else structs.replace(diagnosis, advice="")


async def test_a_fork_is_replayed_with_what_it_copied() -> None:
    async with engine(nightly) as lab:
        run = await lab.start(nightly(4), id="r")
        assert await lab.result(run) == 40
        whole = len(await events_of(lab, "r"))
        forks = [await lab.engine.fork("r", at=at, id=f"f{at}") for at in range(1, whole + 1)]
        for fork in forks:
            assert await lab.result(fork) == 40
        own = [each.version for each in await events_of(lab, "f3") if isinstance(each.event, PrefixEnded)]
        forks.append(await lab.engine.fork("f3", at=own[0] + 1, id="f3f"))
        assert await lab.result(forks[-1]) == 40
        for fork in forks:
            assert await judged(lab, fork.id, nightly) is None
            there = [each.version for each in await events_of(lab, fork.id) if isinstance(each.event, TaskCompleted)]
            diagnosis = await judged(lab, fork.id, changed)
            assert diagnosis is not None
            assert (diagnosis.reason, diagnosis.version) == ("decisions", there[0]), fork.id


async def test_a_fork_that_has_just_been_made_fits_as_far_as_it_is() -> None:
    async with engine(nightly) as lab:
        await lab.result(await lab.start(nightly(4), id="r"))
        whole = len(await events_of(lab, "r"))
        for at in range(1, whole + 1):
            fork = await lab.engine.fork("r", at=at)
            await lab.result(fork)
            events = await events_of(lab, fork.id)
            own = next(n for n, each in enumerate(events) if isinstance(each.event, PrefixEnded))
            for end in range(own + 1, len(events) + 1):
                assert diagnose(events[:end], nightly, run_id=fork.id) is None, (at, end)
        with pytest.raises(HoldfastError, match="a history begins with RunStarted"):
            diagnose(events[:1], nightly)
        with pytest.raises(HoldfastError, match="a history begins with RunStarted"):
            diagnose([events[0], *events[2:]], nightly)


async def test_a_reopened_run_is_replayed_with_what_stands() -> None:
    async with engine(broken) as lab:
        run = await lab.start(broken(4), id="r")
        with pytest.raises(RunFailedError):
            await lab.result(run)
        failed = await events_of(lab, "r")
        assert diagnose(failed, broken, run_id="r") is None
        code.mended = True
        assert diagnose(failed, broken, run_id="r") is not None
        await lab.engine.reopen("r")
        assert await lab.result(lab.engine.run("r")) == 40
        events = await events_of(lab, "r")
        reopened = next(n for n, each in enumerate(events) if isinstance(each.event, RunReopened))
        for end in range(reopened + 1, len(events) + 1):  # as an export finds it at any moment
            assert diagnose(events[:end], broken, run_id="r") is None, end
        assert await judged(lab, "r", broken) is None
        diagnosis = await judged(lab, "r", changed)
        assert diagnosis is not None
        assert diagnosis.version == next(each.version for each in events if isinstance(each.event, TaskCompleted))
        more = await judged(lab, "r", wordy)  # it has ended again: what it decides then is all that it decides
        assert more is not None
        assert more.message == "the code decides more than it did when the run ended"


async def test_an_error_of_ours_is_a_diagnosis_and_one_of_the_store_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate, and a worker that looks after suspended runs, ask the same question."""

    async def fails(*_: object) -> None:
        raise LookupError("no such branch")

    async with engine(nightly) as lab, Gate(lab.memory, [nightly]) as gate:
        await lab.result(await lab.start(nightly(4), id="r"))
        head = await lab.memory.head("run:r")
        assert (await gate.check("r")).fits
        store = FaultyStore(lab.memory, lambda _number, name: "refuse" if name == "read" else None)
        with pytest.raises(StoreUnavailable):
            await try_run(store, head, nightly, gate._watchdog, versions=gate._definitions.find)
        monkeypatch.setattr(recovery, "feed", fails)
        diagnosis = (await gate.check("r")).diagnosis
        assert diagnosis is not None
        assert (diagnosis.reason, diagnosis.message) == ("internal", "LookupError: no such branch")
        tried = await try_run(lab.memory, head, nightly, gate._watchdog, versions=gate._definitions.find)
        assert tried == Diagnosis(reason="internal", message="no such branch", version=head.version)
