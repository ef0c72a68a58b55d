"""What is found in an image, held against what was asked and answered: `examine` names every difference.

Read by SQL, with no code of the store's but its digests: what is wrong in the store cannot hide itself here. Held are, for
every stream: every answered commit is there with its digest, the chain verifies, each event says what it was asked to say,
the version is one at which a commit ended; for every commit: its mail, its own rows, its attributes, its alarm, its permits,
what it consumed are there if and only if it is; for the tables: positions without a gap, counts that are what they count,
indexes that agree (`PRAGMA integrity_check`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventstore.digest import NO_DIGEST, chain_start, event_digest, payload_digest
from tests.power import content
from tests.power.journal import Asked, Journal


@dataclass(slots=True)
class Stream:
    """A row of `streams`."""

    id: int
    name: str
    version: int
    digest: bytes
    alarm: int | None
    control: int
    data: int
    pruned: int
    commit_id: str | None
    attributes: dict[str, Any]


class Image:
    """The tables of an image, and the commits that are in it."""

    def __init__(self, connection: sqlite3.Connection, journal: Journal) -> None:
        self.ask = connection.execute
        self.journal = journal
        self.connection = connection
        columns = "id, name, version, digest, alarm, control, data, pruned, commit_id, attributes"
        rows = self.ask(f"SELECT {columns} FROM streams").fetchall()
        self.streams = {row[1]: Stream(*row[:9], json.loads(row[9])) for row in rows}
        self.there: dict[int, bool] = {}  # whether a commit is, by number
        self.commits: dict[int, Asked] = {}
        for stream, asked in journal.asked.items():
            version = self.streams[stream].version if stream in self.streams else -1
            for each in asked:
                self.commits[each.number] = each
                self.there[each.number] = self.there.get(each.number, True) and sum(each.parts[stream]) <= version

    def last(self, stream: str) -> Asked | None:
        """The last commit of a stream that is there."""
        there = [each for each in self.journal.asked.get(stream, ()) if self.there[each.number]]
        return there[-1] if there else None


def examine(path: Path, journal: Journal, *, whole: bool = True) -> list[str]:
    """Everything that is wrong with the store at `path`, which SQLite recovers. `whole`: all indexes are read, too."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            return list(_faults(connection, journal, whole=whole))
        except sqlite3.Error as error:
            return [f"SQLite: {type(error).__name__}: {error}"]


def examine_digests(connection: sqlite3.Connection) -> Iterator[str]:
    """Only what no event may break, whoever wrote it: the chains."""
    at: dict[str, tuple[int, bytes]] = {}
    query = (
        "SELECT s.name, e.version, e.header, e.payload, e.salt, e.payload_digest, e.digest FROM events AS e"
        " JOIN streams AS s ON s.id = e.stream ORDER BY e.stream, e.version"
    )
    for name, version, header, payload, salt, hashed, digest in connection.execute(query):
        before_version, before = at.get(name, (0, chain_start(name)))
        stored = payload.encode() if isinstance(payload, str) else payload
        if version != before_version + 1 or event_digest(before, header.encode(), hashed or NO_DIGEST) != digest:
            yield f"{name}: the chain breaks at {version}"
        if stored is not None and payload_digest(salt, stored) != hashed:
            yield f"{name}: payload {version} is not what was hashed"
        at[name] = version, digest
    for name, version, digest in connection.execute("SELECT name, version, digest FROM streams"):
        if at.get(name, (0, chain_start(name))) != (version, digest):
            yield f"{name}: its row says another version or digest"


