"""Proof that a log is what it was: verifying it, sealing it, proving what is in it, and not keeping all of it for ever.
See docs/audit.md.

It uses what anybody can import from `engine` and `eventstore`. Signatures need the extra ``audit``; verifying without a
key does not.
"""

from __future__ import annotations

from engine.audit.archiving import EVENT_COLUMNS, EVENTS_OF_PART, RUN_COLUMNS, Archived, archive
from engine.audit.events import LogSealed
from engine.audit.findings import AuditFinding, AuditProgress, AuditVerdict, SealCheck
from engine.audit.keeping import LeftAsItIs, Pruning, prune
from engine.audit.keys import (
    PrivateKey,
    PublicKey,
    generate_key,
    read_private_key,
    read_public_key,
    write_key_pair,
)
from engine.audit.merkle import Tree
from engine.audit.notes import Seal, SealSignature
from engine.audit.proving import (
    ConsistencyProof,
    InclusionProof,
    ProvenEvent,
    decode_proof,
    encode_proof,
    prove_consistency,
    prove_inclusion,
)
from engine.audit.sealing import Sealed, read_seal, read_seals, seal
from engine.audit.verifying import verify, verify_streams

__all__ = [
    "EVENTS_OF_PART",
    "EVENT_COLUMNS",
    "RUN_COLUMNS",
    "Archived",
    "AuditFinding",
    "AuditProgress",
    "AuditVerdict",
    "ConsistencyProof",
    "InclusionProof",
    "LeftAsItIs",
    "LogSealed",
    "PrivateKey",
    "ProvenEvent",
    "Pruning",
    "PublicKey",
    "Seal",
    "SealCheck",
    "SealSignature",
    "Sealed",
    "Tree",
    "archive",
    "decode_proof",
    "encode_proof",
    "generate_key",
    "prove_consistency",
    "prove_inclusion",
    "prune",
    "read_private_key",
    "read_public_key",
    "read_seal",
    "read_seals",
    "seal",
    "verify",
    "verify_streams",
    "write_key_pair",
]
