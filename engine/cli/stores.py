"""The store a command works on: opened once, closed at the end, and never created by a command that only looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from engine import LargeValues
from engine.cli.problems import Problem
from engine.storage import Storage
from eventstore import EventStore
from eventstore.urls import open_store, shown_url

__all__ = ["DEFAULT_STORE", "anchored", "existing", "opened", "opened_or_empty"]

DEFAULT_STORE: Final = "sqlite:///holdfast.db"
_SQLITE: Final = "sqlite:///"
_STORAGE: Final = "storage="


@asynccontextmanager
async def opened(url: str, *, read_only: bool = False, as_it_is: bool = False) -> AsyncIterator[EventStore]:
    """The store of a URL. With `read_only` nothing is changed or created, and a missing file is an error.

    With ``storage=PLACE`` among its options, large values are written to and read from that storage; `as_it_is`: what
    the store itself holds is shown, which says where they lie.
    """
    url, storage = _parted(url)
    store = await open_store(url, read_only=read_only)
    try:
        yield store if storage is None or as_it_is else LargeValues(store, storage)
    finally:
        await store.aclose()


@asynccontextmanager
async def existing(url: str, *, read_only: bool = False, as_it_is: bool = False) -> AsyncIterator[EventStore]:
    """The store of a URL, to write to unless `read_only`; one that is not there is an error, and is not made."""
    if not read_only:
        async with opened(url, read_only=True):
            pass
    async with opened(url, read_only=read_only, as_it_is=as_it_is) as store:
        yield store


@asynccontextmanager
async def opened_or_empty(url: str) -> AsyncIterator[EventStore]:
    """The store of a URL, to look at; one that is not there yet is looked at as an empty one, and is not made."""
    async with opened("memory:") if _is_missing(url) else opened(url, read_only=True) as store:
        yield store


def anchored(url: str, folder: Path) -> str:
    """The URL that means in every folder what `url` means in this one: its file and its storage may be relative."""
    place, asks, query = url.partition("?")
    path = place.removeprefix(_SQLITE)
    if path != place and path and not path.startswith(("/", ":")):
        place = f"{_SQLITE}{Path(quote(str(folder))) / path}"
    return place + asks + "&".join(_anchored_option(option, folder) for option in query.split("&"))


def _anchored_option(option: str, folder: Path) -> str:
    named = unquote(option.removeprefix(_STORAGE))
    if not option.startswith(_STORAGE) or not named or "://" in named or Path(named).is_absolute():
        return option
    return f"{_STORAGE}{quote(str(folder / named))}"


def _is_missing(url: str) -> bool:
    """Whether it names a file, as far as that can be read, and there is none."""
    path = url.partition("?")[0].removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or path in {"", ":memory:"} or path.endswith("/"):
        return False
    return not Path(unquote(path)).exists()


def _parted(url: str) -> tuple[str, Storage | None]:
    """The URL that the store is opened by, and the storage that its options name."""
    place, _, query = url.partition("?")
    options = query.split("&") if query else []
    named = [option.removeprefix(_STORAGE) for option in options if option.startswith(_STORAGE)]
    if not named:
        return url, None
    rest = [option for option in options if not option.startswith(_STORAGE)]
    if len(named) > 1:
        raise Problem(f"store URL {shown_url(url)!r} says storage= twice")
    return "?".join([place, *(["&".join(rest)] if rest else [])]), Storage(unquote(named[0]))
