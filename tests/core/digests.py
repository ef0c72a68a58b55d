"""A program: runs every workflow of these tests under fixed schedules and prints a digest of each history, as JSON.

For each, two digests: of the events in their order, which must be the same in every process of one Python; and of the
events by group and id, which must be the same under every Python. Call sites and tracebacks are left out of both:
which line of a call that spans several is "the" line is the interpreter's business.

Arguments: how many objects to allocate first (another layout of the memory); --crash=NAME to also crash that workflow
after every event; --unordered to take the ordered sets away again (the canary).
"""

from __future__ import annotations

import asyncio
import asyncio.taskgroups
import asyncio.tasks
import json
import sys
from hashlib import sha256
from random import Random
from typing import Any

import anyio._backends._asyncio
import msgspec
from anyio._backends._asyncio import CancelScope

from engine.core.events import ChildFailed, Decision, RunFailed, RunStarted, TaskFailed
from engine.core.failures import decode_error
from engine.core.ordered import install
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case
from tests.core.cases_gather import two
from tests.core.harness import Entry, History, check_crashes, first, groups, last, play, seeded

PICKS = (first, last, seeded(1), seeded(2))


def shown(entry: Entry) -> str:
    """An entry as text, without what may differ between interpreters."""
    event, payload = entry.event, entry.payload
    if isinstance(event, Decision):
        event = msgspec.structs.replace(event, site="")
    if isinstance(event, RunStarted):  # of an epoch: which Python wrote it stands in it, and is no difference
        event = msgspec.structs.replace(event, python="")
    if isinstance(event, ChildFailed | RunFailed | TaskFailed) and payload is not None:
        info = decode_error(payload)
        return f"{event} {info.type} {info.message}"
    return f"{event} {payload!r}"


def digest(texts: list[str]) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:16]


def in_order(history: History) -> list[str]:
    return [shown(entry) for entry in history]


def by_id(history: History) -> list[str]:
    found = []
    for group in groups(history):
        found.append(shown(group.fact))
        found += [f"{id_} {shown(entry)}" for id_, entry in sorted(group.decisions.items())]
    return found


def digests_of(case: Case, *, crash: bool) -> list[str]:
    worlds = [case.world(pick) for pick in PICKS]
    worlds += [case.world(seeded(3), cancel_at=(step,)) for step in (0, 2)]
    histories = [play(world) for world in worlds]
    if crash:
        for world, history in zip(worlds, histories, strict=True):
            check_crashes(world, history)
    return [digest(sum(map(in_order, histories), [])), digest(sum(map(by_id, histories), []))]


def scatter(count: int) -> list[Any]:
    """Another layout of the memory: coroutines and scopes made, and freed in an order that depends on `count` only."""
    junk: list[Any] = [make() for _ in range(count) for make in (object, CancelScope, lambda: two("junk"))]
    for thing in junk[2::3]:
        thing.close()
    Random(count).shuffle(junk)
    return [junk.pop() for _ in range(count)]


def main() -> None:
    kept = scatter(int(sys.argv[1]))
    if "--unordered" in sys.argv:
        del asyncio.tasks.set, asyncio.taskgroups.set
    else:
        install(anyio._backends._asyncio)
    assert kept or sys.argv[1] == "0"
    json.dump({n: digests_of(case, crash=f"--crash={n}" in sys.argv) for n, case in CASES.items()}, sys.stdout)


if __name__ == "__main__":
    main()
