"""`verify`, `seal`, `prove`, `check-proof`, `keygen`: what they do, and what they say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.audit import (
    AuditFinding,
    AuditProgress,
    AuditVerdict,
    InclusionProof,
    PrivateKey,
    Sealed,
    decode_proof,
    encode_proof,
    generate_key,
    prove_consistency,
    prove_inclusion,
    read_private_key,
    read_public_key,
    read_seal,
    read_seals,
    seal,
    verify,
    verify_streams,
    write_key_pair,
)
from engine.cli.bar import Bar
from engine.cli.output import Output
from engine.cli.problems import Exit
from engine.cli.readable import clock, duration, instant
from engine.cli.stopping import StopRequest
from engine.errors import AuditError, RunNotFound
from eventstore import EventStore, StreamNotFound, SystemClock

__all__ = ["check_proof", "keygen", "private_key", "prove", "seal_log", "told_by", "verify_log"]

_PROOF_BYTES_MAX: Final = 1 << 30


def private_key(path: Path) -> PrivateKey:
    """The key to seal with."""
    return read_private_key(path)


# ------------------------------------------------------------------------------------------------ verify


async def verify_log(
    store: EventStore, output: Output, *, run_ids: tuple[str, ...], against: tuple[Path, ...], key: str | None
) -> Exit:
    """Verify a log, or some runs, and say what is wrong."""
    public = None if key is None else read_public_key(key)
    seals = tuple(each for path in against for each in read_seals(path))
    with Bar(output, SystemClock(), "verifying") as bar:
        tell = told_by(bar)
        if run_ids:
            try:
                verdict = await verify_streams(store, [f"run:{each}" for each in run_ids], progress=tell)
            except StreamNotFound as error:
                raise RunNotFound(f"no run {error.stream.partition(':')[2]!r} in this store") from None
        else:
            verdict = await verify(store, seals=seals, key=public, progress=tell)
    if output.json:
        output.document(_verdict_document(verdict))
    else:
        for line in _verdict_lines(verdict, signed=public is not None):
            output.line(line)
    return Exit.COMPLETED if verdict.holds else Exit.DOES_NOT_VERIFY


def told_by(bar: Bar) -> Callable[[AuditProgress], None]:
    """What tells the bar how far verifying is."""

    def tell(progress: AuditProgress) -> None:
        wrong = f", {progress.findings:,} found wrong" if progress.findings else ""
        bar.tell_events(progress.events, progress.total, also=wrong)

    return tell


def _verdict_lines(verdict: AuditVerdict, *, signed: bool) -> list[str]:
    lines = [_finding_line(each) for each in verdict.findings]
    if verdict.more:
        lines.append("… and more, which are not listed")
    for each in verdict.seals:
        what = f"seal of {each.seal.origin} at size {each.seal.size:,}"
        if each.seal.at is not None:
            what += f", {clock(each.seal.at)}"
        words = ["the log begins with what it covers" if each.holds else "DOES NOT HOLD"]
        if each.signed is not None:
            words.append("signed by the key" if each.signed else "NOT SIGNED by the key")
        lines.append(f"{what}: {', '.join(words)}")
    if verdict.seals and not signed:
        lines.append("whether the key has signed the seals was not looked at; --key PUBLIC does")
    if verdict.destroyed:
        payloads = "1 payload was" if verdict.destroyed == 1 else f"{verdict.destroyed:,} payloads were"
        lines.append(f"{payloads} destroyed, which is no damage: the digests are there")
    if verdict.pruned:
        events = "1 event was" if verdict.pruned == 1 else f"{verdict.pruned:,} events were"
        lines.append(f"{events} pruned, which is no damage: the digests are there, and fit what was recorded of it")
    rate = verdict.events / verdict.seconds if verdict.seconds > 0 else 0.0
    looked = f"{verdict.events:,} events of {verdict.streams:,} streams in {duration(verdict.seconds)}, {rate:,.0f}/s"
    if verdict.sealed:
        looked += f"; {verdict.sealed:,} seals in the log agree"
    lines.append(f"verified {looked}" if verdict.holds else f"DOES NOT VERIFY: {looked}")
    return lines


def _finding_line(finding: AuditFinding) -> str:
    where = [] if finding.stream is None else [_name(finding.stream)]
    where += [] if finding.version is None else [f"version {finding.version}"]
    where += [] if finding.position is None else [f"position {finding.position}"]
    return f"{finding.what}  {', '.join(where) or 'the log'}: {finding.message}"


def _name(stream: str) -> str:
    return f"run {stream.removeprefix('run:')}" if stream.startswith("run:") else f"stream {stream}"


def _verdict_document(verdict: AuditVerdict) -> dict[str, Any]:
    return {
        "verifies": verdict.holds,
        "events": verdict.events,
        "streams": verdict.streams,
        "destroyed_payloads": verdict.destroyed,
        "pruned_events": verdict.pruned,
        "seconds": verdict.seconds,
        "size": verdict.size,
        "root": None if verdict.root is None else verdict.root.hex(),
        "findings": [msgspec.to_builtins(each) for each in verdict.findings],
        "more_findings": verdict.more,
        "seals": [
            {"origin": each.seal.origin, "size": each.seal.size, "holds": each.holds, "signed": each.signed}
            for each in verdict.seals
        ],
        "seals_in_the_log": verdict.sealed,
    }


# ------------------------------------------------------------------------------------------------ seal


async def seal_log(
    store: EventStore, output: Output, key: PrivateKey, *, out: Path | None, every: float | None, by: str, reason: str
) -> Exit:
    """Seal a log once, or again and again until interrupted, which is then how it ends well."""
    if every is None:
        _say_sealed(output, await seal(store, key, by=by, reason=reason, out=out))
        return Exit.COMPLETED
    with StopRequest(exit_code=Exit.INTERRUPTED) as stop:
        while not stop.asked:
            _say_sealed(output, await seal(store, key, by=by, reason=reason, out=out))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), every)
    return Exit.COMPLETED


def _say_sealed(output: Output, sealed: Sealed) -> None:
    made = sealed.seal
    if output.json:
        output.document(
            {
                "origin": made.origin,
                "size": made.size,
                "root": made.root.hex(),
                "position": made.position,
                "at": instant(made.at),
                "new": sealed.new,
                "events_read": sealed.read,
                "file": None if sealed.file is None else str(sealed.file),
                "note": made.note,
            }
        )
        return
    where = "" if sealed.file is None else f", in {sealed.file}"
    if sealed.new:
        output.line(f"sealed {made.size:,} events of {made.origin} ({sealed.read:,} of them new){where}")
    else:
        output.line(f"nothing new since the seal of {made.origin} at size {made.size:,}{where}")


async def keygen(output: Output, name: str, out: Path) -> Exit:
    """Make a pair of keys."""
    key = generate_key(name)
    public = await asyncio.to_thread(write_key_pair, out, key)
    if output.json:
        output.document({"name": name, "private": str(out), "public": str(public), "key": key.public.text})
    else:
        output.line(f"wrote {out}, which is secret, and {public}:")
        output.line(key.public.text)
    return Exit.COMPLETED


# ------------------------------------------------------------------------------------------------ proofs


async def prove(
    store: EventStore,
    output: Output,
    *,
    run_id: str,
    version: int,
    seal_file: Path,
    since: Path | None,
    out: Path | None,
) -> Exit:
    """Write a proof, which is a JSON document in any case."""
    made = read_seal(seal_file)
    if since is not None:
        data = encode_proof(await prove_consistency(store, read_seal(since), made))
    else:
        try:
            data = encode_proof(await prove_inclusion(store, f"run:{run_id}", version, made))
        except StreamNotFound:
            raise RunNotFound(f"no run {run_id!r} in this store") from None
    if out is None:
        output.document(msgspec.Raw(data.rstrip()))
        return Exit.COMPLETED
    await asyncio.to_thread(out.write_bytes, data)
    if output.json:
        output.document({"file": str(out), "seal_size": made.size})
    else:
        output.line(f"wrote {out}: a proof against the seal of {made.origin} at size {made.size:,}")
    return Exit.COMPLETED


def _read_proof(file: Path) -> bytes:
    if file.stat().st_size > _PROOF_BYTES_MAX:
        raise AuditError(f"{file} is larger than any proof")
    return file.read_bytes()


async def check_proof(output: Output, file: Path, *, key: str | None) -> Exit:
    """Check a proof; what is wrong with it is an error."""
    public = None if key is None else read_public_key(key)
    proof = decode_proof(await asyncio.to_thread(_read_proof, file), where=file)
    made = proof.check(public)
    if isinstance(proof, InclusionProof):
        what = f"versions 1 to {proof.version} of {_name(proof.stream)} are in the log"
        document: dict[str, Any] = {"proves": "inclusion", "stream": proof.stream, "version": proof.version}
    else:
        what = "the log begins with what the earlier seal covers, and is the one"
        document = {"proves": "consistency"}
    if output.json:
        signed = None if public is None else True
        output.document({**document, "origin": made.origin, "size": made.size, "signed": signed, "holds": True})
        return Exit.COMPLETED
    output.line(f"proven: {what} of {made.origin} at size {made.size:,}")
    if public is None:
        output.line("whether the key has signed the seal was not looked at; --key PUBLIC does")
    return Exit.COMPLETED
