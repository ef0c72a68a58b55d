"""Assets that the tests of the command make. Functions write down that they ran; files beside them break or hold them."""

import time
from pathlib import Path

from engine.assets import (
    AssetContext,
    CheckResult,
    Config,
    Definitions,
    Dynamic,
    Secret,
    Static,
    asset,
    check,
    external_asset,
)

BEDS = Static(["a", "b", "c"])


def note(what: str) -> None:
    with Path("effects").open("a") as file:
        file.write(f"{what}\n")


def said(name: str) -> str:
    try:
        return Path(name).read_text().strip()
    except FileNotFoundError:  # whoever wrote it takes it away while it is looked for
        return ""


weather = external_asset("weather", observe=lambda: said("sky") or "dry", group="outside")


@asset(group="outside")
def seeds() -> dict[str, int]:
    note("seeds")
    return {"a": 1, "b": 2, "c": 3} | ({"b": 20} if said("more") else {})


class Care(Config, frozen=True):
    water: int = 1
    days: tuple[str, ...] = ()
    key: Secret = Secret("SHED")


@asset(group="beds", partitions=BEDS)
def plants(seeds: dict[str, int], care: Care, context: AssetContext) -> int:
    note(f"plants[{context.partition}]")
    while said("held") == context.partition:
        time.sleep(0.01)
    if said("broken") == context.partition:
        raise ValueError(f"frost in bed {context.partition}")
    return seeds[context.partition] * care.water


@check(plants)
def alive(plants: int) -> CheckResult:
    return CheckResult(plants != 3 or not said("slugs"), "eaten", rows=[{"plant": plants, "by": "slugs"}])


@check(plants, blocking=False)
def small(plants: int) -> bool:
    return plants < 20


@asset(group="beds", partitions=BEDS)
def fruits(plants: int, context: AssetContext) -> int:
    note(f"fruits[{context.partition}]")
    return plants * 10


@asset
def harvest(fruits: dict[str, int]) -> dict[str, int]:
    note("harvest")
    return fruits


@asset(deps=["weather"])
def umbrella() -> bool:
    note("umbrella")
    return said("sky") == "rain"


@asset(partitions=Dynamic("guests"))
def plates(harvest: dict[str, int]) -> int:
    return 1


garden = Definitions([weather, seeds, plants, fruits, harvest, umbrella, plates], checks=[alive, small])
