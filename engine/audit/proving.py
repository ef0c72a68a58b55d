"""Proofs: that an event is in a sealed log, and that a sealed log begins with an earlier one. Checked without the log.

A proof of inclusion holds the history of the run up to the event, payloads left out: a digest alone says nothing of the
stream it is of, a chain from the stream's beginning does. Both kinds hold the seals they lead to, so that a file, and a
public key, is all that checking needs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeAlias, cast

import msgspec
from msgspec import Struct

from engine.audit.keys import PublicKey
from engine.audit.merkle import (
    RangeHashes,
    Tree,
    consistency_holds,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
)
from engine.audit.notes import Seal
from engine.audit.pruned import Leaf, has_pruned, leaves
from engine.errors import AuditError, DoesNotVerify
from eventstore import EventStore, RecordedEvent
from eventstore.digest import chain_start, event_digest

__all__ = [
    "ConsistencyProof",
    "InclusionProof",
    "ProvenEvent",
    "decode_proof",
    "encode_proof",
    "prove_consistency",
    "prove_inclusion",
]

_Events: TypeAlias = AsyncGenerator[RecordedEvent, None]
_Leaves: TypeAlias = AsyncGenerator[Leaf, None]


class ProvenEvent(Struct, frozen=True):
    """An event without its payload: the header as it is stored, and the payload digest in hexadecimal."""

    header: str
    payload_digest: str


class InclusionProof(Struct, frozen=True, kw_only=True, tag="inclusion", tag_field="proves"):
    """That a stream's events up to this version are in the log that was sealed."""

    stream: str
    version: int
    index: int  # of the event in the whole log, from 0
    history: tuple[ProvenEvent, ...]  # versions 1 to `version`
    path: tuple[str, ...]  # RFC 6962's audit path, in hexadecimal
    seal: str  # the signed note

    def check(self, key: PublicKey | None = None) -> Seal:
        """The seal that it leads to. Without a key nothing is known of who made that.

        Raises `DoesNotVerify` when it proves nothing, `AuditError` for what is no proof, and without the extra.
        """
        seal = Seal.parse(self.seal, where="the seal of the proof")
        if key is not None:
            seal.check(key)
        digest = chain_start(self.stream)
        for event in self.history:
            digest = event_digest(digest, event.header.encode(), _unhex(event.payload_digest))
        path = [_unhex(each) for each in self.path]
        if len(self.history) != self.version or not inclusion_holds(digest, self.index, seal.size, path, seal.root):
            raise DoesNotVerify(
                f"the proof does not lead from version {self.version} of stream {self.stream!r} to the seal of"
                f" {seal.origin} at size {seal.size:,}"
            )
        return seal


class ConsistencyProof(Struct, frozen=True, kw_only=True, tag="consistency", tag_field="proves"):
    """That a log that was sealed begins with what was sealed before."""

    path: tuple[str, ...]
    first: str
    second: str

    def check(self, key: PublicKey | None = None) -> Seal:
        """The later seal. Raises as `InclusionProof.check`."""
        first = Seal.parse(self.first, where="the first seal of the proof")
        second = Seal.parse(self.second, where="the second seal of the proof")
        if key is not None:
            first.check(key)
            second.check(key)
        path = [_unhex(each) for each in self.path]
        if first.origin != second.origin or not consistency_holds(
            first.size, first.root, second.size, second.root, path
        ):
            raise DoesNotVerify(
                f"the proof does not show that the log of {second.origin} at size {second.size:,} begins with that of"
                f" {first.origin} at size {first.size:,}"
            )
        return second


