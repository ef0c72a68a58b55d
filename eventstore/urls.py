"""Stores by URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``memory:``.

Options follow a question mark: ``sqlite:///runs.db?synchronous=NORMAL&writes_on=loop``, see `SqliteStore.open`. What is
not known is refused, never ignored.
Each kind of store is imported when it is asked for.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from eventstore.clock import Clock
from eventstore.errors import InvalidArgument
from eventstore.port import EventStore

__all__ = ["open_store", "shown_url"]

_USER: Final = re.compile(r"(://)(?!/)[^?#]*@")  # a password may hold a slash
_PLAIN_OPTIONS: Final = frozenset({"synchronous", "writes_on"})
_HOLDS_SECRETS: Final = re.compile(r"[@?&;=]")  # a user and password, or options: a folder or a bucket alone has none
_FORMS: Final = "sqlite:///relative.db, sqlite:////absolute.db or memory:"


async def open_store(url: str, *, clock: Clock | None = None, read_only: bool = False) -> EventStore:
    """Open the store that a URL names; the caller closes it.

    `read_only` refuses every change, and a file that is not there. Raises `InvalidArgument` for a URL that is not
    understood, and what the store raises when it is opened.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote a password
        raise InvalidArgument(f"store URL {shown_url(url)!r} names a host that cannot be one: use {_FORMS}") from None
    options = _options(url, parts.query)
    match parts.scheme:
        case "sqlite":
            return await _open_sqlite(url, options, clock=clock, read_only=read_only)
        case "memory":
            _refuse_rest(url, options)
            if url.partition("?")[0] != "memory:":
                raise InvalidArgument(f"store URL {shown_url(url)!r}: 'memory:' is followed by nothing")
            from eventstore.memory import MemoryStore  # noqa: PLC0415 - only who wants it

            return MemoryStore(clock=clock)
        case "":
            raise InvalidArgument(f"store URL {shown_url(url)!r} has no scheme: use {_FORMS}")
        case _:
            raise InvalidArgument(f"store URL {shown_url(url)!r}: {parts.scheme!r} is no kind of store; use {_FORMS}")


async def _open_sqlite(url: str, options: dict[str, str], *, clock: Clock | None, read_only: bool) -> EventStore:
    rest = url.partition("?")[0].partition("#")
    if rest[1]:
        raise InvalidArgument(f"store URL {shown_url(url)!r} holds '#': write %23 for one in a path")
    path = unquote(rest[0].removeprefix("sqlite:///"))
    if not rest[0].startswith("sqlite:///") or not path or path.endswith("/"):
        raise InvalidArgument(
            f"store URL {shown_url(url)!r} names no file: use sqlite:///relative.db or sqlite:////absolute.db"
        )
    if "\0" in path:
        raise InvalidArgument(f"store URL {shown_url(url)!r} has a zero byte in its path, which no file can have")
    if path == ":memory:":
        raise InvalidArgument(f"store URL {shown_url(url)!r}: a store in memory is 'memory:'")
    synchronous = options.pop("synchronous", "EXTRA").upper()
    writes_on = options.pop("writes_on", "thread").lower()
    _refuse_rest(url, options)
    from eventstore.sqlite import SqliteStore, is_synchronous, is_writes_on  # noqa: PLC0415 - only who wants it

    if not is_synchronous(synchronous):
        raise InvalidArgument(
            f"store URL {shown_url(url)!r}: synchronous is EXTRA, FULL or NORMAL, not {synchronous!r}"
        )
    if not is_writes_on(writes_on):
        raise InvalidArgument(f"store URL {shown_url(url)!r}: writes_on is thread or loop, not {writes_on!r}")
    return await SqliteStore.open(path, clock=clock, synchronous=synchronous, writes_on=writes_on, read_only=read_only)


def shown_url(url: str) -> str:
    """The URL as messages show it: without user, password, and the values of options that may hold them."""
    url = _USER.sub(r"\1...@", url)
    place, asks, query = url.partition("?")
    return place + asks + "&".join(_option_shown(option) for option in query.split("&"))


def _option_shown(option: str) -> str:
    name, equals, value = option.partition("=")
    plain = name in _PLAIN_OPTIONS or (name == "storage" and not _HOLDS_SECRETS.search(unquote(value)))
    return option if not equals or plain else f"{name}=..."


def _options(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InvalidArgument(f"store URL {shown_url(url)!r}: options are written name=value&name=value") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise InvalidArgument(f"store URL {shown_url(url)!r} says an option twice")
    return options


def _refuse_rest(url: str, options: dict[str, str]) -> None:
    if options:
        raise InvalidArgument(f"store URL {shown_url(url)!r}: unknown option {', '.join(sorted(options))}")
