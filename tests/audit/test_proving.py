"""Proofs from real logs, checked without them; and everything that is no proof."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from engine.audit import (
    ConsistencyProof,
    InclusionProof,
    decode_proof,
    encode_proof,
    prove_consistency,
    prove_inclusion,
    seal,
)
from engine.errors import AuditError, DoesNotVerify
from eventstore import StreamNotFound
from eventstore.keeping import Leaf
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.audit.logs import KEY, OTHER, Editor, fill, make_log


async def test_every_event_that_is_sealed_can_be_proven() -> None:
    store = MemoryStore()
    await fill(store, 3)
    made = (await seal(store, KEY)).seal
    for event in [each async for each in store.read_all()]:
        if event.position > (made.position or 0):
            break
        proof = decode_proof(encode_proof(await prove_inclusion(store, event.stream, event.version, made)))
        assert isinstance(proof, InclusionProof)
        assert proof.check(KEY.public) == made
        assert (proof.stream, proof.version, len(proof.history)) == (event.stream, event.version, event.version)
    await store.aclose()


class Counting(MemoryStore):
    """How many events of the log were read."""

    read_events = 0

    async def leaves(self, *, after: int = 0) -> AsyncIterator[Leaf]:
        async with aclosing(super().leaves(after=after)) as events:
            async for event in events:
                self.read_events += 1
                yield event


async def test_the_log_is_read_once_and_no_further_than_it_must() -> None:
    store = Counting()
    await fill(store, 3)
    made = (await seal(store, KEY)).seal
    await fill(store, 4)
    log = [each async for each in store.read_all()]
    assert len(log) > made.size + 10
    for index, event in enumerate(log):
        store.read_events = 0
        proving = prove_inclusion(store, event.stream, event.version, made)
        if index < made.size:
            assert (await proving).check(KEY.public) == made
            assert store.read_events == made.size
            continue
        with pytest.raises(AuditError, match=f"is event {index + 1:,} of the log, and the seal covers {made.size:,}:"):
            await proving
        assert store.read_events == index + 1
    await store.aclose()


async def test_a_proof_proves_nothing_else() -> None:
    store = MemoryStore()
    await fill(store, 3)
    made = (await seal(store, KEY)).seal
    proof = await prove_inclusion(store, "run:a", 3, made)
    one, two, three = proof.history
    changes = [
        {"stream": "run:b"},
        {"version": 2},
        {"version": 2, "history": (one, two)},
        {"index": proof.index + 1},
        {"history": (two, one, three)},
        {"history": (one, two, msgspec.structs.replace(three, header=three.header.replace("Completed", "Failed")))},
        {"history": (one, two, msgspec.structs.replace(three, payload_digest="00" * 32))},
        {"path": proof.path[1:]},
        {"path": ("00" * 32, *proof.path[1:])},
    ]
    for change in changes:
        with pytest.raises(DoesNotVerify, match="the proof does not lead from version"):
            msgspec.structs.replace(proof, **change).check(KEY.public)
    with pytest.raises(DoesNotVerify, match="is not signed by key"):
        proof.check(OTHER.public)
    with pytest.raises(AuditError, match="is no hash in hexadecimal"):
        msgspec.structs.replace(proof, path=("x",)).check()
    with pytest.raises(AuditError, match="the seal of the proof: this is no seal"):
        msgspec.structs.replace(proof, seal="").check()
    forged = msgspec.structs.replace(proof, seal=made.note.replace(f"\n{made.size}\n", f"\n{made.size + 1}\n"))
    with pytest.raises(DoesNotVerify):
        forged.check(KEY.public)
    await store.aclose()


async def test_a_log_is_proven_to_have_only_grown() -> None:
    store = MemoryStore()
    seals = [(await seal(store, KEY)).seal]
    for seed in range(5):
        await fill(store, seed, commits=5)
        seals.append((await seal(store, KEY)).seal)
    for index, first in enumerate(seals):
        for second in seals[index:]:
            proof = decode_proof(encode_proof(await prove_consistency(store, first, second)))
            assert isinstance(proof, ConsistencyProof)
            assert proof.check(KEY.public) == second
            if first.size not in (0, second.size):
                with pytest.raises(DoesNotVerify, match="does not show that the log"):
                    msgspec.structs.replace(proof, path=proof.path[:-1]).check()
                with pytest.raises(DoesNotVerify, match="does not show that the log"):
                    msgspec.structs.replace(proof, first=second.note, second=first.note).check()
    with pytest.raises(AuditError, match=r"is no later one of example.com/shop at size"):
        await prove_consistency(store, seals[2], seals[1])
    await store.aclose()


async def test_what_cannot_be_proven(tmp_path: Path) -> None:
    first, _ = await make_log(tmp_path / "log.db")
    store = await SqliteStore.open(tmp_path / "log.db", read_only=True)
    with pytest.raises(StreamNotFound):
        await prove_inclusion(store, "run:none", 1, first)
    with pytest.raises(AuditError, match=r"stream 'run:a' has no version 999: it has 1 to \d+"):
        await prove_inclusion(store, "run:a", 999, first)
    with pytest.raises(AuditError, match=r"of the log, and the seal covers \d+: seal the log again"):
        await prove_inclusion(store, "run:new", 1, first)
    await store.aclose()


async def test_a_log_that_was_changed_proves_nothing(tmp_path: Path) -> None:
    first, second = await make_log(tmp_path / "log.db")
    editor = Editor(tmp_path / "log.db")
    editor("UPDATE events SET header = '{}' WHERE position = 2")
    store = await SqliteStore.open(tmp_path / "log.db", read_only=True)
    stream = editor("SELECT CAST(s.name AS BLOB) FROM streams s JOIN events e ON e.stream = s.id WHERE position = 2")
    with pytest.raises(DoesNotVerify, match="breaks at version"):
        await prove_inclusion(
            store, stream[0][0].decode(), editor("SELECT version FROM events WHERE position = 2")[0][0], first
        )
    editor.recompute()
    for attempt in (prove_inclusion(store, "run:a", 1, first), prove_consistency(store, first, second)):
        with pytest.raises(DoesNotVerify, match="the log is not what the seal of example.com/shop at size"):
            await attempt
    editor.restore()
    editor("DELETE FROM events WHERE position > 10")
    stream, version = editor("SELECT CAST(s.name AS BLOB), e.version FROM events e JOIN streams s ON s.id = e.stream")[
        0
    ]
    for cut in (prove_inclusion(store, stream.decode(), version, first), prove_consistency(store, first, second)):
        with pytest.raises(DoesNotVerify, match="the log is not what the seal of example.com/shop at size"):
            await cut
    editor.close()
    await store.aclose()


@pytest.mark.parametrize("data", [b"", b"{}", b'{"proves":"nothing"}', b'{"proves":"inclusion"}', b"\xff\xfe"])
def test_what_is_no_proof(data: bytes) -> None:
    with pytest.raises(AuditError, match=r"^proof.json: this is no proof: "):
        decode_proof(data, where="proof.json")


async def test_the_vectors_proofs_hold() -> None:
    from engine.audit.merkle import consistency_holds, inclusion_holds

    vectors = json.loads((Path(__file__).parent / "seal_vectors.json").read_text())
    digests, roots = ([bytes.fromhex(each) for each in vectors[name]] for name in ("digests", "roots"))
    path = [bytes.fromhex(each) for each in vectors["inclusion_of_index_3"]]
    assert inclusion_holds(digests[3], 3, 7, path, roots[7])
    path = [bytes.fromhex(each) for each in vectors["consistency_from_size_3"]]
    assert consistency_holds(3, roots[3], 7, roots[7], path)
