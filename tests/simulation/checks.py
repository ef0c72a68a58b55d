"""What holds at the end of a play: of every history, of what every run resulted in, and of what the store keeps."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

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
from eventstore.memory import MemoryStore
from tests.runtime.invariants import ENDS, Broken, check_history, check_store, counting
from tests.simulation.copies import check_copy
from tests.simulation.materials import judge_materials
from tests.simulation.oracle import FAILED, ends_of
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import WORKFLOWS, fails_to_answer, kinds_of, served
from tests.simulation.scenarios import Run, Scenario
from tests.simulation.stores import Ledger

__all__ = ["allowed_of", "judge", "program_of"]

Allowed: TypeAlias = list[list[frozenset[str] | None]]
"""By run and epoch: see `ends_of`."""
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
    """What its programs may result in. Runs loops of its own."""
    return [[ends_of(program) for program in run.epochs] for run in scenario.runs]


async def judge(store: MemoryStore, scenario: Scenario, ledger: Ledger, allowed: Allowed) -> None:
    """Says what is broken to the outside (`OUTSIDE.broke`)."""
    await ledger.compare(store)
    try:
        await check_store(store, *WORKFLOWS)  # grammar of events, timers, digests, marks, replay
        ledger.checks["histories, digests and replays"] += sum(name.startswith("run:") for name in ledger.headers)
    except Broken as error:
        OUTSIDE.broke("history", str(error))
    ledger.wishes.judge()
    ledger.sends.judge()
    ledger.bursts.judge()
    for number, run in enumerate(scenario.runs):
        ledger.checks["ends as on plain asyncio"] += await _ended(store, f"r{number}", run, allowed[number], ledger)
    await _judge_children(store, ledger)
    for new_id, copy in ledger.repaired.copies.items():
        ledger.checks["copies are what they copy"] += await check_copy(store, new_id, copy)
        number = int(copy.origin.removeprefix("r"))
        # Nobody but its origin's history has asked it to end, and it has no key.
        run = replace(scenario.runs[number], cancel_at=None, terminate_at=None, key="", on_conflict="queue")
        ledger.checks["ends as on plain asyncio"] += await _ended(store, new_id, run, allowed[number], ledger)
    if scenario.assets:
        ledger.checks["assets published once"] += await judge_materials(store)
    for pool in store._streams._pools.everything():
        ledger.checks["permits free at the end"] += 1
        is_rate = pool.limit is not None and pool.limit.window is not None  # stamps leave by themselves
        kept = pool._permits.keys() - set(pool.abandoned("", None))  # those of the dead are free for whoever wants them
        if (kept and not is_rate) or pool.waiting:
            text = f"{pool.name!r}: {sorted(kept)} held, {pool.waiting} waiting: {pool._permits} {pool._waiters}"
            OUTSIDE.broke("permits kept", text)
    if left := [lease.worker for lease in store._leases.values() if lease.fresh() and not lease.stalled]:
        OUTSIDE.broke("leases kept", str(left))


async def _ended(
    store: MemoryStore, run_id: str, run: Run, allowed: list[frozenset[str] | None], ledger: Ledger
) -> int:
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
    for value, ends in zip(result, allowed, strict=True):
        if ends is not None and json.dumps(value) not in ends:
            OUTSIDE.broke("result", f"{run_id} resulted in {json.dumps(value)}, and can only in {sorted(ends)}")
    return len(allowed)


async def program_of(store: MemoryStore, run_id: str) -> Any:
    """What a child that has begun was given to do."""
    async for item in store.read(f"run:{run_id}"):
        if isinstance(decode_header(item.header), RunStarted):
            return json.loads(item.payload or b"")["program"]


async def _judge_children(store: MemoryStore, ledger: Ledger) -> None:
    """A child that has left all of its blocks has answered all that it took."""
    for run_id, end in ledger.wishes.ended.items():
        if (
            "/" in run_id
            and isinstance(end.event, RunCompleted)
            and any(one[0] == run_id for one in ledger.answers.asked)
        ):
            if set(kinds_of(await program_of(store, run_id))) <= CALM:
                ledger.answers.judge_calm(run_id, served.name, fails_to_answer)


async def _payload(store: MemoryStore, run_id: str) -> Any:
    """What the run recorded at its end."""
    found: Any = None
    async for item in store.read(f"run:{run_id}"):
        if isinstance(decode_header(item.header), ENDS) and item.payload is not None:
            found = json.loads(item.payload)
    return found
