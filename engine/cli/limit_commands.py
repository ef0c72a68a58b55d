"""The commands about pools and rates: how they stand, and changing them while everything runs."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import ByOption, DebugOption, JsonOption, ReasonOption, StoreOption, by_whom, commands, epilog

__all__ = ["group"]

group = commands()

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of the limit.", show_default=False)]
SlotsArgument = Annotated[int, typer.Argument(metavar="SLOTS", help="Attempts at once.", min=0, show_default=False)]
RateArgument = Annotated[
    str, typer.Argument(metavar="RATE", help="Starts in a window: 10/s, 100/min, 3/10s.", show_default=False)
]


@group.command(epilog=epilog("holdfast limits"))
def limits(*, store: StoreOption = DEFAULT_STORE, json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the pools and rates of a store: what they give, who set that and why."""
    from engine.cli import limiting  # noqa: PLC0415 - see `doing`

    doing.read(limiting.show, store=store, json=json, debug=debug)


@group.command(name="set-pool", epilog=epilog("holdfast set-pool warehouse 8 --reason 'night'"))
def set_pool(
    *,
    name: NameArgument,
    slots: SlotsArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a pool have that many slots from now on, in all engines on the store; 0: nothing begins."""
    from engine.cli import limiting  # noqa: PLC0415 - see `doing`

    doing.change(
        lambda given, output: limiting.set_pool(given, output, name, slots, reason=reason, by=by_whom(by)),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(name="set-rate", epilog=epilog("holdfast set-rate mail 10/s --by ops"))
def set_rate(
    *,
    name: NameArgument,
    rate: RateArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a rate be that from now on, in all engines on the store."""
    from engine.cli import limiting  # noqa: PLC0415 - see `doing`

    doing.change(
        lambda given, output: limiting.set_rate(given, output, name, rate, reason=reason, by=by_whom(by)),
        store=store,
        json=json,
        debug=debug,
    )
