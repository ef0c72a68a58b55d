"""`assets`, and what `asset` shows: how assets stand, their versions, and what tells two versions apart."""

from __future__ import annotations

from engine.cli.asset_desk import Desk
from engine.cli.asset_tables import assets_table, summary_document
from engine.cli.problems import Exit

__all__ = ["list_assets"]


async def list_assets(desk: Desk, select: tuple[str, ...], environment: str) -> Exit:
    """A row for each asset."""
    found = await desk.assets.overview(*select, environment=environment)
    if desk.output.json:
        desk.output.document({"environment": environment, "assets": [summary_document(each) for each in found]})
    else:
        desk.output.show(assets_table(found, now=desk.clock.now()))
    return Exit.COMPLETED
