"""The one place that reaches into anyio's backend: its scopes keep children in sets, and a set iterates by address."""

from __future__ import annotations

from anyio._backends import _asyncio as backend

from engine.core.ordered import install

__all__ = ["order_anyio_sets"]


def order_anyio_sets() -> None:
    """Let anyio's sets iterate in insertion order inside workflows; outside nothing changes. Idempotent."""
    install(backend)
