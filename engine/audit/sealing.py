"""`seal`: a signed root over the whole log, written into the log and to a place outside it.

The next seal goes on from the frontier that the last one left in the log, and reads only what came since. That frontier
is believed because the key has signed its root. A seal outside is compared with the log before another is made: a log
that was cut off, or put back from a copy, is not sealed anew as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeAlias, cast
from uuid import uuid4

from msgspec import Struct

from engine.audit.events import LogSealed, read_sealed, seal_stream, sealed_event
from engine.audit.keys import PrivateKey
from engine.audit.merkle import Tree
from engine.audit.notes import Seal
from engine.audit.pruned import Leaf, leaves
from engine.audit.streams import event_at
from engine.errors import AuditError, DoesNotVerify
from engine.storage import sync_folder
from eventstore import NEW, Clock, Commit, EventStore, StreamNotFound, SystemClock, VersionConflict

__all__ = ["Sealed", "read_seal", "read_seals", "seal"]

_SUFFIX: Final = ".seal"
_FILE_BYTES_MAX: Final = 64 << 10
_Leaves: TypeAlias = AsyncGenerator[Leaf, None]


class Sealed(Struct, frozen=True, kw_only=True):
    """What `seal` did: the seal, whether it is new, how many events were read for it, and the file it stands in."""

    seal: Seal
    new: bool
    read: int
    file: Path | None


class _Last(Struct, frozen=True):
    """The last seal in the log, and where the tree stood."""

    version: int
    seal: Seal | None = None
    tree: Tree | None = None


async def seal(
    store: EventStore,
    key: PrivateKey,
    *,
    by: str = "",
    reason: str = "",
    out: str | Path | None = None,
    clock: Clock | None = None,
) -> Sealed:
    """Seal the log as it is now: as the event `LogSealed` in the stream ``seal:<the key's name>``, and in `out`.

    `out` is a file, which is replaced, or a directory, which gets ``<size>.seal``. With nothing new since the last seal
    that one is returned and written, and no event is. Several sealers may work at once.

    Raises `DoesNotVerify` when the log no longer begins with what the seal in `out` covers (of a directory: the
    largest), or the last one in the log is not what was signed; `AuditError` without the extra; `OSError` when `out`
    cannot be written, the seal being in the log then.
    """
    clock = SystemClock() if clock is None else clock
    path = None if out is None else Path(out)
    outside = None if path is None else await asyncio.to_thread(_outside, path, key.name)
    while True:
        last = await _last(store, key)
        made, new, read = await _made(store, key, last, outside, at=clock.now())
        if new is not None:
            sealed = LogSealed(
                at=made.at or 0,
                origin=made.origin,
                size=made.size,
                root=made.root.hex(),
                position=made.position or 0,
                key=key.public.hash.hex(),
                by=by,
                reason=reason,
            )
            try:
                await store.commit(
                    Commit(
                        id=uuid4().hex,
                        stream=seal_stream(key.name),
                        expected_version=last.version or NEW,
                        events=(sealed_event(sealed, made, new),),
                    )
                )
            except VersionConflict:
                continue  # somebody else has sealed it meanwhile
        file = None if path is None else await asyncio.to_thread(_write, path, made)
        return Sealed(seal=made, new=new is not None, read=read, file=file)


async def _made(
    store: EventStore, key: PrivateKey, last: _Last, outside: Seal | None, *, at: int
) -> tuple[Seal, Tree | None, int]:
    """The seal of the log as it is now, its tree if it is a new one, and how many events were read."""
    tree, position, wanted = _start(last, outside)
    began = tree.size
    async with aclosing(cast("_Leaves", leaves(store, after=position))) as events:
        async for event in events:
            tree.append(event.digest)
            position = event.position
            while wanted and wanted[-1].size == tree.size:
                before = wanted.pop()
                if tree.root() != before.root:
                    raise DoesNotVerify(_broken(before, tree.size))
    if wanted:
        raise DoesNotVerify(_broken(wanted[0], tree.size))
    if last.seal is not None and tree.size == last.seal.size + 1:
        return last.seal, None, tree.size - began  # nothing new but the event of that seal itself
    made = Seal.make(key, size=tree.size, root=tree.root(), position=position, at=at)
    return made, tree, tree.size - began


def _start(last: _Last, outside: Seal | None) -> tuple[Tree, int, list[Seal]]:
    """The tree to go on from, the position behind it, and the seals that must be met on the way, the smallest last."""
    before, tree = last.seal, last.tree
    known = before is not None and (outside is None or (outside.size, outside.root) == (before.size, before.root))
    if known and tree is not None and before is not None and before.position is not None:
        return Tree(tree.size, tree.frontier), before.position, []
    wanted = [each for each in (before, outside) if each is not None and each.size]
    return Tree(), 0, sorted(wanted, key=lambda each: each.size, reverse=True)


def _broken(outside: Seal, size: int) -> str:
    what = (
        f"it has {size:,} events only"
        if size < outside.size
        else f"its first {outside.size:,} events are not those that were sealed"
    )
    return (
        f"the log no longer is what the seal of {outside.origin} at size {outside.size:,} covers: {what}; it was not"
        " sealed again: look with holdfast verify --against"
    )


async def _last(store: EventStore, key: PrivateKey) -> _Last:
    """The last seal in the log, if it can be gone on from: it is this key's, and its payload is there.

    Raises `DoesNotVerify` when this key has not signed what it is said to have.
    """
    stream = seal_stream(key.name)
    try:
        version = (await store.head(stream)).version
    except StreamNotFound:
        return _Last(0)
    event = await event_at(store, stream, version)
    if event is None:
        raise DoesNotVerify(f"version {version} of stream {stream!r} is missing: look with holdfast verify")
    try:
        sealed, made, tree = read_sealed(event)
        if made is None or sealed.key != key.public.hash.hex():
            return _Last(version)  # forgotten, or of a key before this one: from the beginning
        made.check(key.public)
    except DoesNotVerify:
        raise
    except AuditError as error:
        raise DoesNotVerify(f"{error}: look with holdfast verify") from None
    return _Last(version, made, tree)


def read_seal(path: Path) -> Seal:
    """The seal in a file. Raises `AuditError`, `OSError`."""
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES_MAX + 1)
    try:
        return Seal.parse(data.decode(), where=str(path))
    except UnicodeDecodeError:
        raise AuditError(f"{path}: this is no seal, which is text") from None


def read_seals(path: Path) -> tuple[Seal, ...]:
    """The seal in a file, or those in a directory (``*.seal``), smallest first. Raises `AuditError`, `OSError`."""
    if not path.is_dir():
        return (read_seal(path),)
    found = sorted((read_seal(each) for each in path.glob(f"*{_SUFFIX}")), key=lambda each: each.size)
    if not found:
        raise AuditError(f"{path} is a directory without seals (*{_SUFFIX})")
    return tuple(found)


def _outside(path: Path, origin: str) -> Seal | None:
    """The seal that stands outside already. Raises `AuditError` when it is another log's."""
    if path.is_dir():
        found = [each for each in path.glob(f"*{_SUFFIX}") if each.stem.isdecimal()]
        path = max(found, key=lambda each: int(each.stem), default=path)
    if not path.is_file():
        return None
    found_seal = read_seal(path)
    if found_seal.origin != origin:
        raise AuditError(f"{path} is a seal of log {found_seal.origin!r}, not of {origin!r}: name another place")
    return found_seal


def _write(path: Path, made: Seal) -> Path:
    """Put the seal where it belongs, durably: a reader finds it whole, or the one before."""
    target = path / f"{made.size}{_SUFFIX}" if path.is_dir() else path
    beside = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(made.note)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)
    return target
