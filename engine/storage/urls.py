"""Where a storage is, as text: a path or ``file:///path`` for a folder, and any other URL through fsspec.

A URL may hold secrets (``s3://KEY:SECRET@bucket/path?token=...``). What messages show is the URL without its user and
without its query, and no secret of it is left in the texts of other people's errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from engine.errors import StorageRefused
from engine.storage.extras import needing
from engine.storage.folder import Folder
from engine.storage.places import Place

__all__ = ["place_at", "secrets_of", "shown"]


def place_at(url: str | os.PathLike[str], options: Mapping[str, Any]) -> Place:
    """The place that a URL names. Touches nothing yet. Raises `StorageRefused` for a URL that is none."""
    text = os.fspath(url)
    if not text or "\0" in text:
        raise StorageRefused(f"{text!r} names no storage: use a folder, file:///folder, or a URL that fsspec knows")
    try:
        for part in (text, *text.split("::")):
            urlsplit(part)
    except ValueError:  # its text may quote a password, and so might ours
        raise StorageRefused(
            "a storage URL names a host that cannot be one: look for brackets and odd letters. An IPv6 address is"
            " written in full, [0:0:0:0:0:0:0:1], since '::' joins two URLs"
        ) from None
    if "://" not in text:
        return _folder(Path(text), text, options)
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or not parts.path:
            raise StorageRefused(f"storage {shown(text)!r}: a folder is file:///absolute/path, with %3F for '?' in it")
        return _folder(Path(unquote(parts.path)), text, options)
    with needing(f"the storage {shown(text)} needs"):
        from engine.storage.remote import Remote  # noqa: PLC0415 - only who wants it

    return Remote(text, options, name=shown(text), secrets=secrets_of(text, options))


def _folder(path: Path, text: str, options: Mapping[str, Any]) -> Folder:
    if options:
        raise StorageRefused(f"storage {text!r} is a folder, and takes no options ({', '.join(sorted(options))})")
    return Folder(path)


def shown(url: str) -> str:
    """The URL as it may be shown to anybody."""
    shown_parts = []
    for part in url.split("::"):  # fsspec's chains: "simplecache::s3://..."
        found = urlsplit(part)
        host = found.netloc.rpartition("@")[2]
        shown_parts.append(urlunsplit((found.scheme, host, found.path, "", "")) if found.scheme else part)
    return "::".join(shown_parts)


def secrets_of(url: str, options: Mapping[str, Any]) -> frozenset[str]:
    """What must not be shown: user, password and the values of the query, as written and as meant, and all options."""
    found: set[str] = set()
    for part in url.split("::"):
        pieces = urlsplit(part)
        user, has_user, _ = pieces.netloc.rpartition("@")
        if has_user:
            found.update({user, *user.split(":")})
        found.add(pieces.query)
        found.update(value for _, value in parse_qsl(pieces.query))
        found.add(pieces.fragment)
    pending = list(options.values())
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, str):
            found.add(value)
    return frozenset(found | {unquote(each) for each in found}) - {""}
