"""Assets that are made in worker processes, in a module that these can import."""

from __future__ import annotations

import os

from engine.assets import AssetContext, Config, Definitions, Monthly, asset


class Meter:
    """A resource, made anew in each process."""

    def __init__(self) -> None:
        self.process = os.getpid()


class Sizes(Config):
    """How much."""

    size: int = 2


MONTHS = Monthly("2025-11", end="2026-01")


@asset(partitions=MONTHS)
def months(context: AssetContext) -> str:
    """In this process."""
    return context.partition


@asset(partitions=MONTHS, executor="processes", timeout=120)
def cut(months: str, meter: Meter, config: Sizes, context: AssetContext) -> dict[str, str | int]:
    """In another."""
    context.add_metadata(size=config.size)
    secret = context.secret("PLANT_KEY")
    return {"text": months[: config.size], "process": os.getpid(), "meter": meter.process, "secret": len(secret)}


@asset(executor="processes", timeout=120)
def breaks(cut: dict[str, dict[str, str | int]], context: AssetContext) -> int:
    """Tells a secret, or would."""
    raise RuntimeError(f"{len(cut)} {context.secret('PLANT_KEY')}")


definitions = Definitions([months, cut, breaks], resources=[Meter()], secrets=os.environ)
