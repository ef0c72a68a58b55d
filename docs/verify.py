"""Verify the log in a Holdfast SQLite file, without Holdfast: Python's standard library and nothing else.

    python docs/verify.py holdfast.db
    python docs/verify.py holdfast.db shop.seal ...

Looks at every event (its digest follows from what it says and the event before it in its stream; payload and salt fit
the payload digest), at every stream (its head is its last event), and at the tree over all digests against the seals
that are named. What it prints ends with the size and the root of the log; the exit code is 1 when something is wrong.

Signatures are not checked: the standard library has no Ed25519. A seal that you kept yourself needs none; of any other
see that the root printed here stands in a note whose signature you have checked with another tool (C2SP signed-note).
The forms are described in docs/history.md and docs/audit.md.
"""

import base64
import sqlite3
import sys
from hashlib import sha256
from pathlib import Path

EVENTS = """
    SELECT s.name, e.position, e.version, e.header, e.payload, e.salt, e.payload_digest, e.digest
    FROM events AS e LEFT JOIN streams AS s ON s.id = e.stream ORDER BY e.position
"""
NO_PAYLOAD = bytes(32)


def chain_start(stream):
    """The digest before the first event of a stream."""
    return sha256(b"holdfast stream\x00" + stream).digest()


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
        if not self.nodes:
            return sha256(b"").digest()
        root = self.nodes[-1]
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
    if salt is None or len(salt) != 16:
        return "its salt is not 16 bytes"
    if sha256(salt + payload).digest() != payload_digest:
        return "its payload is not the one that was recorded"
    return None


def read_seal(path):
    """Size and root of a seal: the second and third line of the note."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return int(lines[1]), base64.b64decode(lines[2], validate=True)


def verify(database, seals=()):
    """What is wrong, as lines; and the tree over the whole log. `seals` are paths."""
    problems, ends, broken, tree = [], {}, set(), Tree()
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
        check_seals(last=False)
        for stream, position, version, header, payload, salt, stored, digest in connection.execute(EVENTS):
            at, previous = ends.get(stream, (0, chain_start(stream or b"")))
            problem = None
            if stream is None:
                problem = "it belongs to no stream"
            elif version != at + 1:
                problem = f"it follows version {at}: events are missing, added, or in another order"
            elif not isinstance(payload, bytes | None):
                problem = "its payload is neither text nor bytes"
            else:
                problem = wrong_with(previous, header, payload, salt, stored or NO_PAYLOAD, digest)
            if problem and stream not in broken:
                broken.add(stream)
                name = (stream or b"?").decode(errors="replace")
                problems.append(f"{name}, version {version}, position {position}: {problem}")
            ends[stream] = (version, digest)
            tree.append(digest)
            check_seals(last=False)
        check_seals(last=True)
        for stream, version, digest in connection.execute("SELECT name, version, digest FROM streams"):
            if ends.get(stream, (0, chain_start(stream))) != (version, digest) and stream not in broken:
                problems.append(f"{stream.decode(errors='replace')}: its head is not its last event")
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