async def prove_inclusion(store: EventStore, stream: str, version: int, seal: Seal) -> InclusionProof:
    """Prove that an event is in the log that was sealed. Reads the log up to the seal, once, and in bounded memory
    but for the stream's history.

    Raises `StreamNotFound`; `AuditError` when there is no such event, or the seal is older than it; `DoesNotVerify`
    when the log is not what was sealed, or the history is broken.
    """
    history, position = await _history(store, stream, version)
    tree, index = Tree(), 0
    hashes: RangeHashes | None = None  # from the event on: where it stands is not known before
    async with aclosing(cast("_Leaves", leaves(store))) as events:
        async for event in events:
            if hashes is None and event.position < position:
                index += 1
            elif hashes is None and index < seal.size:
                hashes = RangeHashes(inclusion_ranges(index, seal.size), tree)
            if tree.size < seal.size:
                if hashes is not None:
                    hashes.take(tree.size, event.digest)
                tree.append(event.digest)
            if event.position >= position and tree.size == seal.size:
                break
    if index >= seal.size:
        raise AuditError(
            f"version {version} of stream {stream!r} is event {index + 1:,} of the log, and the seal covers"
            f" {seal.size:,}: seal the log again, and prove it with that"
        )
    _check_root(seal, tree)
    assert hashes is not None, "the tree is as large as the seal says, and the event is in it"
    path = _hex(hashes.hashes())
    return InclusionProof(stream=stream, version=version, index=index, history=history, path=path, seal=seal.note)


async def prove_consistency(store: EventStore, first: Seal, second: Seal) -> ConsistencyProof:
    """Prove that the later log begins with the earlier one. Raises as `prove_inclusion`."""
    if first.origin != second.origin or first.size > second.size:
        raise AuditError(
            f"the seal of {second.origin} at size {second.size:,} is no later one of {first.origin} at size"
            f" {first.size:,}"
        )
    ranges = consistency_ranges(first.size, second.size) if first.size else []
    path = await _hashes(store, (first, second), ranges)
    return ConsistencyProof(path=_hex(path), first=first.note, second=second.note)


def encode_proof(proof: InclusionProof | ConsistencyProof) -> bytes:
    """A proof as one JSON document, with a newline."""
    return msgspec.json.encode(proof) + b"\n"


def decode_proof(data: bytes, *, where: str | Path = "the proof") -> InclusionProof | ConsistencyProof:
    """A proof out of its JSON. Raises `AuditError`, naming `where`."""
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{where}: this is no proof: {error}") from None


_decoder: Final[msgspec.json.Decoder[InclusionProof | ConsistencyProof]] = msgspec.json.Decoder(
    InclusionProof | ConsistencyProof
)


async def _history(store: EventStore, stream: str, version: int) -> tuple[tuple[ProvenEvent, ...], int]:
    """The stream's events up to that version, and the position of the last."""
    found: list[ProvenEvent] = []
    position, digest = 0, chain_start(stream)
    head = await store.head(stream)
    if not 1 <= version <= head.version:
        raise AuditError(f"stream {stream!r} has no version {version}: it has 1 to {head.version}")
    if await has_pruned(store, stream):
        raise AuditError(
            f"stream {stream!r} was pruned: of its events the digests alone are left, which say nothing of what was in"
            " them; a proof that was made before still holds"
        )
    async with aclosing(cast("_Events", store.read(stream, until=version))) as events:
        async for event in events:
            digest = event_digest(digest, event.header, event.payload_digest)
            if digest != event.digest or event.version != len(found) + 1:
                raise DoesNotVerify(
                    f"the history of stream {stream!r} breaks at version {event.version}: look with holdfast verify"
                )
            found.append(ProvenEvent(event.header.decode(), event.payload_digest.hex()))
            position = event.position
    return tuple(found), position


async def _hashes(store: EventStore, seals: Sequence[Seal], ranges: list[tuple[int, int]]) -> tuple[bytes, ...]:
    """The roots of ranges of the log, which must be what these seals say (the last is the largest)."""
    tree, hashes = Tree(), RangeHashes(ranges)
    waiting = [each for each in seals if each.size]
    async with aclosing(cast("_Leaves", leaves(store))) as events:
        async for event in events:
            if not waiting:
                break
            hashes.take(tree.size, event.digest)
            tree.append(event.digest)
            while waiting and waiting[0].size == tree.size:
                _check_root(waiting.pop(0), tree)
    for seal in waiting:
        _check_root(seal, tree)
    return hashes.hashes()


def _check_root(seal: Seal, tree: Tree) -> None:
    if (seal.size, seal.root) != (tree.size, tree.root()):
        raise DoesNotVerify(
            f"the log is not what the seal of {seal.origin} at size {seal.size:,} covers: look with holdfast verify"
            " --against"
        )


def _hex(hashes: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(each.hex() for each in hashes)


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise AuditError(f"this is no proof: {text[:80]!r} is no hash in hexadecimal") from None
