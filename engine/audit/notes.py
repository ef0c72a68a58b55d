"""A seal as text: a C2SP signed note whose body is a C2SP tlog-checkpoint. Pure but for signing.

::

    example.com/shop                                  the origin: which log
    20852163                                          its size: events, in commit order
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      the root of the tree over their digests
    position 20852170                                 of the last of them; extension lines of ours
    at 1767225600000001                               microseconds since the epoch, as the sealer's clock had it

    — example.com/shop Az3grlgtzPICa5OS8npVmf1Myq...  signatures, any number

The text up to the empty line is what is signed. Lines that are not known are kept and signed, as the form wants it.
Sources: c2sp.org/tlog-checkpoint, c2sp.org/signed-note.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final

from msgspec import Struct

from engine.audit.keys import PrivateKey, PublicKey
from engine.errors import AuditError, DoesNotVerify

__all__ = ["Seal", "SealSignature"]

_DASH: Final = "\N{EM DASH} "
_HASH_BYTES: Final = 4
_ROOT_BYTES: Final = 32
_NOTE_BYTES_MAX: Final = 64 << 10
_SIZE_MAX: Final = (1 << 63) - 1


class SealSignature(Struct, frozen=True):
    """One signature of a seal: whose it says it is, which key of that name, and the signature."""

    name: str
    hash: bytes
    signature: bytes


class Seal(Struct, frozen=True, kw_only=True):
    """A signed root over the whole log: what it was when it had `size` events."""

    origin: str
    size: int  # events, in commit order
    root: bytes  # 32 bytes, of the tree over their digests
    position: int | None  # of the last of them; None: the seal does not say
    at: int | None  # microseconds since the epoch
    text: str  # what is signed
    signatures: tuple[SealSignature, ...] = ()

    @classmethod
    def make(cls, key: PrivateKey, *, size: int, root: bytes, position: int, at: int) -> Seal:
        """Seal and sign. Raises `AuditError` without the extra."""
        text = f"{key.name}\n{size}\n{b64encode(root).decode()}\nposition {position}\nat {at}\n"
        signature = SealSignature(key.name, key.public.hash, key.sign(text.encode()))
        return cls(origin=key.name, size=size, root=root, position=position, at=at, text=text, signatures=(signature,))

    @classmethod
    def parse(cls, note: str, *, where: str = "the seal") -> Seal:
        """The seal of a note. Raises `AuditError`, naming `where`; whether it is signed is `check`'s business."""
        if len(note) > _NOTE_BYTES_MAX or any(each < " " and each != "\n" for each in note):
            raise AuditError(f"{where}: this is no seal (too long, or not plain text)")
        text, gap, rest = note.rpartition("\n\n")
        if not gap or not rest.endswith("\n"):
            raise AuditError(f"{where}: this is no seal: below its text an empty line and signatures are missing")
        lines = text.split("\n")
        if len(lines) < 3 or not all(lines):
            raise AuditError(f"{where}: this is no seal: its lines are the origin, the size, the root")
        extensions = dict(line.split(" ", 1) for line in lines[3:] if " " in line)
        return cls(
            origin=lines[0],
            size=_number(lines[1], where, "size"),
            root=_base64(lines[2], where, "root", exactly=_ROOT_BYTES),
            position=_number(extensions["position"], where, "position") if "position" in extensions else None,
            at=_number(extensions["at"], where, "time") if "at" in extensions else None,
            text=text + "\n",
            signatures=tuple(_signature(line, where) for line in rest[:-1].split("\n")),
        )

    @property
    def note(self) -> str:
        """The whole, as it is written to a file."""
        lines = [f"{_DASH}{each.name} {b64encode(each.hash + each.signature).decode()}\n" for each in self.signatures]
        return f"{self.text}\n{''.join(lines)}"

    def check(self, key: PublicKey) -> None:
        """Whether that key has signed it. Raises `DoesNotVerify`, and `AuditError` without the extra."""
        if self.origin != key.name:
            raise DoesNotVerify(f"the seal is of log {self.origin!r}, and the key of {key.name!r}")
        for each in self.signatures:
            if (each.name, each.hash) == (key.name, key.hash) and key.verifies(self.text.encode(), each.signature):
                return
        raise DoesNotVerify(
            f"the seal of {self.origin!r} at size {self.size} is not signed by key {key.name}+{key.hash.hex()}:"
            " it is another's, or was changed"
        )


def _number(text: str, where: str, what: str) -> int:
    plain = text.isascii() and text.isdecimal() and len(text) <= len(str(_SIZE_MAX))
    if not plain or (text[0] == "0" and text != "0") or int(text) > _SIZE_MAX:
        raise AuditError(f"{where}: this is no seal: its {what} is {text!r}")
    return int(text)


def _base64(text: str, where: str, what: str, *, exactly: int | None = None) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if b64encode(data).decode() != text or not data or exactly not in (None, len(data)):
        raise AuditError(f"{where}: this is no seal: its {what} is {text!r}")
    return data


def _signature(line: str, where: str) -> SealSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not name:
        raise AuditError(f"{where}: this is no seal: below the empty line stands {line[:80]!r}, which is no signature")
    data = _base64(encoded, where, "signature")
    if len(data) <= _HASH_BYTES:
        raise AuditError(f"{where}: this is no seal: its signature is {encoded!r}")
    return SealSignature(name, data[:_HASH_BYTES], data[_HASH_BYTES:])
