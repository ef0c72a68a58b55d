"""The commands that plan, make and list assets. What is asked of one asset is in `asset_words`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.asset_doing import with_assets
from engine.cli.problems import Exit
from engine.cli.words import (
    ByOption,
    DebugOption,
    EnvOption,
    GraceOption,
    JsonOption,
    PartitionsOption,
    ReasonOption,
    RunIdOption,
    SelectOption,
    SomeStoreOption,
    SomeTargetArgument,
    commands,
    epilog,
)

if TYPE_CHECKING:
    from engine.assets import Request
    from engine.cli.asset_desk import Desk

__all__ = ["group"]

group = commands()

ForceOption = Annotated[bool, typer.Option("--force", help="Also what is not stale.")]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config", metavar="KEY.FIELD=VALUE", help="Configuration of an asset, by its Config. May be given again."
    ),
]


@group.command(
    epilog=epilog(
        "holdfast plan examples/assets.py",
        "holdfast plan --select +report --select tag:daily",
        "holdfast plan shop.py:definitions --select orders+ --partitions 2013-01..2013-06 --json",
    )
)
def plan(
    *,
    target: SomeTargetArgument = None,
    select: SelectOption = None,
    partitions: PartitionsOption = "",
    env: EnvOption = "prod",
    force: ForceOption = False,
    config: ConfigOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say which assets are stale and why, what materialize would make, and what is blocked. Changes nothing."""
    from engine.cli.materializing import show_plan  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await show_plan(desk, _request(desk, select, partitions, env, config, force=force))

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@group.command(
    epilog=epilog(
        "holdfast materialize examples/assets.py",
        "holdfast materialize --select stale,group:sales --env dev",
        "holdfast materialize shop.py --select orders --partitions 2013-01.. --config orders.limit=100",
    )
)
def materialize(
    *,
    target: SomeTargetArgument = None,
    select: SelectOption = None,
    partitions: PartitionsOption = "",
    env: EnvOption = "prod",
    force: ForceOption = False,
    config: ConfigOption = None,
    by: ByOption = None,
    reason: ReasonOption = "",
    run_id: RunIdOption = None,
    store: SomeStoreOption = None,
    grace: GraceOption = 5.0,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make what is stale, upstream first, and watch it. External assets that are selected are observed.

    Without --id this continues the newest unfinished run of the same request, or else starts a new one: after a crash,
    the same command again goes on. What is up to date is not made again. Ctrl-C stops gracefully.
    """
    from engine.cli.materializing import materialize as make  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        request = _request(desk, select, partitions, env, config, force=force, reason=reason)
        return await make(desk, request, run_id=run_id)

    with_assets(do, target=target, store=store, opening="work", json=json, debug=debug, by=by, grace=grace)


@group.command(
    epilog=epilog(
        "holdfast assets examples/assets.py", "holdfast assets --select group:sales --env dev", "holdfast assets --json"
    )
)
def assets(
    *,
    target: SomeTargetArgument = None,
    select: SelectOption = None,
    env: EnvOption = "prod",
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List assets: partitions made, versions, what is stale, rows and durations as they were lately."""
    from engine.cli.asset_reading import list_assets  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await list_assets(desk, tuple(select or ()), env)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


def _request(
    desk: Desk,
    select: list[str] | None,
    partitions: str,
    env: str,
    config: list[str] | None,
    *,
    force: bool,
    reason: str = "",
) -> Request:
    from engine.assets import Request  # noqa: PLC0415 - see asset_doing
    from engine.cli.asset_config import config_of  # noqa: PLC0415

    return Request(
        select=tuple(select or ()),
        partitions=partitions,
        environment=env,
        force=force,
        config=config_of(desk.assets.definitions, config or ()),
        by=desk.by,
        reason=reason,
    )
