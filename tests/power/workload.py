"""The work that is cut: ``python -m tests.power.workload STORE MARKS``, to be run under a recorder.

Several committers at once on one `SqliteStore`, as it opens by default: events with payloads of all sizes, mail, the users'
own SQL, attributes, alarms, permits; a keeper beside them that leases, claims, sends, forgets, prunes and installs streams
of another store; closed and opened again in between, the first time with an older schema to bring up to date. Checkpoints
come after less than in production, so that there are many.

What is about to be asked and what was answered is written to MARKS, a JSON line in one `write` each: the recorder sees
them between the writes and syncs of the store, and that is their time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eventstore import NEW, Commit, LimitReached, Message, NewEvent, StreamQuery
from eventstore.port import Opening, Permit
from eventstore.sqlite import SqliteStore, checkpoints, opening
from tests.power import canaries, content

COMMITTERS = 4
BOXES = 8
PHASES = 3
CHECKPOINT_BYTES = 192 << 10
LOG_BYTES = 512 << 10
"""Instead of 8 and 64 MiB."""
TABLE = "CREATE TABLE IF NOT EXISTS ledger (n INTEGER PRIMARY KEY, stream TEXT NOT NULL)"


class Marks:
    """The file of marks, and the number of the next thing that is asked."""

    def __init__(self, path: Path, *, first: int = 1, at: str = "") -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._next = first
        self._at = at

    def do(self, kind: str, **what: Any) -> int:
        number, self._next = self._next, self._next + 1
        self._say({"do": number, "kind": kind, **what})
        return number

    def done(self, number: int, **what: Any) -> None:
        self._say({"done": number, **what})

    def refused(self, number: int) -> None:
        self._say({"refused": number})

    def say(self, **what: Any) -> None:
        self._say(what)

    def _say(self, what: dict[str, Any]) -> None:
        line = json.dumps({"at": self._at, **what} if self._at else what).encode() + b"\n"
        assert os.write(self._descriptor, line) == len(line)

    def close(self) -> None:
        os.close(self._descriptor)


class World:
    """One store, whoever works on it, and what they have come to."""

    def __init__(self, seed: int, marks: Marks, versions: dict[str, int] | None = None) -> None:
        self.seed = seed
        self.marks = marks
        self.versions: dict[str, int] = versions or {}
        self.holders: set[str] = set()
        self.store: SqliteStore

    async def commit(
        self,
        dice: random.Random,
        stream: str,
        *,
        consumes: Iterable[str] = (),
        rich: bool = True,
        permits: tuple[Permit, ...] = (),
        closed: bool = False,
        **more: Any,
    ) -> Any:
        """Mark it, do it, mark it done or refused."""
        before = self.versions.get(stream, NEW)
        first = max(before, 0)
        count = dice.choice((1, 1, 2, 4)) if rich else 1
        events = [
            NewEvent(content.header(stream, version), content.payload(self.seed, stream, version))
            for version in range(first + 1, first + count + 1)
        ]
        own = rich and dice.random() < 0.3
        sends = self._sends(dice) if rich else []
        alarm = dice.randrange(10**6) if dice.random() < 0.3 else None
        number = self.marks.do(
            "commit",
            parts=[[stream, first, count]],
            sends=sends,
            consumes=list(consumes),
            own=own,
            alarm=alarm,
            permits=[[each.action, each.holder] for each in permits if each.pool == "p"],
        )
        sends = [[to, message.format(number)] for to, message in sends]
        if own:
            returned, events[0] = events[0].payload, NewEvent(events[0].header)
            returned = b"{}" if returned is None else returned
            more["transaction"] = lambda tx: _write_own(tx, number, stream) or returned
        commit = Commit(
            id=f"c{number}",
            stream=stream,
            expected_version=before,
            events=tuple(events),
            consumes=tuple(consumes),
            sends=tuple(self.message(to, message) for to, message in sends),
            alarm=alarm,
            attributes={"n": number, "parity": "odd" if number % 2 else "even"},
            permits=permits,
            closed=closed,
            **more,
        )
        try:
            head = await self.store.commit(commit)
        except LimitReached:
            self.marks.refused(number)
            return None
        self.versions[stream] = head.version
        self.marks.done(number, heads={stream: [head.version, head.digest.hex()]})
        return head

    def _sends(self, dice: random.Random) -> list[list[str]]:
        boxes = [name for name in self.versions if name.startswith("box:")]
        if not boxes or dice.random() < 0.5:
            return []
        chosen = [[dice.choice(boxes), f"m{{}}-{index}"] for index in range(dice.choice((1, 1, 3)))]
        return [*chosen, ["new:{}", "m{}"]] if dice.random() < 0.2 else chosen

    def message(self, to: str, message: str) -> Message:
        to = to.format(message[1:])
        return Message(
            id=message,
            stream=to,
            header=b'{"type":"sent"}',
            payload=content.mail(self.seed, to, message),
            sender="run:somebody",
            opens=Opening(attributes={"opened": True}) if to.startswith("new:") else None,
        )


def _write_own(tx: Any, number: int, stream: str) -> None:
    tx.execute(TABLE)
    tx.execute("INSERT INTO ledger VALUES (?, ?)", (number, stream))


async def committer(world: World, which: int, phase: int, commits: int) -> None:
    dice = random.Random(f"{world.seed}/{which}/{phase}")
    boxes = [f"box:{number}" for number in range(which, BOXES, COMMITTERS)]
    mine = [*boxes, *(f"run:{which}-{number}" for number in range(3 * (phase + 1)))]
    mail: dict[str, list[str]] = {}
    for number in range(commits):
        stream = boxes[number] if phase == 0 and number < len(boxes) else dice.choice(mine)
        consumes = mail.pop(stream, [])[: dice.randrange(4)]
        head = await world.commit(dice, stream, consumes=consumes, permits=_permits(world, dice, stream))
        if head is not None and stream in boxes:
            mail[stream] = [message.id for message in head.messages]
        if dice.random() < 0.3:
            box = dice.choice(boxes)
            if box in world.versions:
                mail[box] = [message.id for message in (await world.store.head(box)).messages]


def _permits(world: World, dice: random.Random, stream: str) -> tuple[Permit, ...]:
    """A slot of one pool, taken or given back, whose holders are known; and places in the queue of another."""
    if not stream.startswith("run:"):
        return ()
    chance = dice.random()
    if stream in world.holders and chance < 0.6:
        world.holders.discard(stream)
        return (Permit(pool="p", holder=stream, action="return"),)
    if chance < 0.25:
        world.holders.add(stream)  # or not, if it is full: giving back what one has not is nothing
        return (Permit(pool="p", holder=stream, action="take", lasting=True),)
    if chance < 0.4:
        return (Permit(pool="q", holder=stream, action="wait", lasting=True),)
    return (Permit(pool="q", holder=stream, action="return"),) if chance < 0.5 else ()


async def keeper(world: World, phase: int, other: Path, rounds: int) -> None:
    """What is no commit of a committer."""
    dice = random.Random(f"{world.seed}/keeper/{phase}")
    store, marks = world.store, world.marks
    number = marks.do("lease")
    async with store.lease("keeper") as lease:
        marks.done(number, token=lease.token)
        await world.commit(dice, f"kept:{phase}", rich=False, lease=lease)
        for turn in range(rounds):
            box = f"box:{dice.randrange(BOXES)}"
            if box in world.versions:
                number = marks.do("send", to=box)
                await store.send(world.message(box, f"m{number}"))
                marks.done(number)
            await _take_away(world, dice, f"end:{phase}-{turn}", prune=(turn + phase) % 2 == 0)
            await store.claim(lease, query=StreamQuery(category="kept"), limit=3)
        ending = lease.token
    marks.say(ended=ending)
    if phase == 1:
        await _install(world, other)


async def _take_away(world: World, dice: random.Random, stream: str, *, prune: bool) -> None:
    """A stream that lives, ends, and is pruned or forgotten."""
    for last in (False, False, True):
        await world.commit(dice, stream, rich=False, closed=last)
    if prune:
        number = world.marks.do("prune", stream=stream, until=2)
        await world.store.prune(stream, until=2)
    else:
        number = world.marks.do("forget", stream=stream)
        await world.store.forget(stream)
    world.marks.done(number)


async def _install(world: World, other: Path) -> None:
    parts = [[f"came:{number}", 0, 3 + number] for number in range(3)]
    source = await SqliteStore.open(other, synchronous="NORMAL")
    for stream, _, count in parts:
        events = [
            NewEvent(content.header(stream, version), content.payload(world.seed, stream, version))
            for version in range(1, count + 1)
        ]
        await source.commit(Commit(id="c", stream=stream, expected_version=NEW, events=tuple(events)))
    items = [item async for item in source.dump()]
    await source.aclose()
    number = world.marks.do("install", parts=parts)
    await world.store.install(items)
    heads = {stream: await world.store.head(stream) for stream, _, _ in parts}
    world.marks.done(number, heads={name: [head.version, head.digest.hex()] for name, head in heads.items()})


def make_old(path: str) -> None:
    """A store as the first version made it."""
    every, newest = opening.MIGRATIONS, opening.SCHEMA_VERSION
    opening.MIGRATIONS, opening.SCHEMA_VERSION = every[:1], 1
    guard = opening.open_guard(path)
    with guard.held(5.0):
        opening.open_writer(path, opening.Writing())[0].close()
    guard.close()
    opening.MIGRATIONS, opening.SCHEMA_VERSION = every, newest


async def work(options: argparse.Namespace) -> None:
    world = World(options.seed, Marks(options.marks))
    synchronous = canaries.plant(options.canary)
    if options.seed % 2:
        make_old(str(options.store))
    for phase in range(PHASES):
        number = world.marks.do("open")
        world.store = await SqliteStore.open(options.store, synchronous=synchronous)
        world.marks.done(number)
        dice = random.Random(f"{options.seed}/{phase}")
        if phase == 0:
            for pool in ("p", "q"):
                limit = {"limit": 2}
                await world.store.commit(Commit(id="c", stream=f"pool:{pool}", expected_version=NEW, attributes=limit))
        workers = [committer(world, which, phase, options.commits) for which in range(COMMITTERS)]
        other = options.marks.with_name(f"{options.marks.name}-other.db")
        await asyncio.gather(*workers, keeper(world, phase, other, 1 + options.commits // 8))
        number = world.marks.do("close")
        await world.store.aclose()
        world.marks.done(number)
        dice.random()
    world.marks.close()


async def recover(options: argparse.Namespace, store: Path) -> None:
    """Open an image, see what is there, go on, close."""
    marks = Marks(options.marks, first=1_000_000, at=store.parent.name)
    synchronous = canaries.plant(options.canary)
    opened = await SqliteStore.open(store, synchronous=synchronous)
    seen = [head async for head in _heads(opened)]
    marks.say(seen={head.stream: head.version for head in seen})
    going = {head.stream: head.version for head in seen if head.stream.startswith(("run:", "box:"))}
    world = World(options.seed, marks, going)
    world.store = opened
    dice = random.Random(f"{options.seed}/{store.parent.name}")
    streams = sorted(going)
    for number in range(options.commits):
        stream = dice.choice(streams) if streams and dice.random() < 0.7 else f"late:{number}"
        await world.commit(dice, stream)
    await opened.aclose()
    marks.close()


async def _heads(store: SqliteStore) -> Any:
    cursor = None
    while True:
        page = await store.find(StreamQuery(pruned=None, cursor=cursor))
        for head in page.items:
            yield head
        if page.next is None:
            return
        cursor = page.next


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("marks", type=Path)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commits", type=int, default=14, help="of each committer in each phase")
    parser.add_argument("--canary", default="")
    parser.add_argument("--recover", action="store_true")
    return parser.parse_args()


async def main(options: argparse.Namespace) -> None:
    checkpoints.CHECKPOINT_BYTES = CHECKPOINT_BYTES
    opening.LOG_BYTES_MAX = checkpoints.LOG_BYTES_MAX = LOG_BYTES
    if not options.recover:
        (options.store,) = options.stores
        await work(options)
        return
    for store in options.stores:
        await recover(options, store)


if __name__ == "__main__":
    asyncio.run(main(parse()))