def go_on(path: Path) -> list[str]:
    """Write a row and close, with which the log is brought in: what SQLite itself thinks of it."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE streams SET updated_at = updated_at + 1")
        with closing(sqlite3.connect(path)) as connection:
            ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
            return [] if said == "ok" else [f"quick_check behind a write: {said}"]
    except sqlite3.Error as error:
        return [f"going on: {type(error).__name__}: {error}"]


def _faults(connection: sqlite3.Connection, journal: Journal, *, whole: bool) -> Iterator[str]:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not journal.opened and version == 0:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            yield f"{tables} tables and no version"
        return
    if not journal.opened and version < 4:
        (streams,) = connection.execute("SELECT count(*) FROM streams").fetchone()
        if streams:
            yield f"{streams} streams in an old schema"
        return
    if version != 4:
        yield f"user_version {version} of a store that was opened"
        return
    image = Image(connection, journal)
    yield from _streams(image)
    yield from _events(image)
    yield from _mail(image)
    yield from _own(image)
    yield from _permits(image)
    yield from _keeping(image)
    if whole:
        for (said,) in connection.execute("PRAGMA integrity_check(3)"):
            if said != "ok":
                yield f"integrity_check: {said}"


def _streams(image: Image) -> Iterator[str]:
    journal = image.journal
    for stream, digests in journal.heads.items():
        answered = max(digests)
        found = image.streams.get(stream)
        if found is None or found.version < answered:
            yield f"{stream}: version {answered} was acknowledged, and {found and found.version} is there"
    for name, found in image.streams.items():
        asked = journal.asked.get(name, [])
        if found.version not in {0, *(sum(each.parts[name]) for each in asked)} and not name.startswith("pool:"):
            yield f"{name}: version {found.version} is in the middle of a commit"
        last = image.last(name)
        if last is None or last.installed or found.pruned:
            continue
        n = last.number
        if found.attributes != {"n": n, "parity": "odd" if n % 2 else "even"} or found.alarm != last.alarm:
            yield f"{name}: attributes or alarm are not those of its last commit, {n}"
        if found.commit_id != f"c{n}" and not (found.commit_id is None and name in journal.forgotten):
            yield f"{name}: its last commit is {found.commit_id}, not c{n}"
    wanted = {(key, value, each.id) for each in image.streams.values() for key, value in each.attributes.items()}
    if wanted != set(image.ask("SELECT name, value, stream FROM attributes").fetchall()):
        yield "the index of attributes is not what the streams have"
    for number, asked_ in image.commits.items():
        if not image.there[number] and any(
            stream in image.streams and image.streams[stream].version >= sum(part)
            for stream, part in asked_.parts.items()
        ):
            yield f"half of commit {number} is there"


def _events(image: Image) -> Iterator[str]:
    leaves = image.ask(
        "SELECT stream, version, position, header, payload, salt, payload_digest, digest FROM events UNION ALL"
        " SELECT stream, version, position, NULL, NULL, NULL, NULL, digest FROM kept_digests ORDER BY 1, 2"
    ).fetchall()
    positions = sorted(row[2] for row in leaves)
    if positions != list(range(1, len(positions) + 1)):
        yield f"positions: {len(positions)} of them end at {positions[-1]}"
    names = {each.id: each for each in image.streams.values()}
    counted: dict[int, int] = {}
    digests: dict[int, bytes] = {}
    for id_, version, _, header, payload, salt, hashed, digest in leaves:
        stream = names.get(id_)
        if stream is None:
            yield f"an event of stream {id_}, which is not there"
            continue
        counted[id_] = counted.get(id_, 0) + 1
        before = digests.get(id_) or chain_start(stream.name)
        digests[id_] = digest
        if counted[id_] != version:
            yield f"{stream.name}: version {version} stands at {counted[id_]}"
        wanted = image.journal.heads.get(stream.name, {}).get(version)
        if wanted and wanted != digest.hex():
            yield f"{stream.name}: version {version} was acknowledged with another digest"
        if header is not None:
            yield from _event(image, stream.name, version, header, payload, salt, hashed, before, digest)
    for id_, stream in names.items():
        if counted.get(id_, 0) != stream.version or digests.get(id_, chain_start(stream.name)) != stream.digest:
            yield f"{stream.name}: {counted.get(id_, 0)} events, and its row says {stream.version}, or another digest"


def _event(
    image: Image,
    stream: str,
    version: int,
    header: str,
    payload: Any,
    salt: Any,
    hashed: Any,
    before: bytes,
    digest: bytes,
) -> Iterator[str]:
    stored = payload.encode() if isinstance(payload, str) else payload
    if stored is not None and payload_digest(salt, stored) != hashed:
        yield f"{stream}: payload {version} is not what was hashed"
    if event_digest(before, header.encode(), hashed or NO_DIGEST) != digest:
        yield f"{stream}: the chain breaks at {version}"
    if header.encode() != content.header(stream, version):
        yield f"{stream}: header {version} is another"
    wanted = content.payload(image.journal.seed, stream, version)
    if wanted is None and any(
        each.own and each.parts[stream][0] + 1 == version for each in image.journal.asked.get(stream, ())
    ):
        wanted = b"{}"
    if stored != wanted and not (stored is None and stream in image.journal.forgotten):
        yield f"{stream}: payload {version} is another"
    if (hashed is None) != (wanted is None):
        yield f"{stream}: payload {version} was there, or was not, against its digest"


def _mail(image: Image) -> Iterator[str]:
    names = {each.id: each.name for each in image.streams.values()}
    rows = image.ask("SELECT stream, id, control, payload, consumed_at IS NOT NULL FROM messages").fetchall()
    found = {(names.get(id_), message): (payload, consumed) for id_, message, _, payload, consumed in rows}
    gone = {stream.name for stream in image.streams.values() if stream.pruned}
    must: dict[tuple[str, str], bool] = {
        place: True for number, asked in image.commits.items() if image.there[number] for place in asked.sends
    }
    may = {place for place, answered in image.journal.sent.items() if not answered}
    must |= {place: True for place, answered in image.journal.sent.items() if answered}
    for place in must.keys() - found.keys():
        yield f"message {place} is lost"
    for place in found.keys() - must.keys() - may:
        if not place[1].startswith("permit-granted:"):
            yield f"message {place} is there, and who sent it is not"
    consumed = {
        (stream, message)
        for number, asked in image.commits.items()
        if image.there[number]
        for stream in asked.parts
        for message in asked.consumes
    }
    if consumed != {place for place, (_, done) in found.items() if done}:
        yield "what was consumed is not what the commits that are there have consumed"
    for (stream, message), (payload, done) in found.items():
        stored = payload.encode() if isinstance(payload, str) else payload
        if (
            not done
            and not message.startswith("permit-")
            and stored != content.mail(image.journal.seed, stream or "", message)
        ):
            yield f"message {stream} {message} has another payload"
    counts = {
        id_: (control, data)
        for id_, control, data in image.ask(
            "SELECT stream, sum(control), sum(1 - control) FROM messages WHERE consumed_at IS NULL GROUP BY 1"
        )
    }
    for each in image.streams.values():
        if counts.get(each.id, (0, 0)) != (each.control, each.data) and each.name not in gone:
            yield f"{each.name}: counts {each.control, each.data} of its mail, {counts.get(each.id)} wait"


def _own(image: Image) -> Iterator[str]:
    wanted = {number for number, asked in image.commits.items() if asked.own and image.there[number]}
    there = image.ask("SELECT count(*) FROM sqlite_master WHERE name = 'ledger'").fetchone()[0]
    found = {row[0] for row in image.ask("SELECT n FROM ledger")} if there else set()
    if found != wanted:
        yield f"own rows without their commit: {sorted(found - wanted)}; commits without: {sorted(wanted - found)}"


def _permits(image: Image) -> Iterator[str]:
    held: set[str] = set()
    for stream, asked in image.journal.asked.items():
        for each in asked:
            if image.there[each.number] and stream in each.parts:
                for action, holder in each.permits:
                    (held.add if action == "take" else held.discard)(holder)
    rows = image.ask("SELECT pool, holder FROM permits").fetchall()
    waiting = image.ask("SELECT pool, holder FROM permit_waiters").fetchall()
    if held != {holder for pool, holder in rows if pool == "p"}:
        yield f"permits of p are {sorted(rows)}, and {sorted(held)} were taken and not given back"
    for pool, holds, waits in image.ask("SELECT pool, held, waiting FROM permit_pools"):
        real = sum(each[0] == pool for each in rows), sum(each[0] == pool for each in waiting)
        if (holds, waits) != real or holds > 2:
            yield f"pool {pool} counts {holds, waits}, and {real} are there"
        if waits and holds < 2:
            yield f"pool {pool}: {waits} wait, and there is room"


def _keeping(image: Image) -> Iterator[str]:
    journal = image.journal
    payloads = (
        "SELECT count(*), count(payload) FROM events WHERE payload_digest IS NOT NULL AND stream ="
        " (SELECT id FROM streams WHERE name = ?)"
    )
    for stream, answered in journal.forgotten.items():
        had, left = image.ask(payloads, (stream,)).fetchone()
        if left and (answered or left != had):
            yield f"{stream}: {left} of {had} payloads are there, forgetting it was {'answered' if answered else 'asked'}"
    kept = dict(
        image.ask("SELECT s.name, count(*) FROM kept_digests AS k JOIN streams AS s ON s.id = k.stream GROUP BY 1")
    )
    for stream, (until, answered) in journal.pruned.items():
        found = image.streams.get(stream)
        count = kept.pop(stream, 0)
        if found is not None and (count, found.pruned) not in ([(until, 1)] if answered else [(until, 1), (0, 0)]):
            yield f"{stream}: {count} digests are kept, pruned {found.pruned}, pruning it was answered: {answered}"
    if kept:
        yield f"pruned, and nobody has asked: {sorted(kept)}"
    leases = dict(image.ask("SELECT token, ended_at IS NOT NULL FROM leases"))
    for token, ended in journal.leases.items():
        if token not in leases or (ended and not leases[token]):
            yield f"lease {token}: ended {leases.get(token)}, and that was answered: {ended}"
