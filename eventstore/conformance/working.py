"""Checks: everything together. Workers that claim, consume, release, end and die, on two handles, as mail comes in."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from eventstore.conformance.harness import StoreHarness, begin, data, event, history, mail, refused, soon, step
from eventstore.errors import LeaseLost
from eventstore.port import EventStore, StreamQuery

_MESSAGES: Final = 20
_PAUSE_SECONDS: Final = 0.02  # of a worker with nothing to do, so that it sees when all is done
_ONLY_RUNS: Final = StreamQuery(category="run")


async def workers_that_come_and_go_lose_nothing_and_repeat_nothing(harness: StoreHarness) -> None:
    """Each message is answered by exactly one event, in the order of arrival, whoever died in between."""
    stores = [await harness.open(), await harness.open()]
    streams = [f"run:{number}" for number in range(5)]
    await begin(stores[0], *streams)
    expected = {stream: [f"m{number:02}" for number in range(_MESSAGES)] for stream in streams}
    answered: set[tuple[str, str]] = set()

    async def send(number: int) -> None:
        for message in range(_MESSAGES):
            for repetition in range(1 + message % 2):
                await stores[(number + repetition) % 2].send(data(streams[number], f"m{message:02}"))

    async def work(number: int) -> None:
        chance = Random(number)  # noqa: S311 - the same dice every time
        while len(answered) < len(streams) * _MESSAGES:
            await _one_life(harness, stores[number % 2], f"worker {number}", chance, answered)

    await soon(
        asyncio.gather(*(send(number) for number in range(len(streams))), *(work(number) for number in range(4)))
    )
    for stream in streams:
        assert await history(stores[1], stream) == ["begun", *expected[stream]]
        head = await stores[0].head(stream)
        assert (mail(head), head.version) == ([], _MESSAGES + 1)


async def _one_life(
    harness: StoreHarness, store: EventStore, worker: str, chance: Random, answered: set[tuple[str, str]]
) -> None:
    """A lease with a few rounds of work, that ends well or dies, sometimes leaving streams that it owns."""
    async with store.lease(worker) as lease:
        for _ in range(chance.randrange(1, 6)):
            for head in await store.claim(lease, query=_ONLY_RUNS, limit=2):
                ids = mail(head)[: chance.randrange(1, 4)]
                head_after = await store.commit(
                    step(
                        head.stream,
                        head.version,
                        *(event(message_id) for message_id in ids),
                        consumes=tuple(ids),
                        lease=lease,
                        release=chance.random() < 0.3,
                        progress=bool(ids),
                    )
                )
                assert head_after.version == head.version + len(ids)
                answered.update((head.stream, message_id) for message_id in ids)
            await store.wait(lease, timeout=_PAUSE_SECONDS)
        match chance.randrange(4):
            case 0:
                await harness.crash_lease(lease)
            case 1:
                await harness.stall_lease(lease)
                with refused(LeaseLost):
                    await store.claim(lease, query=_ONLY_RUNS, limit=2)
            case _:
                return
