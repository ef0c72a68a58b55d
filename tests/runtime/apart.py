"""A task that runs in a worker process, which imports it from here."""

from __future__ import annotations

from engine import task


@task(executor="processes")
def grow(text: str) -> str:
    return text + text
