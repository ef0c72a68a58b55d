"""From words to work for the commands about assets: loads the definitions, opens the store, does it, and ends.

What a command needs beyond its help is imported when it runs, so that help comes quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias

from engine.cli.doing import exit_with, user
from engine.cli.problems import Exit

__all__ = ["Opening", "with_assets"]

Opening: TypeAlias = Literal["look", "change", "work"]
"""What is done to the store: it is read, as an empty one if it is not there; it is there and is written; it is made."""


def with_assets(
    do: Callable[[Any], Coroutine[Any, Any, Exit]],
    *,
    target: str | None,
    store: str | None,
    opening: Opening,
    json: bool,
    debug: bool,
    by: str | None = None,
    grace: float = 5.0,
) -> None:
    """Find the definitions, and only then open the store and do it, given a `Desk`."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.asset_desk import desk_for  # noqa: PLC0415
    from engine.cli.finding import Found, find  # noqa: PLC0415
    from engine.cli.output import Output  # noqa: PLC0415

    output = Output(json=json)
    openings = {"look": stores.opened_or_empty, "change": stores.existing, "work": stores.opened}

    async def opened(found: Found) -> Exit:
        url = store or found.settings.store_url or stores.DEFAULT_STORE
        async with openings[opening](url) as given:
            speaker = user() if by is None else by
            return await do(
                desk_for(found, given, url, output, asked_store=store, by=speaker, grace=grace, debug=debug)
            )

    def action() -> Coroutine[Any, Any, Exit]:
        return opened(find(target))

    with output.reserved():
        exit_with(action, debug=debug, unread=Exit.INTERRUPTED if opening == "work" else Exit.COMPLETED)
