"""What holds at the end of a play: of every history, of what every run resulted in, and of what the store keeps."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from engine.core.events import (
    CancelRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunStarted,
    RunTerminated,
    decode_header,
)
from eventstore import EventStore
from eventstore.memory import MemoryStore
from tests.runtime.invariants import ENDS, Broken, check_history, check_store, counting
from tests.simulation.copies import check_copy
from tests.simulation.given import number_of, programs_of
from tests.simulation.materials import judge_materials
from tests.simulation.oracle import FAILED, ends_of
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import WORKFLOWS, fails_to_answer, given_in, kinds_of, served
from tests.simulation.scenarios import Run, Scenario
from tests.simulation.stores import Ledger
from tests.simulation.taken import Remembered

__all__ = ["allowed_of", "judge"]

Ends: TypeAlias = frozenset[str] | None
"""See `ends_of`."""


class Allowed(Struct):
    """What its programs may result in."""

    of_runs: list[list[Ends]]  # by run and epoch
    of_children: dict[str, Ends]  # by what they are given to do; of those that may be repaired


CALM = frozenset(
    {"seq", "gather", "group", "lock", "within", "shield", "serve", "child", "spawn", "guide", "receive", "take"}
    | {
        "sleep",
        "tell",
        "halt",
        "publish",
        "mark",
        "beating",
        "kept",
        "fresh",
        "handed",
        "ok",
        "flaky",
        "hangs",
        "pooled",
        "both",
        "rated",
        "charge",
        "paid",
        "plain",
        "broken",
        "raise",
    }
)
"""A program of these that completes has left all of its blocks, and none of them by an error."""


def allowed_of(scenario: Scenario) -> Allowed:
    """Runs loops of its own."""
    of_children: dict[str, Ends] = {}
    for run in scenario.runs:
        if any(repair.of == "child" for repair in run.repairs):
            of_children |= {json.dumps(each): ends_of(each) for program in run.epochs for each in given_in(program)}
    return Allowed([[ends_of(program) for program in run.epochs] for run in scenario.runs], of_children)


async def judge(there: MemoryStore, scenario: Scenario, ledger: Ledger, allowed: Allowed) -> None:
    """Says what is broken to the outside (`OUTSIDE.broke`)."""
    await ledger.compare(there)
    store: Any = Remembered(there, ledger.taken)
    try:
        await check_store(store, *WORKFLOWS)  # grammar of events, timers, digests, marks, replay
        ledger.checks["histories, digests and replays"] += sum(name.startswith("run:") for name in ledger.headers)
    except Broken as error:
        OUTSIDE.broke("history", str(error))
    ledger.wishes.judge()
    ledger.sends.judge()
    ledger.bursts.judge()
    await ledger.footprints.judge(there)
    await ledger.taken.judge(there, ledger.headers)
    for number, run in enumerate(scenario.runs):
        ledger.checks["ends as on plain asyncio"] += await _ended(
            store, f"r{number}", run, allowed.of_runs[number], ledger
        )
    await _judge_children(store, ledger)
    for new_id, copy in ledger.repaired.copies.items():
        ledger.checks["copies are what they copy"] += await check_copy(store, new_id, copy)
        # Nobody but its origin's history has asked it to end, and it has no key.
        ledger.checks["ends as on plain asyncio"] += await _repaired(store, new_id, scenario, allowed, ledger)
    for run_id in [run_id for run_id, life in ledger.repaired.lives.items() if life.reopened and "/" in run_id]:
        ledger.checks["ends as on plain asyncio"] += await _repaired(store, run_id, scenario, allowed, ledger)
    if scenario.assets:
        ledger.checks["assets published once"] += await judge_materials(store)
    for pool in there._streams._pools.everything():
        ledger.checks["permits free at the end"] += 1
        is_rate = pool.limit is not None and pool.limit.window is not None  # stamps leave by themselves
        kept = pool._permits.keys() - set(pool.abandoned("", None))  # those of the dead are free for whoever wants them
        if (kept and not is_rate) or pool.waiting:
            text = f"{pool.name!r}: {sorted(kept)} held, {pool.waiting} waiting: {pool._permits} {pool._waiters}"
            OUTSIDE.broke("permits kept", text)
    if left := [lease.worker for lease in there._leases.values() if lease.fresh() and not lease.stalled]:
        OUTSIDE.broke("leases kept", str(left))


async def _repaired(store: EventStore, run_id: str, scenario: Scenario, allowed: Allowed, ledger: Ledger) -> int:
    """Likewise, of a copy, or of a child that was reopened, which its parent may have asked to end."""
    number = number_of(run_id)
    assert number is not None
    programs = await programs_of(store, run_id)
    run = replace(scenario.runs[number], terminate_at=None, key="", on_conflict="queue", epochs=programs)
    run = replace(run, cancel_at=0.0 if "/" in run_id else None)
    if programs != scenario.runs[number].epochs:
        return await _ended(store, run_id, run, [allowed.of_children.get(json.dumps(programs[0]))], ledger)
    return await _ended(store, run_id, run, allowed.of_runs[number], ledger)


async def _ended(store: EventStore, run_id: str, run: Run, allowed: list[Ends], ledger: Ledger) -> int:
    """Whether its end is one that plain asyncio allows. Returns how many programs were held against it."""
    if f"run:{run_id}" not in ledger.headers and run.on_conflict == "attach":
        return 0  # its client had another one instead
    events = counting(await check_history(store, run_id))
    end = next(event for event in events if isinstance(event, ENDS))
    kinds = {kind for program in run.epochs for kind in kinds_of(program)}
    halted = run_id in ledger.sends.halted
    cancelled = run.cancel_at is not None or ledger.keys.is_replaced(run_id) or run.deadline is not None or halted
    is_fork = isinstance(events[0], RunForked)
    cancelled = cancelled or (is_fork and any(isinstance(event, CancelRequested) for event in events))
    if isinstance(end, RunFailed) and end.error.endswith("RunDeadlineExceeded"):
        ledger.checks["no deadline passes before its time"] += 1
        began = next(event for event in events if isinstance(event, RunStarted))
        if run.deadline is None or end.at < began.deadline - ledger.keys.slack * 1_000_000:
            OUTSIDE.broke("deadline", f"{run_id} was not done by its deadline: {run.deadline}, {began}, {end}")
    shares = {"child", "guide"} if run.deadline is not None else set()  # its deadline, and may fail for it
    if cancelled and (not isinstance(end, RunCompleted) or kinds & {"finally", "cancel", "charge", "paid", *shares}):
        return 0  # whatever it was in the middle of
    family = (f"run:{run_id}", f"run:{run_id}/")
    if any(name == family[0] or name.startswith(family[1]) for name in ledger.parked):
        return 0  # whoever was cancelled while parked was terminated
    if any(ends is None for ends in allowed):
        return 0
    if (ledger.repaired.lives[run_id].reopened or is_fork) and kinds & {"child", "guide"}:
        return 0  # its end may have been theirs, which is not taken back
    if isinstance(end, RunFailed):
        if not any(FAILED in ends for ends in allowed if ends is not None):
            OUTSIDE.broke("result", f"{run_id} failed ({await _payload(store, run_id)}), and cannot: {allowed}")
        return len(allowed)
    if isinstance(end, RunTerminated) and (run.terminate_at is not None or halted):
        return 0  # see `books.Wishes`
    if isinstance(end, RunCancelled) and {"group", "timeout"} <= kinds:
        return 0  # a TaskGroup that fails as it is left keeps its cancel: before Python 3.13 no timeout beyond takes it back
    if not isinstance(end, RunCompleted):
        OUTSIDE.broke("result", f"{run_id} ended with {end}, and nobody asked for that")
        return 0
    if kinds <= CALM:
        ledger.answers.judge_calm(run_id, served.name, fails_to_answer)
    result = await _payload(store, run_id)
    results = result if ledger.repaired.lives[run_id].workflow == "sim" else [result]
    for value, ends in zip(results, allowed, strict=True):
        if ends is not None and json.dumps(value) not in ends:
            OUTSIDE.broke("result", f"{run_id} resulted in {json.dumps(value)}, and can only in {sorted(ends)}")
    return len(allowed)


async def _judge_children(store: EventStore, ledger: Ledger) -> None:
    """A child that has left all of its blocks has answered all that it took."""
    for run_id, end in ledger.wishes.ended.items():
        if (
            "/" in run_id
            and isinstance(end.event, RunCompleted)
            and any(one[0] == run_id for one in ledger.answers.asked)
        ):
            if {kind for each in await programs_of(store, run_id) for kind in kinds_of(each)} <= CALM:
                ledger.answers.judge_calm(run_id, served.name, fails_to_answer)


async def _payload(store: EventStore, run_id: str) -> Any:
    """What the run recorded at its end."""
    found: Any = None
    async for item in store.read(f"run:{run_id}"):
        if isinstance(decode_header(item.header), ENDS) and item.payload is not None:
            found = json.loads(item.payload)
    return found
