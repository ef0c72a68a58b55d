"""The one place that reaches into anyio's backend: its scopes keep children in sets, and a set iterates by address."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from engine.core.ordered import install

__all__ = ["anyio_version", "order_anyio_sets"]


def order_anyio_sets() -> None:
    """Let anyio's sets iterate in insertion order inside workflows; outside nothing changes. Idempotent."""
    # Imported here and not above: it takes as long as all of the core, and only an open engine needs it.
    install(import_module("anyio._backends._asyncio"))


@cache
def anyio_version() -> str:
    """The version of anyio that new runs are written under."""
    version: str = import_module("importlib.metadata").version("anyio")  # imported late for the same reason
    return version
