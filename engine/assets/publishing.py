"""How a step ends, as an event in its asset's stream: published, observed, failed, skipped.

Each is said once for a run and what it was made from, however often the task that says it is run: whoever is about to
say it looks first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from engine.assets.catalog import PartitionState
from engine.assets.events import (
    AssetFailed,
    AssetObserved,
    AssetPublished,
    AssetSkipped,
    AssetUnchanged,
    CheckOutcome,
    Details,
    Upstream,
    UpstreamVersion,
    new_event,
)
from engine.assets.plans import NAMED_VERSIONS, Begun, Made, MadeOut, Pinned, StepRef
from engine.assets.troubles import ERROR_CHARACTERS
from engine.assets.workshop import Workshop
from eventstore import NewEvent

__all__ = ["fail", "leave", "publish", "skip"]

T = TypeVar("T")


async def publish(shop: Workshop, begun: Begun, made: Made, checks: tuple[CheckOutcome, ...], run_id: str) -> int:
    """Say that the versions are there: from now on they are what is read. The version of the first."""
    external = shop.definitions.node_of(begun.step.node).asset.external
    versions: list[int] = []
    for out in _first_last(made.outs):
        own = tuple(each for each in checks if each.asset == out.key)
        event = _observed(shop, out, begun, run_id) if external else _published(shop, out, begun, own, run_id)
        versions.append(await _say(shop, out.key, begun.step, _unless_published(event, out.key, begun, run_id)))
    return versions[-1]


async def fail(shop: Workshop, begun: Begun, checks: tuple[CheckOutcome, ...], why: str, run_id: str) -> int:
    """Say that it was not made, or did not pass its blocking checks. The version of the event."""
    blocking = tuple(each.name for each in checks if not each.passed and each.severity == "blocking")
    event = AssetFailed(
        at=shop.clock.now(),
        partition=begun.step.partition,
        run=run_id,
        provenance=begun.provenance,
        checks=blocking,
        started_at=begun.started_at,
    )
    details = Details(upstream=_upstream(begun), checks=checks, error=why[:ERROR_CHARACTERS])

    def decide(part: PartitionState) -> NewEvent | None:
        said = part.failed
        if said is not None and (said.run, said.provenance) == (run_id, begun.provenance):
            return None
        return new_event(event, details)

    versions = [
        await _say(shop, key, begun.step, decide) for key in _first_last(shop.definitions.node_of(begun.step.node).keys)
    ]
    return versions[-1]


async def leave(shop: Workshop, begun: Begun, run_id: str) -> int:
    """Say that it need not be made. The version of the event."""
    step = begun.step
    event = AssetUnchanged(
        at=shop.clock.now(), partition=step.partition, run=run_id, provenance=begun.provenance, reasons=step.reasons
    )

    def decide(part: PartitionState) -> NewEvent | None:
        return None if part.unchanged is not None and part.unchanged.run == run_id else new_event(event)

    versions = [await _say(shop, key, step, decide) for key in _first_last(shop.definitions.node_of(step.node).keys)]
    return versions[-1]


async def skip(shop: Workshop, step: StepRef, because: tuple[str, ...], run_id: str) -> int:
    """Say that it was planned, and not made because of these. The version of the event."""
    event = AssetSkipped(at=shop.clock.now(), partition=step.partition, run=run_id, because=because)

    def decide(part: PartitionState) -> NewEvent | None:
        return None if part.skipped is not None and part.skipped.run == run_id else new_event(event)

    versions = [await _say(shop, key, step, decide) for key in _first_last(shop.definitions.node_of(step.node).keys)]
    return versions[-1]


def _first_last(several: Sequence[T]) -> Sequence[T]:
    """What a function makes, the first behind the others: what is said of that one ends the making of all."""
    return (*several[1:], several[0])


async def _say(shop: Workshop, key: str, step: StepRef, decide: Callable[[PartitionState], NewEvent | None]) -> int:
    catalog = await shop.catalog(step.environment)
    state = catalog.known(key)  # the appender brings it up to now before it asks
    return await shop.appender(key, catalog).append(step.partition, lambda: decide(state.of(step.partition)))


def _unless_published(
    event: NewEvent, key: str, begun: Begun, run_id: str
) -> Callable[[PartitionState], NewEvent | None]:
    def decide(part: PartitionState) -> NewEvent | None:
        now = part.made
        if now is None or now.provenance != begun.provenance:
            return event
        # By this run before a crash; or by another since it began: a person reopened, forked or promoted something.
        since = key == begun.step.node and now.version > begun.as_of
        return None if now.run == run_id or since else event

    return decide


def _published(shop: Workshop, out: MadeOut, begun: Begun, checks: tuple[CheckOutcome, ...], run_id: str) -> NewEvent:
    stored = out.stored
    event = AssetPublished(
        at=shop.clock.now(),
        partition=begun.step.partition,
        run=run_id,
        code_version=begun.code_version,
        data_version=out.data_version,
        provenance=begun.provenance,
        inputs={each.slot: each.digest for each in begun.inputs},
        config=begun.config,
        started_at=begun.started_at,
        rows=None if stored is None else stored.rows,
        size=None if stored is None else stored.size,
        warnings=sum(not each.passed for each in checks),
    )
    details = Details(
        stored=stored,
        upstream=_upstream(begun),
        checks=checks,
        metadata=out.metadata,
        config=begun.step.config,
    )
    return new_event(event, details)


def _observed(shop: Workshop, out: MadeOut, begun: Begun, run_id: str) -> NewEvent:
    event = AssetObserved(
        at=shop.clock.now(),
        partition=begun.step.partition,
        run=run_id,
        data_version=out.data_version,
        provenance=begun.provenance,
    )
    return new_event(event, Details(metadata=out.metadata))


def _upstream(begun: Begun) -> tuple[Upstream, ...]:
    return tuple(_of(each) for each in begun.inputs)


def _of(pinned: Pinned) -> Upstream:
    few = pinned.count <= NAMED_VERSIONS
    named = [UpstreamVersion(each.partition, each.version, each.data_version) for each in pinned.versions]
    return Upstream(
        key=pinned.key,
        partitions=pinned.partitions,
        count=pinned.count,
        digest=pinned.digest,
        environment=pinned.environment,
        as_of=pinned.as_of,
        versions=tuple(named) if few else (),
    )
