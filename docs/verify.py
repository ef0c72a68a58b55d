"""Verify the log in a Holdfast SQLite file, without Holdfast: Python's standard library and nothing else.

    python docs/verify.py holdfast.db [shop.seal ...]

Looks at every event (its digest follows from what it says and the event before it in its stream; payload and salt fit
the payload digest), at every stream (its head is its last event; digests that are kept of pruned events are those that
its last event speaks of), and at the tree over all digests against the seals that are named. What it prints ends with
the size and the root of the log; the exit code is 1 when something is wrong.

Signatures are not checked: the standard library has no Ed25519. A seal that you kept yourself needs none; of any other
see that the root printed here stands in a note whose signature you have checked with another tool (C2SP signed-note).
The forms are described in docs/history.md and docs/audit.md.
"""

import base64
import json
import sqlite3
import sys
from hashlib import sha256
from pathlib import Path

EVENTS = "SELECT stream, position, version, header, payload, salt, payload_digest, digest FROM events"
KEPT = " UNION ALL SELECT stream, position, version, NULL, {}, NULL, NULL, digest FROM kept_digests"  # {}: see below
LOG = """SELECT s.name, e.position, e.version, e.header, e.payload, e.salt, e.payload_digest, e.digest
         FROM ({} ORDER BY position) AS e LEFT JOIN streams AS s ON s.id = e.stream ORDER BY e.position"""
BACK = """SELECT name FROM streams WHERE pruned AND ((SELECT count(*) FROM events WHERE stream = id) <> 1
                                             OR NOT EXISTS (SELECT 1 FROM kept_digests WHERE stream = id))"""


def chain_start(stream):
    """The digest before the first event of a stream."""
    return sha256(b"holdfast stream\x00" + stream).digest()


def named(stream):
    return (stream or b"?").decode(errors="replace")


class Tree:
    """An RFC 6962 Merkle tree whose leaf hashes are the digests of the events, in the order of their positions."""

    def __init__(self):
        self.size, self.nodes = 0, []

    def append(self, leaf):
        full = self.size
        while full & 1:
            leaf = sha256(b"\x01" + self.nodes.pop() + leaf).digest()
            full >>= 1
        self.nodes.append(leaf)
        self.size += 1

    def root(self):
        root = self.nodes[-1] if self.nodes else sha256(b"").digest()
        for left in self.nodes[-2::-1]:
            root = sha256(b"\x01" + left + root).digest()
        return root


def wrong_with(previous, header, payload, salt, payload_digest, digest):
    """What is wrong with an event, or None."""
    framed = len(header).to_bytes(8, "big") + header
    if sha256(b"\x00" + previous + framed + payload_digest).digest() != digest:
        return "its digest does not follow from what it says and the event before it"
    if payload is None:
        return None if salt is None else "it has a salt and no payload"
    fits = isinstance(payload, bytes) and len(salt or b"") == 16 and sha256(salt + payload).digest() == payload_digest
    return None if fits else "its payload is not the one that was recorded"


def wrong_in(log, left, stream, position, version, header, payload, salt, stored, digest):
    """What is wrong with an event, or what is kept of it, by where its stream stands in the log; or None."""
    at, previous = log.get(stream, (0, chain_start(stream or b"")))
    if stream is None:
        return "it belongs to no stream"
    if version != at + 1:
        return f"it follows version {at}: events are missing, added, or in another order"
    if header is None and version == 1:
        left[stream] = sha256()  # over what is kept, until the event that says what was pruned
    kept = left.get(stream)
    problem = header is not None and wrong_with(previous, header, payload, salt, stored or bytes(32), digest)
    if kept and not problem and (header or b"").startswith(b'{"type":"RunPruned"'):
        said, kept = json.loads(header), left.pop(stream)
        what = (f"run:{said.get('run')}".encode(), said.get("events"), said.get("leaves"))
        return None if what == (stream, at, kept.hexdigest()) else "what is kept before it is not what was pruned"
    if kept:
        kept.update((payload if header is None else position).to_bytes(8, "big", signed=True) + digest)
    return problem if kept or header is not None else "it was pruned, and the first event of its stream was not"


def read_seal(path):
    """Size and root of a seal: the second and third line of the note."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return int(lines[1]), base64.b64decode(lines[2], validate=True)


def verify(database, seals=()):
    """What is wrong, as lines; and the tree over the whole log. `seals` are paths."""
    problems, ends, left, broken, tree = [], {}, {}, set(), Tree()
    expected = sorted((*read_seal(path), str(path)) for path in seals)
    connection = sqlite3.connect(f"file:{Path(database).absolute().as_posix()}?mode=ro", uri=True)
    connection.text_factory = bytes

    def check_seals(last):
        while expected and (expected[0][0] == tree.size or last):
            size, root, path = expected.pop(0)
            if size != tree.size:
                problems.append(f"{path}: {size} events were sealed, the log has {tree.size}")
            elif root != tree.root():
                problems.append(f"{path}: the first {size} events are not those that were sealed")

    try:
        connection.execute("BEGIN")  # one moment of the log, whoever writes meanwhile
        prunes = [name for _, name, *_ in connection.execute("PRAGMA table_info(kept_digests)")]
        kept = KEPT.format("ifnull(was, position)" if b"was" in prunes else "position")  # when it was pruned
        check_seals(last=False)
        for row in connection.execute(LOG.format(EVENTS + kept if prunes else EVENTS)):
            stream, position, version, *_, digest = row
            if (problem := wrong_in(ends, left, *row)) and stream not in broken:
                broken.add(stream)
                problems.append(f"{named(stream)}, version {version}, position {position}: {problem}")
            ends[stream] = (version, digest)
            tree.append(digest)
            check_seals(last=False)
        check_seals(last=True)
        taken = {*left, *(name for (name,) in connection.execute(BACK))} if prunes else set()
        problems += [f"{named(name)}: pruned, and not said so, or not wholly" for name in taken - broken]
        for stream, version, digest in connection.execute("SELECT name, version, digest FROM streams"):
            if ends.get(stream, (0, chain_start(stream))) != (version, digest) and stream not in broken:
                problems.append(f"{named(stream)}: its head is not its last event")
    finally:
        connection.close()
    return problems, tree


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    problems, tree = verify(arguments[0], arguments[1:])
    for problem in problems:
        print(problem)
    root = base64.b64encode(tree.root()).decode()
    print(f"{'WRONG' if problems else 'ok'}: {tree.size} events, {len(arguments) - 1} seals, root {root}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
