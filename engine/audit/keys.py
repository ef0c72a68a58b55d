"""Keys that seals are signed with: Ed25519, as signed notes write them. The one place that imports `cryptography`.

A public key is ``NAME+HASH+BASE64``, a private one ``PRIVATE+KEY+NAME+HASH+BASE64``, as golang.org/x/mod/sumdb/note
writes them (C2SP signed-note), so that other tools can check our seals. HASH is eight hex digits of the SHA-256 over
the name, a newline, 0x01 (Ed25519) and the public key; NAME is that of the log, too: the origin of its seals.

`cryptography` is the extra ``audit``. It is loaded when something is signed or a signature is checked, never before.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct

from engine.errors import AuditError
from engine.storage import sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519

__all__ = ["PrivateKey", "PublicKey", "generate_key", "read_private_key", "read_public_key", "write_key_pair"]

T = TypeVar("T")

_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_PRIVATE: Final = "PRIVATE+KEY+"
_FILE_BYTES_MAX: Final = 4_096
_OTHERS: Final = 0o077


class PublicKey(Struct, frozen=True):
    """What checks seals: the name, which is the log's origin, and 32 bytes. Its text may be shown to anybody."""

    name: str
    key: bytes

    @property
    def hash(self) -> bytes:
        """Four bytes by which a signature says which key made it."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:4]

    @property
    def text(self) -> str:
        """As it is written to a file, and given to ``--key``."""
        return f"{self.name}+{self.hash.hex()}+{b64encode(_ED25519 + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key of a text. Raises `AuditError`."""
        if text.startswith(_PRIVATE):
            raise AuditError("this is a private key: to check seals give the public one (the file .pub beside it)")
        name, given, key = _parts(text, "public")
        found = cls(name, key)
        if found.hash.hex() != given:
            raise AuditError(f"the public key of {name!r} is damaged: its hash does not fit it; take it from its file")
        return found

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, of that text. Raises `AuditError` without the extra."""
        library = _library()
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the module

        try:
            library.Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey(Struct, frozen=True):
    """What makes seals. Whoever has it can seal a log that was changed: keep it from those who can write the log."""

    name: str
    seed: bytes

    def __repr__(self) -> str:
        return f"PrivateKey({self.name!r}, ...)"

    @property
    def public(self) -> PublicKey:
        """The key that checks what this one signs. Raises `AuditError` without the extra."""
        return PublicKey(self.name, self._key().public_key().public_bytes_raw())

    @property
    def text(self) -> str:
        """As it is written to its file: a secret."""
        return f"{_PRIVATE}{self.name}+{self.public.hash.hex()}+{b64encode(_ED25519 + self.seed).decode()}"

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """The key of a text. Raises `AuditError`, which does not quote it."""
        if not text.startswith(_PRIVATE):
            raise AuditError(f"this is no private key, which begins with {_PRIVATE}")
        name, given, seed = _parts(text.removeprefix(_PRIVATE), "private")
        found = cls(name, seed)
        if found.public.hash.hex() != given:
            raise AuditError(f"the private key of {name!r} is damaged: its hash does not fit it")
        return found

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, 64 bytes. Raises `AuditError` without the extra."""
        return self._key().sign(text)

    def _key(self) -> ed25519.Ed25519PrivateKey:
        key: ed25519.Ed25519PrivateKey = _library().Ed25519PrivateKey.from_private_bytes(self.seed)
        return key


def generate_key(name: str, *, entropy: Callable[[int], bytes] = os.urandom) -> PrivateKey:
    """A new key for a log of that name, best a URL without its scheme: ``example.com/shop``. Raises `AuditError`."""
    checked_name(name)
    return PrivateKey(name, entropy(_KEY_BYTES))


def checked_name(name: str) -> str:
    """The name, if a key and a log can have it. Raises `AuditError`."""
    if not name or "+" in name or not name.isprintable() or any(each.isspace() for each in name):
        raise AuditError(f"{name!r} cannot name a log and its key: no spaces and no '+', as in example.com/shop")
    return name


def write_key_pair(path: Path, key: PrivateKey) -> Path:
    """Write a private key, readable by its user alone, and beside it the public one, whose path is returned: durably,
    for what is sealed with it cannot be checked without.

    Raises `AuditError` if there is either file, and `OSError`.
    """
    public = path.with_name(path.name + ".pub")
    for each in (path, public):
        if each.exists():
            raise AuditError(f"{each} is there already: a key is never overwritten; choose another name")
    text = key.text + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with public.open("x", encoding="utf-8") as file:
        file.write(key.public.text + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return public


def read_private_key(path: Path) -> PrivateKey:
    """The private key in a file that nobody else may read. Raises `AuditError`, `OSError`."""
    _library()  # what is missing is not the file's fault
    if path.stat().st_mode & _OTHERS:
        raise AuditError(f"{path} can be read by other users, so it is no secret: chmod 600 {path}")
    return _named(path, PrivateKey.parse)


def read_public_key(given: str) -> PublicKey:
    """A public key by its text, or by the path of its file. Raises `AuditError`, `OSError`."""
    path = Path(given)
    if "+" in given and not path.exists():
        return PublicKey.parse(given)
    return _named(path, PublicKey.parse)


def _named(path: Path, parse: Callable[[str], T]) -> T:
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES_MAX)
    try:
        return parse(data.decode().strip())
    except UnicodeDecodeError:
        raise AuditError(f"{path}: this is no key, which is one line of text") from None
    except AuditError as error:
        raise AuditError(f"{path}: {error}") from None


def _parts(text: str, what: str) -> tuple[str, str, bytes]:
    name, _, rest = text.partition("+")
    given, _, encoded = rest.partition("+")
    try:
        data = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 1 + _KEY_BYTES or not data.startswith(_ED25519):
        raise AuditError(f"this is no {what} key: one line NAME+HASH+KEY, as holdfast keygen writes it")
    return checked_name(name), given, data[1:]


def _library() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - see the module
    except ImportError:
        raise AuditError(
            'signing seals and checking signatures needs the package cryptography: pip install "holdfast[audit]"'
        ) from None
    return ed25519
