"""Makes `seal_vectors.json`, once: `python -m tests.audit.vectors`. What is there already is never changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.audit import PrivateKey, Seal, Tree
from engine.audit.merkle import RangeHashes, consistency_ranges, inclusion_ranges
from eventstore.digest import chain_start, event_digest, payload_digest

FILE = Path(__file__).parent / "seal_vectors.json"
EVENTS = [
    ("run:nightly-1", '{"type":"RunStarted"}', None, None),
    ("run:näh ☃", '{"text": "é\\u00e9"}', "ff" * 16, "00ff"),
    ("run:nightly-1", '{"type":"TaskCompleted","id":"nightly/load#1"}', "000102030405060708090a0b0c0d0e0f", "37"),
    ("run:nightly-1", '{"type":"TaskCompleted","id":"nightly/load#2"}', "101112131415161718191a1b1c1d1e1f", ""),
    ("run:nightly-2", '{"type":"RunStarted"}', None, None),
    ("run:nightly-1", '{"type":"RunCompleted"}', "202122232425262728292a2b2c2d2e2f", "6e756c6c"),
    ("run:nightly-2", '{"type":"RunFailed"}', None, None),
]


def made() -> dict[str, Any]:
    """Seven events of three streams, in commit order; the root after each; a seal over all; one proof of each kind."""
    ends: dict[str, bytes] = {}
    digests, roots, tree = [], [Tree().root()], Tree()
    for stream, header, salt, payload in EVENTS:
        of_payload = payload_digest(bytes.fromhex(salt or ""), None if payload is None else bytes.fromhex(payload))
        ends[stream] = event_digest(ends.get(stream, chain_start(stream)), header.encode(), of_payload)
        digests.append(ends[stream])
        tree.append(ends[stream])
        roots.append(tree.root())
    key = PrivateKey("example.com/vectors", bytes(range(32)))
    seal = Seal.make(key, size=tree.size, root=tree.root(), position=9, at=1_767_225_600_000_001)
    proofs = RangeHashes(ranges := inclusion_ranges(3, tree.size))
    grown = RangeHashes(consistency_ranges(3, tree.size))
    for index, digest in enumerate(digests):
        proofs.take(index, digest)
        grown.take(index, digest)
    assert len(proofs.hashes()) == len(ranges)
    return {
        "events": [
            {"stream": stream, "header": header, "salt": salt, "payload": payload}
            for stream, header, salt, payload in EVENTS
        ],
        "digests": [each.hex() for each in digests],
        "roots": [each.hex() for each in roots],
        "frontier": [each.hex() for each in tree.frontier],
        "inclusion_of_index_3": [each.hex() for each in proofs.hashes()],
        "consistency_from_size_3": [each.hex() for each in grown.hashes()],
        "name": key.name,
        "seed": key.seed.hex(),
        "private_key": key.text,
        "public_key": key.public.text,
        "note": seal.note,
    }


if __name__ == "__main__" and not FILE.exists():
    FILE.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
